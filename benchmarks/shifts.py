"""How near the graph shifts come to the memory's bandwidth, and Shift-GCN with kernels to itself without.

    python benchmarks/shifts.py                       # on a GPU where there is one, else on the CPU
    python benchmarks/shifts.py --out shifts.json

A shift must move the features in and out; its backward pass the gradient in, the features once more, for the
gradient of mask or offsets, and the gradient out. The table's `share` is the rate at which these bytes move,
of that of a plain copy in the same run. Then a training step of the whole network, `kernel: auto` against
`kernel: torch`; on a CPU both are the same.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ssl_skeleton.cli import count
from ssl_skeleton.encoders.shift_gcn import ShiftGCNConfig
from ssl_skeleton.environment import describe_environment, pick_device
from ssl_skeleton.files import write_json
from ssl_skeleton.ops.graph_shift import graph_shift, non_local_index, takers
from ssl_skeleton.ops.temporal_shift import temporal_shift
from ssl_skeleton.skeleton.layout import load_layout

JOINTS = 25


def seconds(run: Callable[[], object], device: torch.device, rounds: int) -> float:
    """The median of so many rounds, behind three that do not count."""
    taken = []
    for number in range(rounds + 3):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 3:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def shifts(channels: int, device: torch.device) -> dict[str, Callable[[Tensor], Tensor]]:
    """Both shifts, with what they learn."""
    index_i = non_local_index(JOINTS, channels).to(device)
    takers_id = takers(index_i)
    mask_vc = torch.randn(JOINTS, channels, device=device, requires_grad=True)
    frames_c = torch.empty(channels, device=device).uniform_(-1, 1).requires_grad_()
    return {
        "spatial": lambda x_ktvc: graph_shift(x_ktvc, index_i, mask_vc, takers_id),
        "temporal": lambda x_ktvc: temporal_shift(x_ktvc, frames_c),
    }


def measure(sizes: tuple[int, int, int], dtype: torch.dtype, device: torch.device, rounds: int) -> list[dict]:
    """Rows of the table for features (K, T, V, C) of the sizes K, T and C."""
    bodies, frames, channels = sizes
    x_ktvc = torch.randn(bodies, frames, JOINTS, channels, device=device, dtype=dtype)
    leaf, gradient = x_ktvc.clone().requires_grad_(), torch.randn_like(x_ktvc)
    other, size = torch.empty_like(x_ktvc), x_ktvc.numel() * x_ktvc.element_size()
    rows = []
    for name, shift in shifts(channels, device).items():

        def forward(shift: Callable[[Tensor], Tensor] = shift) -> None:
            with torch.no_grad():
                shift(x_ktvc)

        def training(shift: Callable[[Tensor], Tensor] = shift) -> None:
            leaf.grad = None
            shift(leaf).backward(gradient)

        rate = 2 * size / seconds(lambda: other.copy_(x_ktvc), device, rounds)
        for what, run, moved in (("forward", forward, 2), ("forward and backward", training, 5)):
            share = moved * size / seconds(run, device, rounds) / rate
            facts = {"shift": name, "what": what, "sizes": list(sizes), "dtype": str(dtype)}
            rows.append(facts | {"copy_bytes_a_second": rate, "share": share})
            print(f"{name:<10}{what:<22}{sizes!s:<18}{str(dtype)[6:]:<10}{rate / 1e9:9.1f} GB/s{share:8.1%}")
    return rows


def network(device: torch.device, rounds: int, clips: int) -> dict[str, float]:
    """Seconds of a training step of Shift-GCN by kernel."""
    layout, taken = load_layout("kinect_v2_25"), {}
    x_nctvm = torch.randn(clips, 3, 64, JOINTS, 2, device=device)
    lengths = torch.full((clips,), 64, device=device)
    for kernel in ("auto", "torch"):
        encoder = ShiftGCNConfig(kernel=kernel).build(layout, 3, 2).to(device)

        def step(encoder: torch.nn.Module = encoder) -> None:
            with torch.autocast(device.type, torch.bfloat16):
                loss = encoder(x_nctvm, lengths).square().mean()
            loss.backward()

        taken[kernel] = seconds(step, device, rounds)
        print(f"Shift-GCN, {clips} clips of 64 frames, kernel: {kernel:<8}{taken[kernel]:10.4f} s")
    return taken


def main(arguments: Sequence[str]) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=count, default=20, metavar="N", help="%(default)s if not given")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose numbers mean nothing")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON")
    given = parser.parse_args(arguments)
    device = pick_device("auto")
    sizes = [(2, 8, 16)] if given.quick else [(128, 64, 64), (128, 300, 64), (128, 75, 256)]
    rows: list[dict] = []
    for size in sizes:
        for dtype in (torch.float32, torch.bfloat16):
            rows += measure(size, dtype, device, given.rounds)
    steps = network(device, given.rounds, 2 if given.quick else 32)
    if given.out:
        results = {"environment": describe_environment(device), "rows": rows, "network_seconds": steps}
        write_json(given.out, results)


if __name__ == "__main__":
    main(sys.argv[1:])
