"""Writing a store."""

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.data.store import COLUMNS, DATA_FILES, FORMAT, StoreMeta, is_store, meta_sum, sha256
from ssl_skeleton.files import new_folder, write_atomically, write_json, write_text

MOST_BODIES = 2  # tracks of a clip that are kept, unless more are asked for
_HEADER_BYTES = 128  # of frames.npy, whatever its shape


@dataclass
class Written:
    """What a writer has written so far: the lines of clips.csv, the rows of tracks.npy and of frames.npy."""

    lines: list[tuple[str | int, ...]] = field(default_factory=list)
    tracks: list[tuple[int, int, int, int]] = field(default_factory=list)
    rows: int = 0


class StoreWriter:
    """Writes recordings into a store as they come; memory does not grow with their frames.

    `done` is what an earlier writer left in `folder`; frames past it are cut off.
    """

    def __init__(
        self, folder: Path, facts: Facts, bodies: int = MOST_BODIES, done: Written | None = None
    ) -> None:
        self._folder = folder
        self._facts = facts
        self._bodies = bodies
        self.written = Written() if done is None else done
        self._frames = (folder / "frames.npy").open("wb" if done is None else "r+b")
        self._write_header()
        self._frames.truncate(_HEADER_BYTES + self.written.rows * row_bytes(facts))
        self._frames.seek(0, os.SEEK_END)

    def add(self, recording: Recording) -> None:
        """Append one recording with at least one track; only the first `bodies` tracks are kept."""
        tracks, written = recording.tracks[: self._bodies], self.written
        for track in tracks:
            place = (len(written.lines), written.rows, track.first_frame, len(track.x_tvc))
            written.tracks.append(place)
            self._frames.write(np.ascontiguousarray(track.x_tvc, dtype="<f4").data)
            written.rows += len(track.x_tvc)
        facts = (recording.label, recording.subject, recording.camera, recording.setup)
        line = (recording.name, *facts, recording.repetition, recording.frames, len(tracks))
        written.lines.append(line)

    def flush(self) -> None:
        """Hand all frames so far to the operating system, so that they outlive this process."""
        self._frames.flush()

    def finish(self, source: str, skipped: Mapping[str, Sequence[str]] = MappingProxyType({})) -> StoreMeta:
        """Write everything but the frames, which are already there, and return the meta data.

        `skipped` says what was left out, by the reason.
        """
        self._frames.seek(0)
        self._write_header()
        self._frames.flush()
        os.fsync(self._frames.fileno())
        self.close()
        written, facts = self.written, self._facts
        tracks = np.array(written.tracks, dtype="<i8")
        write_atomically(self._folder / "tracks.npy", lambda file: np.save(file, tracks, allow_pickle=False))
        _write_csv(self._folder / "clips.csv", [COLUMNS, *written.lines])
        left_out = [(why, what) for why, names in skipped.items() for what in names]
        _write_csv(self._folder / "skipped.csv", [("why", "what"), *left_out])
        meta = StoreMeta(
            format=FORMAT,
            dataset=facts.dataset,
            layout=facts.layout,
            fps=facts.fps,
            classes=tuple(facts.classes),
            coordinates=facts.coordinates,
            splits=dict(facts.splits),
            note=facts.note,
            clips=len(written.lines),
            tracks=len(written.tracks),
            rows=written.rows,
            bodies=max(int(line[-1]) for line in written.lines),
            source=source,
            sha256={name: sha256(self._folder / name) for name in DATA_FILES},
        )
        sums = meta.sha256 | {"meta.json": meta_sum(meta.to_tree())}
        meta = meta.model_copy(update={"sha256": sums})
        write_json(self._folder / "meta.json", meta.to_tree())
        return meta

    def close(self) -> None:
        """Close the file of frames."""
        self._frames.close()

    def _write_header(self) -> None:
        """Write the .npy header; numpy pads it so that a growing first axis keeps its size."""
        shape = (self.written.rows, len(self._facts.layout.joints), len(self._facts.coordinates))
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._frames, header)
        if self._frames.tell() != _HEADER_BYTES:
            raise AssertionError(f"the header of frames.npy has not {_HEADER_BYTES} bytes")


def frames_fit(folder: Path, facts: Facts, rows: int) -> bool:
    """Whether frames.npy in `folder` is long enough for so many rows."""
    path = folder / "frames.npy"
    return not rows or (path.is_file() and path.stat().st_size >= rows * row_bytes(facts) + _HEADER_BYTES)


def row_bytes(facts: Facts) -> int:
    """The bytes of one row of frames.npy."""
    return 4 * len(facts.layout.joints) * len(facts.coordinates)


@contextmanager
def new_store(
    out: Path, facts: Facts, *, bodies: int = MOST_BODIES, overwrite: bool = False
) -> Iterator[StoreWriter]:
    """A writer whose store appears at `out` when the block ends well, and not at all otherwise."""
    with new_folder(out, overwrite=overwrite, is_mine=is_store) as folder:
        writer = StoreWriter(folder, facts, bodies)
        try:
            yield writer
        finally:
            writer.close()


def _write_csv(path: Path, lines: Sequence[Sequence[str | int]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    write_text(path, text.getvalue())
