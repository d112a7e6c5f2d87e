"""Where the time of a training step goes."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ssl_skeleton.pretext.base import Pretext

PHASES = ("data", "forward", "backward", "optimiser", "after", "rest")


class Phases:
    """The seconds of every phase: data and views, forward, backward, optimiser, momentum and queue, the rest.

    Forward is the pretext's, encoder and loss. Whoever draws the batches calls `begin("data")` before and
    `begin("rest")` after it; the other phases are found by hooks, within `watching`.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._device, self._phase, self._began = device, "rest", time.perf_counter()

    def begin(self, phase: str) -> None:
        """End the phase that is on, and begin another."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.seconds[self._phase] += now - self._began
        self._phase, self._began = phase, now

    @contextmanager
    def watching(self, pretext: Pretext) -> Iterator[None]:
        """Follow the steps that train `pretext`."""
        handles = [
            pretext.register_forward_pre_hook(lambda module, given: self.begin("forward")),
            pretext.register_forward_hook(self._forward_done),
            register_optimizer_step_pre_hook(lambda optimiser, given, named: self.begin("optimiser")),
            register_optimizer_step_post_hook(lambda optimiser, given, named: self.begin("rest")),
        ]
        vars(pretext)["after_step"] = self._timed("after", pretext.after_step)
        self._phase, self._began = "rest", time.perf_counter()
        try:
            yield
            self.begin("rest")
        finally:
            del vars(pretext)["after_step"]
            for handle in handles:
                handle.remove()

    def _forward_done(self, module: torch.nn.Module, given: Any, parts: dict[str, Tensor]) -> None:
        self.begin("rest")
        parts["loss"].register_hook(lambda gradient: self.begin("backward"))  # type: ignore[no-untyped-call]

    def _timed(self, phase: str, call: Callable[[], None]) -> Callable[[], None]:
        def timed() -> None:
            self.begin(phase)
            call()
            self.begin("rest")

        return timed
