"""What the readers of motion capture share: an about file that may be there, units, plausible bodies."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.parsing.rows import seen_tracks
from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.base import Reader
from ssl_skeleton.data.readers.described import check_span
from ssl_skeleton.data.readers.labels import Labels
from ssl_skeleton.data.recording import Facts, Recording, check_coordinates
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.errors import UserError

ANY_WAY = "y is up; people face any way"


class Mocap(Reader):
    """A reader of one person's joints in each file, with an about file or without.

    Args:
        source: where the recordings are.
        about: what they are, if that is said.
        facts: what they are when it is not said. What an about file says goes first; its note is added.
        entries: the files to read.
        clips: the names of the clips in them.
    """

    def __init__(
        self,
        source: Source,
        about: About | None,
        facts: Facts,
        entries: Sequence[Entry],
        clips: Iterable[str],
    ) -> None:
        self._about = about
        self._labels = Labels(tuple(facts.classes))
        if about is not None:
            config = about.config
            if about.is_image("world"):
                raise UserError(f"{about.path}: coordinates: motion capture is of the world, not of an image")
            self._labels = about.labels(clips)
            facts = replace(
                facts,
                dataset=config.dataset,
                fps=float(config.fps),
                classes=self._labels.classes,
                splits=config.splits,
                note="; ".join(note for note in (config.note, facts.note) if note),
            )
        super().__init__(source, facts, entries)

    def recording(self, clip: str, x_tvc: NDArray[np.floating], unit: float, **known: int) -> Recording:
        """A clip from coordinates (T, V, 3), y up.

        Args:
            clip: its name.
            x_tvc: where the joints are, in the units of the file.
            unit: metres per unit, unless the about file says how many.
            known: what is known of it, unless the about file says more.

        Raises:
            DamagedClip: the numbers are no coordinates, or make no body.
        """
        said = self._about is not None and "unit" in self._about.config.model_fields_set
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            x_tvc = (x_tvc * (1.0 if said else unit)).astype(np.float32)
        if self._about is not None:
            x_tvc = self._about.to_metres(x_tvc)
        check_coordinates(x_tvc, len(self.facts.layout.joints))
        if not said:
            check_span(x_tvc)
        return Recording(clip, len(x_tvc), seen_tracks([x_tvc]), **(known | dict(self._labels.of(clip))))
