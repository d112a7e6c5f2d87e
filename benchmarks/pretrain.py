"""How fast CRRL's three pretexts train, beside their usual form, and how near to what the machine multiplies.

    python benchmarks/pretrain.py --only cml --out cml.json     # ser, cml, inf; all three without --only
    python benchmarks/pretrain.py --device cuda

The clips are random walks, as many, as long and of as many joints as NW-UCLA's cross-view training clips; the
settings are those of the shipped recipes: 32 frames, crop, rotation, shear, a bidirectional GRU of 2 x 256,
AdamW. `ours` is what `pretrain` does, step by step. `usual` is `usual.py`, in float32: the same views of the
same clips made one by one in numpy, a DataLoader, packed sequences. With `--own`, `usual, own` is that
without crop and resampling, so that clips keep their own frames, 32 on average, and a batch is padded to its
longest. No form uses worker processes.

Rounds, each of an epoch, alternate between all forms and large square products. Clips a second are medians; a
ratio is the median of those found within single rounds, with its quartiles. The share is what a step must
multiply (`multiplications.py`) of what the square products reach in that type. `outside` is the share of a
step's time that is neither forward nor backward pass; the columns behind it say where all of it goes.

Then: the memory of each form in a process of its own, its peak over what was there before (on a GPU: the peak
of what tensors took); the losses of both precisions, side by side; those of the first steps without
dropout, beside torch's own GRU on the very same views; and the memory that is held after each epoch.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import multiplications
import torch
from crrl import FORMS, OWN, STAGES, USUAL, OurTraining, Work
from curves import Curves, of_precisions, of_recurrences
from held import alone, held, held_after_epochs
from measuring import measuring_parser, write_results
from phases import PHASES, Phases
from steps import square_product, time_in_turns
from usual import JOINTS, SPACE
from walks import TRAINING, nw_ucla_lengths, write_walks

from ssl_skeleton.cli import count

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PARTS = ("speed", "memory", "curves", "epochs")


@dataclass(frozen=True)
class Sizes:
    """Clips of the store; rounds; rows of the square product; steps and epochs that are watched."""

    clips: int
    rounds: int
    square: int
    steps: int
    epochs: int


FULL = Sizes(TRAINING, 5, 4096, 96, 6)
QUICK = Sizes(24, 1, 128, 3, 2)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    `ratio` is the median, the lower and the upper quartile, `share` that of the machine's rate. `phases` are
    seconds of a step, and `outside` the share of them that is neither forward nor backward.
    """

    pretext: str
    batch: int
    form: str
    clips_per_second: float
    ratio: tuple[float, float, float]
    share: float
    phases: Mapping[str, float]

    @property
    def outside(self) -> float | None:
        """Of the step, outside of encoder and loss."""
        inside = self.phases.get("forward", 0.0) + self.phases.get("backward", 0.0)
        return 1 - inside / sum(self.phases.values()) if self.phases else None


def speed(work: Work, batch: int, names: Sequence[str], sizes: Sizes) -> list[Row]:
    """The lines of one pretext and one batch, for these forms."""
    device = torch.device(work.device)
    forms = {form: work.form(form, batch) for form in names}
    steps = -(-sizes.clips // batch)

    def epoch(form: str) -> None:
        for _ in range(steps):
            forms[form]()
        synchronise(device)

    ways: dict[str, Any] = {form: partial(epoch, form) for form in forms}
    for precision, dtype in TYPES.items():
        ways[precision] = _square(sizes.square, dtype, device)
    seconds = time_in_turns(ways, sizes.rounds)
    rates = {form: [sizes.clips / taken for taken in seconds[form]] for form in forms}
    needed = multiplications.of_step(
        work.stage.pretext, work.encoder, JOINTS * SPACE, work.recipe.data.frames or 0
    )
    rows = []
    for form, training in forms.items():
        of_rounds = [ours / usual for ours, usual in zip(rates[form], rates[USUAL], strict=True)]
        rate = statistics.median(rates[form])
        machine = sizes.square**3 / statistics.median(seconds["bf16" if form.endswith("bf16") else "fp32"])
        phases = time_phases(training, steps, device) if isinstance(training, OurTraining) else {}
        rows.append(Row(work.name, batch, form, rate, quartiles(of_rounds), rate * needed / machine, phases))
    return rows


def _square(rows: int, dtype: torch.dtype, device: torch.device) -> Any:
    product = square_product(rows, dtype, device)

    def run() -> None:
        product()
        synchronise(device)

    return run


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The median, the lower and the upper quartile."""
    low, middle, high = torch.tensor(values, dtype=torch.float64).quantile(
        torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    )
    return float(middle), float(low), float(high)


def time_phases(training: OurTraining, steps: int, device: torch.device) -> dict[str, float]:
    """Seconds of every phase of a step."""
    phases = Phases(device)
    with phases.watching(training.task.pretext):
        for _ in range(steps):
            phases.begin("data")
            drawn = training.draw()
            phases.begin("rest")
            training.learn(*drawn)
    return {phase: seconds / steps for phase, seconds in phases.seconds.items()}


def describe(row: Row) -> str:
    """A line for a person."""
    middle, low, high = row.ratio
    facts = f"{row.pretext:<5}{row.batch:>5}  {row.form:<12}{row.clips_per_second:>9.1f}"
    line = f"{facts}{middle:>7.2f} ({low:.2f} to {high:.2f}){row.share:>8.1%}"
    if row.outside is None:
        return line
    total = sum(row.phases.values())
    phases = "".join(f"{row.phases[phase] / total:>10.1%}" for phase in PHASES)
    return f"{line}{row.outside:>9.1%}{phases}"


def titles() -> str:
    """What stands above those lines."""
    facts = f"{'':<5}{'batch':>5}  {'form':<12}{'clips/s':>9}{'ratio (quartiles)':>23}{'share':>8}"
    return f"{facts}{'outside':>9}" + "".join(f"{phase:>10}" for phase in PHASES)


def describe_curves(found: Curves) -> str:
    """Some steps of both, for a person."""
    (exact, exact_losses), (other, other_losses) = found.losses.items()
    told = (
        f"losses of {exact} and {other}, at most {found.off:.2g} off ({found.off_mean:.2g} of the mean loss)"
    )
    steps = sorted({round(step) for step in torch.linspace(0, len(exact_losses) - 1, 7).tolist()})
    pairs = [f"{step + 1}: {exact_losses[step]:.6g} {other_losses[step]:.6g}" for step in steps]
    return f"{found.pretext}, batch {found.batch}: {told}\n  {'   '.join(pairs)}"


def measure(work: Work, given: argparse.Namespace, sizes: Sizes) -> dict[str, list[Any]]:
    """All about one pretext, printed as it is found."""
    results: dict[str, list[Any]] = {part: [] for part in PARTS}
    forms = [form for form in FORMS if form != OWN or given.own]
    for batch in given.batch:
        for row in speed(work, batch, forms, sizes) if "speed" in given.parts else ():
            print(describe(row), flush=True)
            results["speed"].append(asdict(row) | {"outside": row.outside})
        if "memory" in given.parts:
            taken = {form: alone(given.threads, held, work, batch, form) for form in forms}
            shown = ", ".join(f"{form} {megabytes:.0f}" for form, megabytes in taken.items())
            print(f"{work.name}, batch {batch}: MB at most: {shown}", flush=True)
            results["memory"].append({"pretext": work.name, "batch": batch, "megabytes": taken})
        if "curves" in given.parts:
            for found in (of_precisions(work, batch, sizes.steps), of_recurrences(work, batch, 8)):
                print(describe_curves(found), flush=True)
                results["curves"].append(asdict(found))
    for precision in TYPES if "epochs" in given.parts else ():
        megabytes = alone(given.threads, held_after_epochs, work, batch, precision, sizes.epochs)
        shown = " ".join(f"{number:.0f}" for number in megabytes)
        print(f"{work.name}, batch {batch}, {precision}: MB held after each epoch: {shown}", flush=True)
        results["epochs"].append({"pretext": work.name, "precision": precision, "megabytes": megabytes})
    return results


def main(arguments: Sequence[str]) -> None:
    """Measure and print the tables."""
    parser = measuring_parser(__doc__, FULL.rounds)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="PRETEXT")
    parser.add_argument("--batch", nargs="+", type=count, default=[32, 64], metavar="N", help="(32 64)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (all)")
    parser.add_argument("--own", action="store_true", help=f"measure `{OWN}` too")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    sizes = QUICK if given.quick else FULL
    sizes = replace(sizes, rounds=given.rounds or sizes.rounds)
    results: dict[str, list[Any]] = {part: [] for part in PARTS}
    print(titles())
    with tempfile.TemporaryDirectory() as folder:
        store = write_walks(Path(folder) / "walks", nw_ucla_lengths(sizes.clips))
        for name in given.only:
            work = Work(name, store.path, given.device, small=given.quick)
            for what, found in measure(work, given, sizes).items():
                results[what] += found
    write_results(given.out, {"sizes": asdict(sizes)} | results, given.device)


if __name__ == "__main__":
    main(sys.argv[1:])
