"""Views a second: batched gather, resampling, rotation and shear against a per-sample numpy pipeline.

The usual pipeline is a Dataset of padded arrays that cuts, resamples, rotates and shears clip after clip in
numpy, behind a DataLoader. Both sides do the same work on the same clips in one run: a random window of at
least half of a clip, resampled to T frames by linear interpolation, one rotation and one shear of each clip,
both bodies. Rounds alternate; the table shows medians and the ratios. There are two opponents: one turns and
shears in two steps as published feeders do, the other one in a single product, the best that numpy can do.

    python benchmarks/batches.py                 # one core against one core, then all of them
    python benchmarks/batches.py --out batches.json
"""

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import Facts, Recording, Track
from ssl_skeleton.data.store import open_store
from ssl_skeleton.data.views.augment import AugmentConfig
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.normalise import NormaliseConfig
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.data.writing import new_store
from ssl_skeleton.files import write_json
from ssl_skeleton.skeleton.layout import load_layout

Turn = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
LAYOUT = load_layout("kinect_v2_25")
LONGEST, BODIES = 300, 2
CROP, ANGLE, SHEAR = 0.5, 30.0, 0.5


class PaddedClips(Dataset[NDArray[np.float32]]):
    """The usual way: (N, C, 300, V, M) padded with zeros, one clip at a time."""

    def __init__(
        self, x_nctvm: NDArray[np.float32], lengths: NDArray[np.int64], frames: int, turn: Turn
    ) -> None:
        self.x_nctvm, self.lengths, self.frames, self.turn = x_nctvm, lengths, frames, turn

    def __len__(self) -> int:
        return len(self.x_nctvm)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        length = int(self.lengths[index])
        span = max(1, int(length * np.random.uniform(CROP, 1)))  # noqa: NPY002 - as is usual
        start = np.random.randint(0, length - span + 1)  # noqa: NPY002
        x_ctvm = self.x_nctvm[index][:, start : start + span]
        place = np.linspace(0, span - 1, self.frames)
        before = np.floor(place).astype(int)
        share = (place - before)[None, :, None, None].astype(np.float32)
        x_ctvm = (1 - share) * x_ctvm[:, before] + share * x_ctvm[:, np.minimum(before + 1, span - 1)]
        return self.turn(x_ctvm.astype(np.float32), _rotation(), _shear())


def turn_in_steps(
    x_ctvm: NDArray[np.float32], rotation: NDArray[np.float32], shear: NDArray[np.float32]
) -> NDArray[np.float32]:
    """As feeders mostly do it: one augmentation after the other, each with the coordinates brought last."""
    for matrix in (rotation, shear):
        x_tvmc = np.dot(np.transpose(x_ctvm, (1, 2, 3, 0)), matrix.T)
        x_ctvm = np.transpose(x_tvmc, (3, 0, 1, 2))
    return np.ascontiguousarray(x_ctvm)


def turn_at_once(
    x_ctvm: NDArray[np.float32], rotation: NDArray[np.float32], shear: NDArray[np.float32]
) -> NDArray[np.float32]:
    """As numpy can do it best: both matrices in one, and one product."""
    turned: NDArray[np.float32] = (shear @ rotation @ x_ctvm.reshape(3, -1)).reshape(x_ctvm.shape)
    return turned


def _rotation() -> NDArray[np.float32]:
    a, b, c = np.deg2rad(np.random.uniform(-ANGLE, ANGLE, 3))  # noqa: NPY002
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    matrix: NDArray[np.float32] = (z @ y @ x).astype(np.float32)
    return matrix


def _shear() -> NDArray[np.float32]:
    matrix = np.random.uniform(-SHEAR, SHEAR, (3, 3)).astype(np.float32)  # noqa: NPY002
    np.fill_diagonal(matrix, 1)
    return matrix


def make_clips(clips: int) -> list[Recording]:
    """Random walks of about 84 frames, as long as those of NTU RGB+D; every fifth clip has two bodies."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(clips):
        frames = int(np.clip(rng.lognormal(4.35, 0.4), 20, LONGEST))
        steps = rng.normal(scale=0.01, size=(1 + (number % 5 == 0), frames, 25, 3)).astype(np.float32)
        tracks = [Track(0, np.cumsum(x_tvc, axis=0) + 1) for x_tvc in steps]
        made.append(Recording(f"clip{number}", frames, tracks))
    return made


def pad(clips: list[Recording]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The clips as the usual pipeline has them in memory."""
    x_nctvm = np.zeros((len(clips), 3, LONGEST, 25, BODIES), np.float32)
    for n, clip in enumerate(clips):
        for m, track in enumerate(clip.tracks):
            x_nctvm[n, :, : clip.frames, :, m] = track.x_tvc.transpose(2, 0, 1)
    return x_nctvm, np.array([clip.frames for clip in clips])


def ours(packed: PackedClips, frames: int, batch: int) -> Callable[[], int]:
    """An epoch of batched views; returns how many there were."""
    change = AugmentConfig(crop=CROP, rotate=(ANGLE, ANGLE, ANGLE), shear=SHEAR)
    sampling = SamplingConfig(
        frames=frames, bodies=BODIES, normalise=NormaliseConfig(center="none", facing="none")
    )
    generator = torch.Generator().manual_seed(0)

    def epoch() -> int:
        order = torch.randperm(len(packed.lengths), generator=generator)
        for index in torch.split(order, batch):
            make_view(packed, index, sampling, ViewConfig(augment=change), Draws(generator, len(index)))
        return len(order)

    return epoch


def usual(dataset: PaddedClips, batch: int, workers: int) -> Callable[[], int]:
    """An epoch of the DataLoader; its workers live on, so that starting them is not counted."""
    loader = DataLoader(dataset, batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    def epoch() -> int:
        return sum(len(x_nctvm) for x_nctvm in loader)

    return epoch


def compare(epochs: Sequence[Callable[[], int]], rounds: int) -> list[float]:
    """Median views a second of some epochs, measured in turns after one that does not count."""
    rates: list[list[float]] = [[] for _ in epochs]
    for number in range(rounds + 1):
        for epoch, found in zip(epochs, rates, strict=True):
            began = time.perf_counter()
            views = epoch()
            if number:
                found.append(views / (time.perf_counter() - began))
    return [statistics.median(found) for found in rates]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    given = parser.parse_args()
    clips = make_clips(given.clips)
    datasets = [PaddedClips(*pad(clips), given.frames, turn) for turn in (turn_in_steps, turn_at_once)]
    with tempfile.TemporaryDirectory() as folder:
        with new_store(Path(folder) / "store", Facts("walks", LAYOUT, 30.0)) as writer:
            for clip in clips:
                writer.add(clip)
            writer.finish("made up")
        packed = PackedClips(open_store(Path(folder) / "store"), BODIES)
    cores, rows = os.cpu_count() or 1, []
    print(f"{given.clips} clips to {given.frames} frames, {BODIES} bodies, batches of {given.batch}")
    titles = ("batched", "in steps", "at once", "ratio", "ratio")
    print(f"{'cores':>5}" + "".join(f"{title:>10}" for title in titles) + "   views a second")
    for used, workers in ((1, 0), (cores, cores)):
        torch.set_num_threads(used)
        epochs = [ours(packed, given.frames, given.batch)]
        epochs += [usual(dataset, given.batch, workers) for dataset in datasets]
        fast, steps, once = compare(epochs, given.rounds)
        print(f"{used:>5}{fast:10.0f}{steps:10.0f}{once:10.0f}{fast / steps:10.1f}{fast / once:10.1f}")
        rows.append({"cores": used, "batched": fast, "in_steps": steps, "at_once": once})
    if given.out:
        facts = {"machine": platform.machine(), "cores": cores, "torch": torch.__version__}
        write_json(given.out, {"command": " ".join(sys.argv), "environment": facts, "rows": rows})


if __name__ == "__main__":
    main()
