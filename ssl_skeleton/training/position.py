"""Where a stage stands, and how fast it goes."""

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

_RECENT = 50  # steps: so slow ones at the beginning, as when torch compiles, are soon forgotten


@dataclass
class Position:
    """`step` batches of `epoch` (from 0) are done; `totals` are the sums of their values over their clips."""

    epoch: int = 0
    step: int = 0
    totals: dict[str, float] = field(default_factory=dict)

    def add(self, values: Mapping[str, float], clips: int) -> None:
        """Count a step, of so many clips with these mean values."""
        self.step += 1
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value * clips


class Pace:
    """How fast a stage goes that has so many clips left: in the epoch at hand, and in its last steps."""

    def __init__(self, clips_left: int) -> None:
        self._left = clips_left
        self._marks = deque([(time.perf_counter(), 0)], maxlen=_RECENT + 1)  # when so many clips were done
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Measure an epoch anew."""
        self._epoch_began, self._epoch_done = time.perf_counter(), 0

    def add(self, clips: int) -> None:
        """So many more clips are done."""
        self._left -= clips
        self._epoch_done += clips
        self._marks.append((time.perf_counter(), self._marks[-1][1] + clips))

    @property
    def seconds(self) -> float:
        """Of the epoch so far."""
        return time.perf_counter() - self._epoch_began

    @property
    def clips_per_second(self) -> float:
        """In the epoch so far."""
        return self._epoch_done / self.seconds

    @property
    def recent(self) -> float:
        """Clips a second over the last steps, with all that was done between epochs; 0 before the first."""
        clips, seconds = self._over_last_steps()
        return clips / seconds if clips else 0.0

    @property
    def seconds_left(self) -> float:
        """To the end of the stage, as fast as over the last steps; 0 before the first."""
        clips, seconds = self._over_last_steps()
        return self._left * seconds / clips if clips else 0.0

    def _over_last_steps(self) -> tuple[int, float]:
        (began, before), (ended, done) = self._marks[0], self._marks[-1]
        return done - before, ended - began
