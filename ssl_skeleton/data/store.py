"""The store: a prepared data set as a folder that any language can read (docs/data.md).

`meta.json`   what it is: format version, data set, layout, frame rate, class names, counts, checksums
`clips.csv`   a line a clip: name, label, subject, camera, setup, repetition, frames, bodies
`frames.npy`  float32 (rows, V, C): the frames of every body track, one track after another, unpadded
`tracks.npy`  int64 (tracks, 4): clip, first row, first frame in the clip, frames
`skipped.csv` what was not stored, and why
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_skeleton.config import Config
from ssl_skeleton.data.recording import MOST_FRAMES
from ssl_skeleton.data.splits import Split, SplitName, SplitRule
from ssl_skeleton.data.untrusted import load_array, read_tree, table_size
from ssl_skeleton.errors import UserError, nearest
from ssl_skeleton.skeleton.layout import Layout

FORMAT = 2
COLUMNS = ("name", "label", "subject", "camera", "setup", "repetition", "frames", "bodies")
EVERYTHING = "all"  # the split of every store: all clips train, none tests
DATA_FILES = ("clips.csv", "frames.npy", "tracks.npy", "skipped.csv")
FILES = frozenset(("meta.json", *DATA_FILES))


_BLOCK = 1 << 16  # rows worked on at once


class StoreMeta(Config):
    """The contents of meta.json."""

    format: int
    dataset: str
    layout: Layout
    fps: float = Field(gt=0)
    classes: tuple[str, ...]
    coordinates: tuple[str, ...]
    splits: dict[SplitName, SplitRule]
    note: str
    clips: int = Field(ge=1)
    tracks: int = Field(ge=1)
    rows: int = Field(ge=1)
    bodies: int = Field(ge=1)  # the most in one clip
    source: str
    sha256: dict[str, str]


@dataclass(frozen=True)
class Store:
    """An open store. The columns of clips.csv are arrays of length N; frames are memory-mapped."""

    path: Path
    meta: StoreMeta
    names: tuple[str, ...]
    columns: dict[str, NDArray[np.int64]]
    frames_rvc: NDArray[np.float32]
    tracks: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def layout(self) -> Layout:
        """The layout of its joints."""
        return self.meta.layout

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits it can be divided by."""
        return (*self.meta.splits, EVERYTHING)

    def split(self, name: str) -> Split:
        """Divide the clips; one that belongs to no part, as of an unknown camera, is in none.

        Raises UserError when there is no such split, or its training or test part is empty. The split `all`
        puts every clip into the training part.
        """
        if name == EVERYTHING:
            return Split(name, np.arange(len(self), dtype=np.int64), np.zeros(0, np.int64))
        if name not in self.meta.splits:
            hint = nearest(name, self.split_names)
            raise UserError(f"{self.path}: {self.meta.dataset} has no split '{name}'; {hint}")
        rule = self.meta.splits[name]
        parts = rule.divide(self.columns)
        for part, clips in parts.items():
            values: tuple[int, ...] = getattr(rule, part)
            if not len(clips) and (values or part != "validation"):
                found = np.unique(self.columns[rule.column]).tolist()
                raise UserError(
                    f"{self.path}: no clip for the {part} part of split '{name}', which takes "
                    f"{rule.column} {_listed(sorted(values))}; this store has {rule.column} {_listed(found)}"
                )
        return Split(name, **parts)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every clip, (N,), -1 when unknown."""
        return self.columns["label"]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The frames of every clip, (N,)."""
        return self.columns["frames"]

    @cached_property
    def root_at_zero(self) -> bool:
        """Whether the root is exactly at zero in all frames, which are then all read to tell."""
        root = self.layout.index(self.layout.root)
        return not any(self.frames_rvc[rows, root].any() for rows in row_blocks(len(self.frames_rvc)))


def open_store(path: Path) -> Store:
    """Open a store and check that its parts agree; frames themselves are not read.

    Raises UserError when `path` is no store, or a damaged one.
    """
    if not (path / "meta.json").is_file():
        what = "not a prepared store" if path.exists() else "no such folder"
        raise UserError(f"{path}: {what}; make a store with: python -m ssl_skeleton.prepare")
    meta = read_meta(path)
    table_size(path / "clips.csv", meta.clips)
    names, columns = read_clips(path / "clips.csv")
    frames, tracks = load_array(path / "frames.npy"), load_array(path / "tracks.npy")
    expected = {
        "clips.csv": (len(names), meta.clips),
        "frames.npy": (
            (frames.shape, frames.dtype.str),
            ((meta.rows, len(meta.layout.joints), len(meta.coordinates)), "<f4"),
        ),
        "tracks.npy": ((tracks.shape, tracks.dtype.str), ((meta.tracks, 4), "<i8")),
    }
    for file, (found, wanted) in expected.items():
        if found != wanted:
            raise UserError(f"{path / file}: holds {found}, not {wanted} as meta.json says; prepare again")
    _check_tracks(path / "tracks.npy", np.asarray(tracks), columns, meta)
    if columns["label"].min() < -1 or columns["label"].max() >= len(meta.classes):
        raise UserError(f"{path / 'clips.csv'}: a label is not below {len(meta.classes)}; prepare again")
    return Store(path, meta, names, columns, frames, np.asarray(tracks))


def read_meta(path: Path) -> StoreMeta:
    """The meta data of the store at `path`; UserError when it is damaged or of another format."""
    tree = read_tree(path / "meta.json")
    found = tree.get("format") if isinstance(tree, dict) else None
    if isinstance(found, int) and found != FORMAT:
        raise UserError(f"{path}: format {found} is not {FORMAT}; prepare the store again")
    return StoreMeta.from_tree(tree, str(path / "meta.json"))


def _check_tracks(
    path: Path, tracks: NDArray[np.int64], columns: dict[str, NDArray[np.int64]], meta: StoreMeta
) -> None:
    """Every track lies inside its clip; one after another, clip by clip, they share out all frames."""
    clip, row, first, frames = tracks.T
    lengths, bodies = columns["frames"], columns["bodies"]
    in_range = (tracks >= 0).all() and (clip < len(lengths)).all() and (np.diff(clip) >= 0).all()
    if (
        not in_range
        or (lengths < 1).any()
        or (lengths > MOST_FRAMES).any()
        or (frames < 1).any()
        or (frames > meta.rows - row).any()  # differences cannot overflow here, sums could
        or (frames > lengths[clip] - first).any()
        or (row != np.append(0, (row + frames)[:-1])).any()
        or row[-1] + frames[-1] != meta.rows
        or (np.bincount(clip, minlength=len(lengths)) != bodies).any()
        or bodies.max() > meta.bodies
    ):
        raise UserError(f"{path}: a track does not fit its clip or the frames; prepare the store again")


def read_clips(path: Path) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    """The names and the other columns of clips.csv; UserError when it is damaged."""
    try:
        text = path.read_bytes().decode()
        first, _, body = text.partition("\n")
        if first != ",".join(COLUMNS):
            raise ValueError(f"the first line does not read {','.join(COLUMNS)}")
        names = _first_cells(body)
        values = np.zeros((0, len(COLUMNS) - 1), np.int64)
        if names:
            values = np.loadtxt(
                io.StringIO(body),
                np.int64,
                comments=None,
                delimiter=",",
                quotechar='"',
                usecols=range(1, len(COLUMNS)),
                ndmin=2,
            )
        if len(values) != len(names):
            raise ValueError(f"{len(names)} names, but {len(values)} lines of numbers")
    except (OSError, ValueError, IndexError, OverflowError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error}); prepare the store again") from None
    return names, dict(zip(COLUMNS[1:], values.T, strict=True))


def _first_cells(body: str) -> tuple[str, ...]:
    """The first cell of every line; splitting is an order faster than the csv module, which quotes need."""
    if '"' in body:
        rows = list(csv.reader(io.StringIO(body, newline="")))
        if any(len(row) != len(COLUMNS) for row in rows):
            raise ValueError(f"a line has not {len(COLUMNS)} cells")
        return tuple(row[0] for row in rows)
    cells = body.replace("\n", ",").split(",")
    if cells[-1] or len(cells) % len(COLUMNS) != 1:
        raise ValueError(f"a line has not {len(COLUMNS)} cells")
    return tuple(cells[: -1 : len(COLUMNS)])


def row_blocks(rows: int) -> Iterator[slice]:
    """Slices of so many rows of frames: they bound the memory that work on them takes."""
    return (slice(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK))


def track_blocks(tracks: NDArray[np.int64]) -> Iterator[slice]:
    """Slices of tracks (K, 4) with about so many rows of frames each; tracks follow each other."""
    _, firsts = np.unique(tracks[:, 1] // _BLOCK, return_index=True)
    return map(slice, firsts.tolist(), [*firsts[1:].tolist(), len(tracks)])


def is_store(folder: Path) -> bool:
    """Whether a folder is a store, in whatever state, and holds nothing else."""
    if not (folder / "meta.json").is_file() or not {path.name for path in folder.iterdir()} <= FILES:
        return False
    try:
        tree = read_tree(folder / "meta.json")
    except UserError:
        return (folder / "frames.npy").is_file()
    return isinstance(tree, dict) and {"format", "dataset", "sha256"} <= tree.keys()


def _listed(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")


def meta_sum(tree: Mapping[str, Any]) -> str:
    """The SHA-256 sum of what meta.json says, but for this sum: of compact JSON with sorted keys."""
    sums = {name: value for name, value in tree["sha256"].items() if name != "meta.json"}
    text = json.dumps({**tree, "sha256": sums}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sha256(path: Path) -> str:
    """The SHA-256 sum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
