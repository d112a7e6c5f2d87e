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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_skeleton.config import Config
from ssl_skeleton.data.readers.base import Recording
from ssl_skeleton.errors import UserError
from ssl_skeleton.files import new_folder, read_json, write_json, write_text
from ssl_skeleton.skeleton.layout import Layout, load_layout

FORMAT = 1
COLUMNS = ("name", "label", "subject", "camera", "setup", "repetition", "frames", "bodies")
_DATA_FILES = ("clips.csv", "frames.npy", "tracks.npy")
_FILES = frozenset(("meta.json", "skipped.csv", *_DATA_FILES))


class StoreMeta(Config):
    """The contents of meta.json."""

    format: int
    dataset: str
    layout: str
    fps: float = Field(gt=0)
    classes: tuple[str, ...]
    coordinates: tuple[str, ...] = ("x", "y", "z")
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
        return load_layout(self.meta.layout)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every clip, (N,), -1 when unknown."""
        return self.columns["label"]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The frames of every clip, (N,)."""
        return self.columns["frames"]


def open_store(path: Path) -> Store:
    """Open a store and check that its parts agree; frames themselves are not read.

    Raises UserError when `path` is no store, or a damaged one.
    """
    if not (path / "meta.json").is_file():
        raise UserError(f"{path}: not a prepared store; make one with: python -m ssl_skeleton.prepare")
    meta = StoreMeta.from_tree(read_json(path / "meta.json"), str(path / "meta.json"))
    if meta.format != FORMAT:
        raise UserError(f"{path}: format {meta.format} is not {FORMAT}; prepare the store again")
    names, columns = _read_clips(path / "clips.csv")
    frames, tracks = _load_array(path / "frames.npy"), _load_array(path / "tracks.npy")
    layout = load_layout(meta.layout)
    expected = {
        "clips.csv": (len(names), meta.clips),
        "frames.npy": (
            (frames.shape, frames.dtype.str),
            ((meta.rows, len(layout.joints), len(meta.coordinates)), "<f4"),
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


def _check_tracks(
    path: Path, tracks: NDArray[np.int64], columns: dict[str, NDArray[np.int64]], meta: StoreMeta
) -> None:
    """Every track lies inside its clip and inside the frames; clips come in order, with all their bodies."""
    clip, row, first, frames = tracks.T
    lengths, bodies = columns["frames"], columns["bodies"]
    in_range = (tracks >= 0).all() and (clip < len(lengths)).all() and (np.diff(clip) >= 0).all()
    if (
        not in_range
        or (lengths < 1).any()
        or (frames < 1).any()
        or (frames > meta.rows - row).any()  # differences cannot overflow here, sums could
        or (frames > lengths[clip] - first).any()
        or (np.bincount(clip, minlength=len(lengths)) != bodies).any()
        or bodies.max() > meta.bodies
    ):
        raise UserError(f"{path}: a track does not fit its clip or the frames; prepare the store again")


def _read_clips(path: Path) -> tuple[tuple[str, ...], dict[str, NDArray[np.int64]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        if not rows or tuple(rows[0]) != COLUMNS:
            raise ValueError(f"the first line does not read {','.join(COLUMNS)}")
        names = tuple(row[0] for row in rows[1:])
        values = np.array([list(map(int, row[1:])) for row in rows[1:]], dtype=np.int64)
        values = values.reshape(len(names), len(COLUMNS) - 1)
    except (OSError, ValueError, IndexError, OverflowError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error}); prepare the store again") from None
    return names, dict(zip(COLUMNS[1:], values.T, strict=True))


def _load_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header makes numpy raise errors of any kind
        raise UserError(f"{path}: damaged ({error}); prepare the store again") from None
    return array


class StoreWriter:
    """Writes recordings into a store as they come; memory does not grow with their frames."""

    def __init__(self, folder: Path, layout: Layout, bodies: int) -> None:
        self._folder = folder
        self._layout = layout
        self._bodies = bodies
        self._frames = (folder / "frames.npy").open("wb")
        self._lines: list[tuple[str | int, ...]] = []
        self._tracks: list[tuple[int, int, int, int]] = []
        self._rows = 0
        self._header_size = self._write_header()

    def add(self, recording: Recording) -> None:
        """Append one recording with at least one track; only the first `bodies` tracks are kept."""
        tracks = recording.tracks[: self._bodies]
        for track in tracks:
            place = (len(self._lines), self._rows, track.first_frame, len(track.x_tvc))
            self._tracks.append(place)
            self._frames.write(np.ascontiguousarray(track.x_tvc, dtype="<f4").tobytes())
            self._rows += len(track.x_tvc)
        facts = (recording.label, recording.subject, recording.camera, recording.setup)
        line = (recording.name, *facts, recording.repetition, recording.frames, len(tracks))
        self._lines.append(line)

    def finish(
        self,
        dataset: str,
        fps: float,
        classes: Sequence[str],
        source: str,
        skipped: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> StoreMeta:
        """Write everything but the frames, which are already there, and return the meta data.

        `skipped` says what was left out, by the reason.
        """
        self._frames.seek(0)
        if self._write_header() != self._header_size:
            raise AssertionError("the header of frames.npy changed its size")
        self.close()
        np.save(self._folder / "tracks.npy", np.array(self._tracks, dtype="<i8"), allow_pickle=False)
        _write_csv(self._folder / "clips.csv", [COLUMNS, *self._lines])
        left_out = [(why, what) for why, names in skipped.items() for what in names]
        _write_csv(self._folder / "skipped.csv", [("why", "what"), *left_out])
        meta = StoreMeta(
            format=FORMAT,
            dataset=dataset,
            layout=self._layout.name,
            fps=fps,
            classes=tuple(classes),
            clips=len(self._lines),
            tracks=len(self._tracks),
            rows=self._rows,
            bodies=max(int(line[-1]) for line in self._lines),
            source=source,
            sha256={name: _sha256(self._folder / name) for name in _DATA_FILES},
        )
        write_json(self._folder / "meta.json", meta.to_tree())
        return meta

    def close(self) -> None:
        """Close the file of frames."""
        self._frames.close()

    def _write_header(self) -> int:
        """Write the .npy header; numpy pads it so that a growing first axis keeps its size."""
        shape = (self._rows, len(self._layout.joints), 3)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._frames, header)
        return self._frames.tell()


@contextmanager
def new_store(
    out: Path, layout: Layout, *, bodies: int = 2, overwrite: bool = False
) -> Iterator[StoreWriter]:
    """A writer whose store appears at `out` when the block ends well, and not at all otherwise."""
    with new_folder(out, overwrite=overwrite, is_mine=_is_store) as folder:
        writer = StoreWriter(folder, layout, bodies)
        try:
            yield writer
        finally:
            writer.close()


def _write_csv(path: Path, lines: Sequence[Sequence[str | int]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(path, text.getvalue())


def _is_store(folder: Path) -> bool:
    return (folder / "meta.json").exists() and {path.name for path in folder.iterdir()} <= _FILES


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
