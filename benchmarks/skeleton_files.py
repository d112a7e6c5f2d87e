"""Files of the form of NTU RGB+D, and plain ways of reading them."""

import itertools
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TWO_BODIES = 0.18  # of the clips
JOINT = " ".join(["%.7g"] * 11) + " 2\n"  # the sensor's software writes seven digits
Bodies = dict[str, list[NDArray[np.float64]]]


def write_texts(folder: Path, distinct: int, frames: float) -> list[Path]:
    """Write so many different files with so many frames on average, 20 to 300, and one or two bodies each."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(distinct):
        length = int(np.clip(frames * rng.lognormal(-0.08, 0.4), 20, 300))
        bodies = 2 if number % 100 < 100 * TWO_BODIES else 1
        paths.append(folder / f"{number}.skeleton")
        paths[-1].write_text(skeleton_text(length, bodies, rng))
    return paths


def skeleton_text(frames: int, bodies: int, rng: np.random.Generator) -> str:
    """One file: bodies of a person's size that drift, and values of the usual size in the other columns."""
    x_tmvc = rng.uniform(size=(frames, bodies, 25, 3)) * [0.4, 1.7, 0.2] + [-0.2, -0.8, 3.0]
    x_tmvc[..., 2] += 0.01 * np.arange(frames)[:, None, None]
    others = rng.uniform(-1, 1, size=(frames, bodies, 25, 8))
    others[..., :4] = others[..., :4] * [60, 60, 200, 200] + [250, 200, 960, 540]
    values = np.concatenate([x_tmvc, others], axis=-1).reshape(frames, bodies, -1)
    lines = [f"{frames}\n"]
    for frame in values:
        lines.append(f"{bodies}\n")
        for body, numbers in enumerate(frame):
            lines.append(f"{72057594037931100 + body} 0 1 1 1 1 0 0.02764709 -0.05745083 2\n25\n")
            lines.append(JOINT * 25 % tuple(numbers))
    return "".join(lines)


def names() -> Iterator[str]:
    """Names as those of NTU RGB+D 60, all of them different."""
    for facts in itertools.product(range(1, 18), range(1, 4), range(1, 41), range(1, 3), range(1, 61)):
        yield "S{:03}C{:03}P{:03}R{:03}A{:03}.skeleton".format(*facts)


def link(texts: Sequence[Path], folder: Path, files: int) -> list[Path]:
    """So many names for the texts in a new folder."""
    folder.mkdir()
    paths = [folder / name for name in itertools.islice(names(), files)]
    for path, text in zip(paths, itertools.cycle(texts), strict=False):
        path.hardlink_to(text)
    return paths


def pack(paths: Iterable[Path], archive: Path) -> Path:
    """A zip with all files."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for path in paths:
            file.write(path, f"nturgb+d_skeletons/{path.name}")
    return archive


def read_plainly(path: Path) -> Bodies:
    """Read a file the usual way: each joint line is split and becomes an array."""

    def joints(lines: Iterator[str], count: int) -> NDArray[np.float64]:
        return np.stack([np.array(next(lines).split(), dtype=np.float64)[:3] for _ in range(count)])

    return walk(path, joints)


def read_by_bodies(path: Path) -> Bodies:
    """Read a file in the quickest of the plain ways: an array a body and frame."""

    def joints(lines: Iterator[str], count: int) -> NDArray[np.float64]:
        return np.array([[float(value) for value in next(lines).split()] for _ in range(count)])[:, :3]

    return walk(path, joints)


def walk(path: Path, joints: Callable[[Iterator[str], int], NDArray[np.float64]]) -> Bodies:
    """Go through a file line by line; `joints` takes those of one body in one frame."""
    lines = iter(path.read_text().splitlines())
    bodies: Bodies = {}
    for _ in range(int(next(lines))):
        for _ in range(int(next(lines))):
            body = next(lines).split()[0]
            bodies.setdefault(body, []).append(joints(lines, int(next(lines))))
    return bodies
