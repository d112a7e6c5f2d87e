"""What a reader is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.recording import Facts, Recording
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import DamagedClip

Outcome = Recording | DamagedClip


class Reader(ABC):
    """A data set opened for reading. Making one looks at the source's names and side files, no recordings.

    It must be picklable, for several processes may share the work, and `read` must not change it.
    """

    def __init__(self, source: Source, facts: Facts, entries: Sequence[Entry]) -> None:
        self.source = source
        self.facts = facts
        self.entries = entries  # the files to read, in the order of the store
        self.stamp = ""  # changes when a file outside the source tells something else of the recordings

    @abstractmethod
    def read(self, entry: Entry) -> Sequence[Outcome]:
        """The recordings in one file; one of several that is damaged is given as its DamagedClip.

        Raises DamagedClip when the file as a whole cannot be read right, and OSError.
        """


@dataclass(frozen=True)
class Format:
    """A kind of data that `prepare` reads under a name: what it is, and how its reader is made.

    `about` says whether it takes a file that describes the recordings.
    """

    name: str
    title: str
    open: Callable[[Source, About | None], Reader]
    about: Literal["none", "optional", "needed"] = "none"
