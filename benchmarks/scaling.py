"""How the time of data and training grows with the number of clips, and with their frames.

    python benchmarks/scaling.py --figure scaling.png --out scaling.json

Stores of random walks are written into a temporary folder, the largest of about 3 GB, and deleted. Of each
are measured: the time to open it, and to load its frames for every residence, with the memory that this
takes; then, a batch at a time, that of drawing views (a crop, a rotation and a shear of each, two views a
clip) and of training (CML with a small GRU). Views and steps of large stores are those of a fixed number of
clips, drawn from the whole of it in the order of an epoch, and the epoch is reckoned from that. All files
are in the page cache, so that no disk is measured. The exponents are the slopes of straight lines through the
logarithms: 1 where the time is in proportion, 0 where it does not depend.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from measuring import measuring_parser, write_results
from memory import resident, trim
from walks import write_walks

from ssl_skeleton.cli import count
from ssl_skeleton.data.store import open_store
from ssl_skeleton.files import write_atomically
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.batches import batches, epoch_order
from ssl_skeleton.training.seeds import generator
from ssl_skeleton.training.signals import Asked
from ssl_skeleton.training.step import Step
from ssl_skeleton.training.task import Task

# Okabe and Ito's palette, which every kind of colour vision tells apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
RESIDENCES = ("device", "mapped")
BATCH = 128


@dataclass(frozen=True)
class Sizes:
    """Numbers of clips, and the frames of each; frames, and how many clips of these; clips of a share."""

    clips: Sequence[int]
    frames_each: int
    frames: Sequence[int]
    clips_each: int
    share: int


FULL = Sizes((1_000, 10_000, 100_000, 1_000_000), 12, (16, 32, 64, 128, 256, 512), 512, 5_120)
QUICK = Sizes((20, 40), 6, (4, 8), 16, 16)


@dataclass(frozen=True)
class Point:
    """What was measured on one store in one residence.

    Seconds to open it, to load it, to put an epoch in order; of a clip drawn in its views, and trained on. An
    epoch has the last two for every clip. `megabytes` are what opening and loading added to the memory
    that this process holds of its own, and `frame_megabytes` those of the frames.
    """

    clips: int
    frames: int
    residence: str
    open_seconds: float
    load_seconds: float
    megabytes: float
    frame_megabytes: float
    order_seconds: float
    view_seconds_a_clip: float
    train_seconds_a_clip: float
    epoch_seconds: float


def recipe(store: Path, frames: int, residence: str) -> Recipe:
    """CML with a small GRU."""
    seen = {"streams": ["motion"], "augment": {"crop": 0.5, "rotate": [30.0, 60.0, 30.0], "shear": 0.5}}
    pretext = {"name": "contrastive_motion", "input": seen, "key": seen, "hidden": 32, "outputs": 32}
    tree = {
        "name": "scaling",
        "device": "cpu",
        "data": {"store": str(store), "split": "all", "frames": frames, "residence": residence},
        "encoder": {"name": "gru", "hidden": 16, "layers": 1, "dropout": 0.0},
        "stages": [{"name": "contrast", "pretext": pretext, "training": {"batch": BATCH, "epochs": 1}}],
    }
    return Recipe.from_tree(tree, "scaling")


def measure(store: Path, frames: int, residence: str, sizes: Sizes) -> Point:
    """One store in one residence."""
    open_seconds = min(seconds(lambda: open_store(store)) for _ in range(3))
    run = Run(store.parent / "none", recipe(store, frames, residence))
    trim()
    before = resident()
    _ = run.stores  # opened, which is timed by itself
    loaded = seconds(lambda: run.packed)
    trim()
    megabytes = resident() - before
    (stage,) = run.recipe.stages
    task = Task(
        stage.name, run.build_pretext(stage), run.packed, run.training_clips, run.recipe.data, run.recipe.seed
    )
    ordered = seconds(lambda: epoch_order(task.parts, generator(0, "order"), balanced=False))
    steps = -(-min(task.clips, sizes.share) // BATCH)
    clips = min(task.clips, steps * BATCH)

    def draw() -> None:
        for _ in islice(batches(task, BATCH, 0), steps):
            pass

    step, asked = Step(task, stage.training), Asked()

    def learn() -> None:
        for batch in islice(batches(task, BATCH, 0), steps):
            step(batch, 0, asked)

    views, trained = ((min(seconds(work) for _ in range(3)) - ordered) / clips for work in (draw, learn))
    return Point(
        task.clips,
        frames,
        residence,
        open_seconds,
        loaded,
        megabytes,
        run.store.frames_rvc.nbytes / 1e6,
        ordered,
        views,
        trained,
        ordered + trained * task.clips,
    )


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def by_clips(folder: Path, sizes: Sizes) -> list[Point]:
    """Stores of more and more clips."""
    points = []
    for clips in sizes.clips:
        rng = np.random.default_rng(0)
        lengths = rng.integers(sizes.frames_each - 4, sizes.frames_each + 5, clips)
        path = folder / f"{clips}"
        write_walks(path, lengths)
        for residence in RESIDENCES:
            points.append(show(measure(path, 32, residence, sizes)))
        for file in path.iterdir():
            file.unlink()
    return points


def by_frames(folder: Path, sizes: Sizes) -> list[Point]:
    """Stores of longer and longer clips, which are drawn with all their frames."""
    points = []
    for frames in sizes.frames:
        path = folder / f"frames{frames}"
        write_walks(path, [frames] * sizes.clips_each)
        points.append(show(measure(path, frames, "device", sizes)))
    return points


def show(point: Point) -> Point:
    """Print a line of the table."""
    rates = f"{1e6 * point.view_seconds_a_clip:>10.1f}{1e6 * point.train_seconds_a_clip:>10.1f}"
    loaded = f"{point.load_seconds:>9.3f}{point.megabytes:>9.1f}{point.frame_megabytes:>9.1f}"
    place = f"{point.clips:>9}{point.frames:>7}  {point.residence:<8}{point.open_seconds:>9.4f}"
    print(f"{place}{loaded}{rates}{point.epoch_seconds:>10.2f}", flush=True)
    return point


TITLES = (
    f"{'clips':>9}{'frames':>7}  {'where':<8}{'open s':>9}{'load s':>9}{'MB':>9}{'data MB':>9}"
    f"{'view us':>10}{'train us':>10}{'epoch s':>10}   view, train: of a clip"
)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of the straight line through the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponents(clips: Sequence[Point], frames: Sequence[Point]) -> dict[str, float]:
    """Of what is measured by what it depends on."""
    found = {}
    for residence in RESIDENCES:
        points = [point for point in clips if point.residence == residence]
        numbers = [point.clips for point in points]
        found[f"opening by clips, {residence}"] = exponent(numbers, [p.open_seconds for p in points])
        found[f"loading by clips, {residence}"] = exponent(numbers, [p.load_seconds for p in points])
        found[f"views a clip by clips, {residence}"] = exponent(
            numbers, [p.view_seconds_a_clip for p in points]
        )
        found[f"epoch by clips, {residence}"] = exponent(numbers, [p.epoch_seconds for p in points])
    lengths = [point.frames for point in frames]
    found["views a clip by frames"] = exponent(lengths, [p.view_seconds_a_clip for p in frames])
    found["training a clip by frames"] = exponent(lengths, [p.train_seconds_a_clip for p in frames])
    return found


def draw(path: Path, clips: Sequence[Point], frames: Sequence[Point], found: Mapping[str, float]) -> None:
    """The figure: seconds by clips, and microseconds of a clip by frames, on logarithmic scales."""
    figure = Figure(figsize=(11, 5), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    there = {name: [point for point in clips if point.residence == name] for name in RESIDENCES}
    lines = [
        (
            "an epoch of training, frames in memory",
            "epoch by clips, device",
            there["device"],
            "epoch_seconds",
        ),
        ("an epoch of training, frames on disk", "epoch by clips, mapped", there["mapped"], "epoch_seconds"),
        ("loading the frames into memory", "loading by clips, device", there["device"], "load_seconds"),
        ("opening the store", "opening by clips, device", there["device"], "open_seconds"),
    ]
    for number, (label, key, points, value) in enumerate(lines):
        numbers = [point.clips for point in points]
        values = [getattr(point, value) for point in points]
        _line(left, numbers, values, number, f"{label}: exponent {found[key]:.2f}")
    left.set(title="Time against the number of clips", xlabel="clips in the store", ylabel="seconds")
    lengths = [point.frames for point in frames]
    for number, (label, key, value) in enumerate(
        [
            ("training on a clip", "training a clip by frames", "train_seconds_a_clip"),
            ("drawing its two views", "views a clip by frames", "view_seconds_a_clip"),
        ]
    ):
        values = [1e6 * getattr(point, value) for point in frames]
        _line(right, lengths, values, number, f"{label}: exponent {found[key]:.2f}")
    right.set(title="Time of a clip against its frames", xlabel="frames of a clip", ylabel="microseconds")
    right.set_xticks(lengths, labels=[str(length) for length in lengths])
    right.set_xticks([], minor=True)
    for axes in (left, right):
        axes.grid(which="major", alpha=0.3)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8)
    write_atomically(path, FigureCanvasAgg(figure).print_png)


def _line(axes: Axes, x: Sequence[float], y: Sequence[float], number: int, label: str) -> None:
    axes.loglog(x, y, color=COLOURS[number], marker=MARKERS[number], label=label)


def main(arguments: Sequence[str]) -> None:
    """Measure, print the table and the exponents."""
    parser = measuring_parser(__doc__)
    parser.add_argument("--clips", type=count, nargs="+", metavar="N", help=f"instead of {FULL.clips}")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the curves, as PNG")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    sizes = QUICK if given.quick else FULL
    if given.clips:
        sizes = Sizes(given.clips, sizes.frames_each, sizes.frames, sizes.clips_each, sizes.share)
    print(TITLES)
    with tempfile.TemporaryDirectory() as folder:
        clips, frames = by_clips(Path(folder), sizes), by_frames(Path(folder), sizes)
    found = exponents(clips, frames)
    for what, value in found.items():
        print(f"exponent of {what}: {value:.2f}")
    if given.figure:
        draw(given.figure, clips, frames, found)
    tables = {"clips": [*map(asdict, clips)], "frames": [*map(asdict, frames)]}
    write_results(given.out, {"sizes": asdict(sizes), "exponents": found} | tables)


if __name__ == "__main__":
    main(sys.argv[1:])
