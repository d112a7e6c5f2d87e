"""The memory that training takes, each form in a process of its own."""

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import memory
import torch
from crrl import Work

from ssl_skeleton.training.loop import Standing, train

Found = TypeVar("Found")


def held(work: Work, batch: int, form: str) -> float:
    """The megabytes that a form takes at most; to be called in a process that did nothing else."""
    device = torch.device(work.device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = memory.forget_peak()
    training = work.form(form, batch)
    for _ in range(4):
        training()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return memory.peak() - before


def held_after_epochs(work: Work, batch: int, precision: str, epochs: int) -> list[float]:
    """The megabytes held after each epoch of the package's training, checkpoints and log and all."""
    found: list[float] = []

    def report(standing: Standing) -> None:
        if standing.step == standing.steps:
            memory.trim()
            found.append(memory.resident())

    config = work.ours(precision, batch).config.model_copy(update={"epochs": epochs})
    with tempfile.TemporaryDirectory() as folder:
        train(work.task(), config, Path(folder), report=report)
    return found


def alone(threads: int, function: Callable[..., Found], *given: Any) -> Found:
    """Call a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (threads,)) as pool:
        return pool.submit(function, *given).result()
