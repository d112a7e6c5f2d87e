"""Recordings that are used once: read into a store that vanishes again."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssl_skeleton.data.preparation.preparation import Preparation, Progress, prepare_store
from ssl_skeleton.data.preparation.reading import useful_processes
from ssl_skeleton.data.readers import open_reader
from ssl_skeleton.data.recording import Facts
from ssl_skeleton.data.store import Store, open_store


@dataclass(frozen=True)
class Recordings:
    """Recordings that no store holds: where they are, and what `prepare` would have to be told of them."""

    sources: Sequence[Path]
    format: str = "own"
    about: Path | None = None
    fps: float | None = None
    max_damaged: float = 0.05


@contextmanager
def prepared(
    recordings: Recordings,
    progress: Progress = lambda readings, total, done: readings,
    check: Callable[[Facts], None] = lambda facts: None,
) -> Iterator[tuple[Store, Preparation]]:
    """A store of recordings that is there until the block ends, and what was skipped.

    Nothing is read before `check` has let their facts pass. The store lies where the system has temporary
    files (`TMPDIR` names another place). Raises UserError as `prepare` does.
    """
    reader = open_reader(recordings.format, recordings.sources, recordings.about)
    check(reader.facts)
    with tempfile.TemporaryDirectory(prefix="ssl_skeleton-", ignore_cleanup_errors=True) as folder:
        try:
            _, result = prepare_store(
                reader,
                Path(folder) / "store",
                fps=recordings.fps,
                max_damaged=recordings.max_damaged,
                processes=useful_processes(len(reader.entries)),
                progress=progress,
            )
        except KeyboardInterrupt:  # nothing is kept to go on from
            raise KeyboardInterrupt from None
        yield open_store(Path(folder) / "store"), result
