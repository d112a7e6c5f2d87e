"""From recordings to a store: what is read is checked and written, what is skipped is listed."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ssl_skeleton.data.preparation.journal import Journal
from ssl_skeleton.data.preparation.reading import Reading, read_entries
from ssl_skeleton.data.readers.base import Outcome, Reader
from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.data.source import Entry
from ssl_skeleton.data.store import FORMAT, StoreMeta, is_store
from ssl_skeleton.data.writing import MOST_BODIES, StoreWriter, Written, frames_fit, row_bytes
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.files import new_folder

Progress = Callable[[Iterable[Reading], int, int], Iterable[Reading]]

_CHUNK = 32  # entries that a process reads at a time, and between two lines of the journal
_JOURNAL = "journal.jsonl"
# A store is about as large as its source. What grows far beyond that is a slip, or meant to fill a disk.
_MOST_BYTES, _MOST_GROWTH = 1 << 28, 64
_LISTS = ("damaged", "bodiless", "missing", "crowded")
_LISTED = 5  # names shown of each kind of skipped clip


@dataclass
class Preparation:
    """What was read, and what was skipped and why."""

    files: int
    max_damaged: float
    resumed: int = 0  # files that an earlier preparation had read
    clips: int = 0
    frames: int = 0
    damaged: list[str] = field(default_factory=list)  # "file: what is wrong"
    bodiless: list[str] = field(default_factory=list)  # names of clips in which nobody is seen
    missing: list[str] = field(default_factory=list)  # names on the list given with --missing
    crowded: list[str] = field(default_factory=list)  # "clip (bodies)", of which only two were stored

    @property
    def skipped(self) -> dict[str, list[str]]:
        """Everything that was not stored, by the reason."""
        return {
            "damaged": self.damaged,
            "without a body": self.bodiless,
            "listed as missing": self.missing,
            "in part, with more than two bodies": self.crowded,
        }

    def check_damage(self, share_read: float = 1.0) -> None:
        """UserError once too much is damaged, which tells a wrong folder early."""
        clips = self.clips + len(self.bodiless) + len(self.damaged)
        total = max(self.files, round(clips / share_read))  # some files hold many clips
        if len(self.damaged) > self.max_damaged * total + 1e-9:  # 0.29 of 100 is 29
            if total == 1:
                raise UserError(f"{self.damaged[0]}; that is all there was to read")
            raise UserError(
                f"more than {self.max_damaged:.0%} of the {total} files or clips are damaged; "
                f"the first: {self.damaged[0]}; --max-damaged allows more"
            )


def skipped_lines(skipped: Mapping[str, Sequence[str]], rest: str = "") -> list[str]:
    """What was skipped, a line a reason. Where not all names are shown, `rest` says where the others are."""
    lines = []
    for why, names in skipped.items():
        shown = [name if name.isprintable() else repr(name) for name in names[:_LISTED]]
        more = f"; {rest}" if len(names) > _LISTED and rest else ""
        lines += [f"skipped {len(names)} {why}: {'; '.join(shown)}{more}"] if names else []
    return lines


def prepare_store(
    reader: Reader,
    out: Path,
    *,
    fps: float | None = None,
    missing: frozenset[str] = frozenset(),
    max_damaged: float = 0.05,
    overwrite: bool = False,
    processes: int = 1,
    progress: Progress = lambda readings, total, done: readings,
) -> tuple[StoreMeta, Preparation]:
    """Read everything that `reader` has into a new store at `out`, resampled to `fps` unless that is None.

    Clips named in `missing`, clips without any body, and damaged ones are listed and skipped. Raises
    UserError when nothing good is left, or more than the share `max_damaged` of the files is damaged; then
    no store is written. When it is broken off otherwise, the next call with the same arguments goes on from
    there. The store is the same for any number of `processes`.
    """
    result = Preparation(len(reader.entries), max_damaged)
    facts = _facts_at(reader.facts, fps)
    wanted = [entry for entry in reader.entries if entry.stem not in missing]
    result.missing = [entry.stem for entry in reader.entries if entry.stem in missing]
    key = _key(reader, facts, wanted, missing)
    with new_folder(out, overwrite=overwrite, is_mine=is_store, resumable=True) as folder:
        work = _Work(folder, facts, key, result, missing=missing, wanted=len(wanted))
        work.most_rows = (_MOST_BYTES + _MOST_GROWTH * reader.source.size()) // row_bytes(facts)
        try:
            left = wanted[work.done :]
            readings = read_entries(reader, left, facts.fps, _CHUNK, processes)
            for entry, outcomes in progress(readings, len(wanted), work.done):
                work.take(entry, outcomes)
            return work.finish(str(reader.source)), result
        except KeyboardInterrupt:
            kept = f"{work.kept} of {len(wanted)} files are kept; the same command goes on from there"
            raise KeyboardInterrupt(kept) from None
        finally:
            work.writer.close()


def _facts_at(facts: Facts, fps: float | None) -> Facts:
    if fps is None:
        return facts
    if not facts.fps / 1000 <= fps <= facts.fps * 100:
        raise UserError(f"--fps {fps:g} is too far from the {facts.fps:g} frames a second of the recordings")
    return replace(facts, fps=fps)


class _Work:
    """The store being written, its journal, and what was skipped: together they can be taken up again."""

    most_rows = 0

    def __init__(
        self,
        folder: Path,
        facts: Facts,
        key: str,
        result: Preparation,
        *,
        missing: frozenset[str],
        wanted: int,
    ) -> None:
        self.result, self.missing, self.wanted = result, missing, wanted
        _remove_remains(folder)
        self.journal = Journal(folder / _JOURNAL, key)
        if not frames_fit(folder, facts, self.journal.last.get("rows", 0)):
            self.journal.clear()
        written = self._take_up()
        self.done = result.resumed
        self.seen = {str(line[0]) for line in written.lines}
        self.writer = StoreWriter(folder, facts, done=written if self.done else None)
        self._mark()

    def take(self, entry: Entry, outcomes: Sequence[Outcome]) -> None:
        """Store what was read from an entry, or list why not."""
        for outcome in outcomes:
            if isinstance(outcome, DamagedClip):
                self.result.damaged.append(f"{entry.path}: {outcome}")
            else:
                self._take_clip(entry, outcome)
        self.done += 1
        self.result.check_damage(self.done / self.wanted)
        if self.done % _CHUNK == 0:
            self._commit()

    def finish(self, source: str) -> StoreMeta:
        """Complete the store."""
        self.result.check_damage()  # of what an earlier call had read, this one may allow less
        if not self.writer.written.lines:
            counts = ", ".join(f"{len(names)} {why}" for why, names in self.result.skipped.items() if names)
            raise UserError(f"{source}: none of its {self.result.files} files could be used ({counts})")
        meta = self.writer.finish(source, self.result.skipped)
        self.journal.remove()
        return meta

    def _take_clip(self, entry: Entry, clip: Recording) -> None:
        if clip.name in self.missing:
            self.result.missing.append(clip.name)
        elif clip.name in self.seen:
            self.result.damaged.append(f"{entry.path}: clip '{clip.name}' was read before")
        elif not clip.tracks:
            self.result.bodiless.append(clip.name)
        else:
            self.seen.add(clip.name)
            self.writer.add(clip)
            if self.writer.written.rows > self.most_rows:
                raise UserError(
                    f"clip '{clip.name}': so far the store is over {_MOST_GROWTH} times as large as all its "
                    "sources; look for wrong frame numbers"
                )
            if len(clip.tracks) > MOST_BODIES:
                self.result.crowded.append(f"{clip.name} ({len(clip.tracks)} bodies)")
            self.result.clips += 1
            self.result.frames += clip.frames

    def _mark(self) -> None:
        """Remember how much the journal knows."""
        self.kept = self.done
        written, result = self.writer.written, self.result
        self._known = (len(written.lines), len(written.tracks))
        self._listed = {name: len(getattr(result, name)) for name in _LISTS}

    def _commit(self) -> None:
        """Tell the journal what is new."""
        self.writer.flush()
        written, result = self.writer.written, self.result
        lines, tracks = self._known
        self.journal.append(
            {
                "done": self.done,
                "rows": written.rows,
                "lines": written.lines[lines:],
                "tracks": written.tracks[tracks:],
                **{name: getattr(result, name)[count:] for name, count in self._listed.items()},
            }
        )
        self._mark()

    def _take_up(self) -> Written:
        """What the journal tells of."""
        written, result = Written(), self.result
        for entry in self.journal.entries:
            written.lines += [tuple(line) for line in entry["lines"]]
            written.tracks += [tuple(track) for track in entry["tracks"]]
            written.rows = entry["rows"]
            for name in _LISTS:
                getattr(result, name).extend(entry[name])
            result.resumed = entry["done"]
        result.clips = len(written.lines)
        result.frames = sum(int(line[-2]) for line in written.lines)
        return written


def _remove_remains(folder: Path) -> None:
    """Delete the hidden files that writing atomically leaves behind when a process is killed in it."""
    for path in folder.glob(".*.*"):
        path.unlink()


def _key(reader: Reader, facts: Facts, entries: Sequence[Entry], missing: frozenset[str]) -> str:
    """What tells two preparations apart: all that can change the store."""
    told = {
        "format": FORMAT,
        "facts": [facts.dataset, facts.layout.to_tree(), facts.fps, list(facts.classes), facts.note],
        "more": [facts.coordinates, {name: rule.to_tree() for name, rule in facts.splits.items()}],
        "roots": [str(root.absolute()) for root in reader.source.roots],
        "entries": entries,
        "files": [[*entry, reader.source.stamp(entry)] for entry in reader.source.matching("*")],
        "missing": sorted(missing),
        "about": reader.stamp,
    }
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def read_missing(path: Path) -> frozenset[str]:
    """The names on a list, one a line, with their endings or without; a line of several words is a remark."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of names ({error})") from None
    words = [line.strip() for line in lines if len(line.split()) == 1]
    found = frozenset(words) | frozenset(
        re.sub(r"\.(skeleton|txt|json|mat|csv|npy|npz|amc|bvh)$", "", word) for word in words
    )
    if not found:
        raise UserError(f"{path}: holds no name; a list has one a line, such as S001C002P005R002A008")
    return found
