"""How fast the encoders are on this machine's CPU, and how near to what it can multiply.

    python benchmarks/encoders.py                        # every encoder, then the textbook forms
    python benchmarks/encoders.py --only st_gcn gru --threads 1 --out encoders.json

Of every encoder, for T frames of two bodies with 25 joints: parameters; multiply-adds of a clip, forward;
clips a second forward (eval mode, no gradients) and in training (forward, backward, a fused step of SGD), in
float32 and in bfloat16 by autocast. The share is what these multiply-adds come to, three times as many in
training, of those that one large square product reaches in the same type and in the same rounds.

Multiply-adds are half of what torch's FlopCounterMode counts in matrix products and convolutions as they are
carried out, zeros among the factors included. Norms, activations, pooling, sums and copies count nothing.

Then training steps of ST-GCN and CTR-GCN beside the textbook forms of `textbook.py`, same inputs, same
weights, each in both types. Rounds alternate between all that is compared, and a ratio is the median of those
found within single rounds. The losses are those of a few steps without dropout, whose random numbers differ.
"""

import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from measuring import measuring_parser, write_results
from pydantic import TypeAdapter
from steps import BODIES, CHANNELS, LAYOUT, Training, forward, make_clips, square_product, time_in_turns
from textbook import Textbook, ctr_gcn_textbook, st_gcn_textbook
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_skeleton.encoders import AnyEncoder
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.gcn import GraphEncoder

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ENCODERS: dict[str, dict[str, Any]] = {
    "gru": {"name": "gru"},
    "st_gcn": {"name": "st_gcn"},
    "st_gcn_quarter": {"name": "st_gcn", "width": 0.25},
    "agcn": {"name": "agcn"},
    "ctr_gcn": {"name": "ctr_gcn"},
    "ctr_gcn_quarter": {"name": "ctr_gcn", "width": 0.25},
    "efficient_gcn_b0": {"name": "efficient_gcn", "scale": 0},
    "efficient_gcn_b2": {"name": "efficient_gcn", "scale": 2},
    "efficient_gcn_b4": {"name": "efficient_gcn", "scale": 4},
    "shift_gcn": {"name": "shift_gcn"},
    "two_rate": {"name": "two_rate", "encoder": {"name": "st_gcn"}},
}
TEXTBOOKS: dict[str, Callable[[GraphEncoder], Textbook]] = {
    "st_gcn_quarter": st_gcn_textbook,
    "ctr_gcn": ctr_gcn_textbook,
    "ctr_gcn_quarter": ctr_gcn_textbook,
}


@dataclass(frozen=True)
class Sizes:
    """What is measured on: batches, frames, the rows of the square product, rounds."""

    batch: int
    frames: Sequence[int]
    compared_batch: int
    compared_frames: int
    square: int
    rounds: int


FULL = Sizes(16, (50, 64), 32, 50, 4096, 7)
QUICK = Sizes(2, (8,), 2, 8, 256, 1)


@dataclass(frozen=True)
class Row:
    """A line of the first table; rates are clips a second, shares are of the machine's rate in that type."""

    encoder: str
    frames: int
    parameters: int
    multiply_adds: int
    forward: Mapping[str, float]
    training: Mapping[str, float]
    forward_share: Mapping[str, float]
    training_share: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """Seconds of a training step, and how many times as fast as the textbook form in float32.

    Of `ratio`: the median over the rounds, the lower and upper quartile. `losses` are those of each step, and
    `off` the most by which they differ from that form's, as a share of its first one.
    """

    encoder: str
    seconds: Mapping[str, float]
    ratio: Mapping[str, tuple[float, float, float]]
    losses: Mapping[str, list[float]]
    off: Mapping[str, float]


class Distinct(nn.Module):
    """An encoder without the repetition of steps that strides make, which the textbook forms do not have."""

    def __init__(self, encoder: GraphEncoder) -> None:
        super().__init__()
        self.encoder, self.stride = encoder, math.prod(encoder.strides)

    def forward(self, x_nctvm: Tensor, lengths: Tensor) -> Tensor:
        """Features (N, T', D)."""
        return self.encoder(x_nctvm, lengths)[:, :: self.stride]


def build(name: str) -> Encoder:
    """The encoder of that name, with random weights."""
    torch.manual_seed(0)
    encoder: Encoder = TypeAdapter(AnyEncoder).validate_python(ENCODERS[name]).build(LAYOUT, CHANNELS, BODIES)
    return encoder


def measure(name: str, frames: int, sizes: Sizes) -> Row:
    """A line of the first table."""
    encoder, clips = build(name).eval(), make_clips(sizes.batch, frames)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(*clips)
    multiply_adds = counter.get_total_flops() // 2 // sizes.batch
    ways: dict[str, Callable[[], object]] = {}
    for kind, dtype in TYPES.items():
        ways |= {
            f"square {kind}": square_product(sizes.square, dtype),
            f"forward {kind}": forward(encoder, clips, dtype),
            f"training {kind}": Training(deepcopy(encoder), encoder.dim, clips, dtype),
        }
    seconds = {way: statistics.median(found) for way, found in time_in_turns(ways, sizes.rounds).items()}
    rates = {kind: sizes.square**3 / seconds[f"square {kind}"] for kind in TYPES}
    forwards = {kind: sizes.batch / seconds[f"forward {kind}"] for kind in TYPES}
    trainings = {kind: sizes.batch / seconds[f"training {kind}"] for kind in TYPES}
    return Row(
        name,
        frames,
        sum(parameter.numel() for parameter in encoder.parameters()),
        multiply_adds,
        forwards,
        trainings,
        {kind: forwards[kind] * multiply_adds / rates[kind] for kind in TYPES},
        {kind: trainings[kind] * 3 * multiply_adds / rates[kind] for kind in TYPES},
    )


def compare(name: str, sizes: Sizes) -> Comparison:
    """Training steps of an encoder and of its textbook form."""
    encoder, clips = build(name), make_clips(sizes.compared_batch, sizes.compared_frames)
    if not isinstance(encoder, GraphEncoder):
        raise TypeError(f"{name} has no textbook form")
    plain = TEXTBOOKS[name](encoder)

    def trainings() -> dict[str, Training]:
        made = {}
        for kind, dtype in TYPES.items():
            made[f"textbook {kind}"] = Training(deepcopy(plain), encoder.dim, clips[:1], dtype)
            made[f"ours {kind}"] = Training(Distinct(deepcopy(encoder)), encoder.dim, clips, dtype)
        return made

    seconds = time_in_turns(trainings(), sizes.rounds)
    ratios = {}
    for way, found in seconds.items():
        of_rounds = [base / ours for base, ours in zip(seconds["textbook float32"], found, strict=True)]
        ratios[way] = quartiles(of_rounds)
    losses = {}
    for way, training in trainings().items():
        for module in training.encoder.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        losses[way] = [training() for _ in range(5)]
    exact = losses["textbook float32"]
    off = {
        way: max(abs(loss - wanted) for loss, wanted in zip(found, exact, strict=True)) / exact[0]
        for way, found in losses.items()
    }
    medians = {way: statistics.median(found) for way, found in seconds.items()}
    return Comparison(name, medians, ratios, losses, off)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, the lower and the upper quartile."""
    low, middle, high = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    )
    return float(middle), float(low), float(high)


def describe(row: Row) -> str:
    """A line for a person."""
    facts = f"{row.encoder:<18}{row.frames:>4}{row.parameters / 1e6:>9.3f}{row.multiply_adds / 1e6:>9.0f}"
    rates = (
        f"{rate[kind]:>10.1f}{share[kind]:>7.1%}"
        for kind in TYPES
        for rate, share in ((row.forward, row.forward_share), (row.training, row.training_share))
    )
    return facts + "".join(rates)


def titles() -> str:
    """What stands above those lines."""
    kinds = "".join(f"{kind:>34}" for kind in TYPES)
    columns = "".join(f"{what:>10}{'share':>7}" for _ in TYPES for what in ("forward", "training"))
    return f"{'clips a second':<40}{kinds}\n{'encoder':<18}{'T':>4}{'M par.':>9}{'M m.-a.':>9}{columns}"


def describe_comparison(found: Comparison, sizes: Sizes) -> str:
    """A block of lines for a person."""
    lines = [
        f"{found.encoder}, training steps of {sizes.compared_batch} clips, {sizes.compared_frames} frames: "
        "seconds; times as fast (quartiles); losses (how far off)"
    ]
    for way, seconds in found.seconds.items():
        middle, low, high = found.ratio[way]
        losses = " ".join(f"{loss:.4f}" for loss in found.losses[way])
        speed = f"{seconds:>9.4f}{middle:>7.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"  {way:<18}{speed}   {losses} ({found.off[way]:.2%})")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Measure and print the tables."""
    parser = measuring_parser(__doc__, FULL.rounds)
    parser.add_argument("--only", nargs="+", choices=ENCODERS, default=list(ENCODERS), metavar="NAME")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    sizes = QUICK if given.quick else FULL
    sizes = replace(sizes, rounds=given.rounds or sizes.rounds)
    rows, comparisons = [], []
    print(titles())
    for name in given.only:
        for frames in sizes.frames:
            rows.append(measure(name, frames, sizes))
            print(describe(rows[-1]), flush=True)
    for name in given.only:
        if name in TEXTBOOKS:
            comparisons.append(compare(name, sizes))
            print(f"\n{describe_comparison(comparisons[-1], sizes)}", flush=True)
    tables = {"rows": [*map(asdict, rows)], "comparisons": [*map(asdict, comparisons)]}
    write_results(given.out, {"sizes": asdict(sizes)} | tables)


if __name__ == "__main__":
    main(sys.argv[1:])
