"""What is timed in an encoder: a training step, features, a plain matrix product; and in turns."""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")
CHANNELS, BODIES, CLASSES = 3, 2, 60


class Training:
    """Training of an encoder with a linear classifier on the mean of its steps; a call is one step."""

    def __init__(self, encoder: nn.Module, dim: int, clips: Sequence[Tensor], dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        self.encoder, self.head, self.dtype = encoder.train(), nn.Linear(dim, CLASSES), dtype
        self.clips, self.label = clips, torch.arange(len(clips[0])) % CLASSES
        parameters = [*encoder.parameters(), *self.head.parameters()]
        self.optimiser = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, fused=True)

    def __call__(self) -> float:
        """The loss of the step."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            pooled = self.encoder(*self.clips).mean(dim=1)
            loss = functional.cross_entropy(self.head(pooled).float(), self.label)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss.item()


def make_clips(batch: int, frames: int) -> tuple[Tensor, Tensor]:
    """Noise, all bodies there, no padding; and the lengths."""
    x_nctvm = torch.randn(
        batch, CHANNELS, frames, len(LAYOUT.joints), BODIES, generator=torch.Generator().manual_seed(0)
    )
    return x_nctvm, torch.full((batch,), frames)


def time_in_turns(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in every round; a round that does not count comes first."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            began = time.perf_counter()
            run()
            if number:
                seconds[way].append(time.perf_counter() - began)
    return seconds


def square_product(rows: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Callable[[], object]:
    """A product of two square matrices."""
    one, other = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
    return lambda: one @ other


def forward(encoder: nn.Module, clips: Sequence[Tensor], dtype: torch.dtype) -> Callable[[], object]:
    """Features of the clips."""

    @torch.no_grad()
    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            encoder(*clips)

    return run
