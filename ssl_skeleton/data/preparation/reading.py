"""Reads the entries of a data set, in one process or several."""

import copy
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from ssl_skeleton.data.preparation.resampling import resample
from ssl_skeleton.data.readers.base import Outcome, Reader
from ssl_skeleton.data.recording import Facts, check_recording
from ssl_skeleton.data.source import Entry
from ssl_skeleton.errors import DamagedClip

Reading = tuple[Entry, list[Outcome]]


def useful_processes(files: int) -> int:
    """How many processes to read so many files with: starting one costs as much as a hundred files."""
    return max(1, min(useful_cores(), files // 400))


def useful_cores() -> int:
    """How many cores this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_entries(
    reader: Reader, entries: Sequence[Entry], fps: float, chunk: int, processes: int = 1
) -> Iterator[Reading]:
    """What is in the entries, in their order, checked and at `fps`.

    Several processes take `chunk` entries at a time, and stay a few chunks ahead of who takes the outcomes.
    """
    if processes == 1:
        _keep_freed_memory()
        for entry in entries:
            yield entry, _read_entry(reader, entry, fps)
        return
    chunks = [entries[begin : begin + chunk] for begin in range(0, len(entries), chunk)]
    context = multiprocessing.get_context("spawn")  # threads and open archives do not survive a fork
    helper = copy.copy(reader)
    helper.entries = ()  # it is told what to read; all the names would be in memory once a process
    pool = ProcessPoolExecutor(processes, context, _begin_worker, (helper, fps))
    try:
        waiting: deque[tuple[Sequence[Entry], Future[list[list[Outcome]]]]] = deque()
        for part in chunks:
            waiting.append((part, pool.submit(_read_chunk, part)))
            if len(waiting) > 2 * processes:
                yield from _collect(*waiting.popleft())
        while waiting:
            yield from _collect(*waiting.popleft())
    except BrokenProcessPool:
        raise MemoryError("a reading process died; the same command goes on, with --processes 1") from None
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(chunk: Sequence[Entry], future: "Future[list[list[Outcome]]]") -> Iterator[Reading]:
    return zip(chunk, future.result(), strict=True)


def _read_entry(reader: Reader, entry: Entry, fps: float) -> list[Outcome]:
    try:
        outcomes = reader.read(entry)
    except DamagedClip as error:
        return [error]
    except OSError as error:
        return [DamagedClip(f"cannot be read ({error.strerror or error})")]
    return [_checked(outcome, reader.facts, fps) for outcome in outcomes]


def _checked(outcome: Outcome, facts: Facts, fps: float) -> Outcome:
    if isinstance(outcome, DamagedClip):
        return outcome
    try:
        check_recording(outcome, facts)
    except DamagedClip as error:
        return DamagedClip(f"clip {outcome.name!r}: {error}")
    return outcome if fps == facts.fps else resample(outcome, facts.fps, fps)


_worker: tuple[Reader, float]  # of a reading process


def _begin_worker(reader: Reader, fps: float) -> None:
    global _worker  # noqa: PLW0603 - a process pool has no other place for what its workers share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one decides
    _worker = (reader, fps)
    _keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _keep_freed_memory() -> None:
    """Let glibc keep what one file has used for the next one: it goes by the largest block that it saw freed.

    Else it hands the memory back after each file and asks for it again, which takes a fifth of all time.
    """
    np.empty(31 << 20, np.uint8)


def _end_with_parent() -> None:
    """End this reading process when the one that started it is killed: nobody else would."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read_chunk(chunk: Sequence[Entry]) -> list[list[Outcome]]:
    reader, fps = _worker
    return [_read_entry(reader, entry, fps) for entry in chunk]
