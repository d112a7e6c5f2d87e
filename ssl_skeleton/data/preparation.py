"""From a folder of recordings to a store: read, check, list what is skipped, write."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ssl_skeleton.data.readers.base import DamagedClip, Reader, Recording
from ssl_skeleton.data.store import StoreMeta, new_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout

Progress = Callable[[Iterable[Path], int], Iterable[Path]]


@dataclass
class Preparation:
    """What was read, and what was skipped and why."""

    files: int
    max_damaged: float
    frames: int = 0
    damaged: list[str] = field(default_factory=list)  # "file: what is wrong"
    bodiless: list[str] = field(default_factory=list)  # names of clips in which nobody is seen
    missing: list[str] = field(default_factory=list)  # names on the list given with --missing

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Everything that was not stored, by the reason."""
        return {
            "damaged": self.damaged,
            "without a body": self.bodiless,
            "listed as missing": self.missing,
        }

    def note_damage(self, what: str) -> None:
        """List a damaged file; UserError once there are too many, which tells a wrong folder early."""
        self.damaged.append(what)
        if len(self.damaged) > self.max_damaged * self.files + 1e-9:  # 0.29 of 100 is 29
            raise UserError(
                f"more than {self.max_damaged:.0%} of the {self.files} files are damaged; "
                f"the first: {self.damaged[0]}; --max-damaged allows more"
            )


def prepare_store(
    reader: Reader,
    source: Path,
    out: Path,
    *,
    missing: frozenset[str] = frozenset(),
    max_damaged: float = 0.05,
    overwrite: bool = False,
    progress: Progress = lambda paths, total: paths,
) -> tuple[StoreMeta, Preparation]:
    """Read all files of `reader` below `source` into a new store at `out`.

    Clips named in `missing`, clips without any body, and damaged ones are listed and skipped. Raises
    UserError when nothing is there to read, nothing good is left, or more than the share
    `max_damaged` of the files is damaged; then no store is written.
    """
    paths = reader.files(source)
    result = Preparation(len(paths), max_damaged)
    layout = load_layout(reader.layout)
    with new_store(out, layout, overwrite=overwrite) as writer:
        for recording in _good_recordings(reader, progress(paths, len(paths)), missing, result):
            writer.add(recording)
            result.frames += recording.frames
        if not result.frames:
            counts = ", ".join(f"{len(names)} {why}" for why, names in result.skipped.items())
            raise UserError(f"{source}: none of its {result.files} files could be used ({counts})")
        meta = writer.finish(reader.dataset, reader.fps, reader.classes, str(source), result.skipped)
    return meta, result


def _good_recordings(
    reader: Reader, paths: Iterable[Path], missing: frozenset[str], result: Preparation
) -> Iterator[Recording]:
    """Yield what can be stored; note the rest in `result`."""
    seen: set[str] = set()
    for path in paths:
        if path.stem in missing:
            result.missing.append(path.stem)
            continue
        try:
            recordings = reader.read(path)
        except (DamagedClip, OSError) as error:
            result.note_damage(f"{path.name}: {error}")
            continue
        for recording in recordings:
            if recording.name in seen:
                result.note_damage(f"{path.name}: clip '{recording.name}' was read before")
            elif not recording.tracks:
                result.bodiless.append(recording.name)
            else:
                seen.add(recording.name)
                yield recording


def read_missing(path: Path) -> frozenset[str]:
    """The sample names on a published list: every line that begins with a name, without its ending."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of names ({error})") from None
    names = {line.strip().split(".")[0] for line in lines}
    found = frozenset(name for name in names if re.fullmatch(r"S\d{3}C\d{3}P\d{3}R\d{3}A\d{3}", name))
    if not found:
        raise UserError(f"{path}: holds no sample name such as S001C002P005R002A008")
    return found
