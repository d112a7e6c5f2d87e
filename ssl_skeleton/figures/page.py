"""A page of poses: what every picture of clips is drawn on.

All are seen as the camera sees them: somebody who faces it has the right side on the left of the picture.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssl_skeleton.data.inspection.defects import bones
from ssl_skeleton.data.recording import METRES
from ssl_skeleton.files import write_atomically
from ssl_skeleton.skeleton.layout import Layout

# Blue and vermilion of Okabe and Ito's palette, which every kind of colour vision tells apart.
LEFT, RIGHT, MIDDLE = "#0072B2", "#D55E00", "#444444"
_LIGHTER = 0.55  # how far towards white the tones of further bodies go
_FILL = 0.92  # of a cell, so that neighbours do not touch
_HEAD = 0.4  # the height of the head line, in cells

Colour = tuple[float, ...]
# One frame: of every body x and y (V, 2), x to the right and y up in the picture, and which joints are there.
# A body that is not there keeps its place in the list, and so its tone.
Pose = Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]]
Corner = tuple[float, float]


class Page:
    """One picture: cells of one unit to the right of and below (0, 0), and a head line above."""

    def __init__(self, layout: Layout, about: str, width: float, height: float, inches: float) -> None:
        self._figure = Figure(figsize=(width * inches, (height + _HEAD) * inches), dpi=150)
        self._axes = self._figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(-height, _HEAD))
        self._axes.set_axis_off()
        self._bones = np.array(bones(layout), dtype=np.int64).reshape(-1, 2)
        self._tones = [_tones(layout, lighter) for lighter in (0, _LIGHTER)]
        self._segments: list[NDArray[np.float64]] = []
        self._colours: list[Colour] = []
        self._dots: list[NDArray[np.float64]] = []  # joints without a neighbour
        self.write(0.05, 0.15, "left", 9, LEFT)
        self.write(0.4, 0.15, "right", 9, RIGHT)
        self.write(0.85, 0.15, f"as the camera sees it, y up; further bodies lighter; {about}", 9)

    def draw(self, poses: Sequence[Pose], corners: Sequence[Corner]) -> None:
        """Draw a pose into the cell of each (left, bottom) corner, all on one scale.

        Across, each pose stands in the middle of its cell; its height is that among all of `poses`.
        """
        places = [np.concatenate([xy_vc[there_v] for xy_vc, there_v in pose]) for pose in poses]
        seen = [place for place in places if len(place)]
        if not seen:
            return
        low = min(place[:, 1].min() for place in seen)
        height = max(place[:, 1].max() for place in seen) - low
        size = max(height, *(np.ptp(place[:, 0]) for place in seen)) or 1.0
        for pose, place, (left, bottom) in zip(poses, places, corners, strict=True):
            if not len(place):
                continue
            origin = np.array([(place[:, 0].min() + place[:, 0].max()) / 2, low])
            corner = np.array([left + 0.5, bottom + (1 - _FILL) / 2])
            for body, (xy_vc, there_v) in enumerate(pose):
                drawn = there_v[self._bones].all(axis=1)
                place_vc = (xy_vc - origin) * (_FILL / size) + corner
                self._segments.extend(place_vc[self._bones[drawn]])
                tones = self._tones[min(body, 1)]
                self._colours.extend(tones[bone] for bone in np.flatnonzero(drawn))
                self._dots.extend(place_vc[there_v & ~np.isin(np.arange(len(there_v)), self._bones[drawn])])

    def write(self, left: float, bottom: float, text: str, size: float, colour: str = "black") -> None:
        """Write text as it is; a dollar sign begins no formula."""
        self._axes.text(left, bottom, text, fontsize=size, color=colour, parse_math=False)

    def finish(self) -> Figure:
        """The figure, with all that was drawn."""
        lines = LineCollection(self._segments, colors=self._colours, linewidths=1.2, capstyle="round")
        self._axes.add_collection(lines, autolim=False)
        if self._dots:
            self._axes.plot(*np.transpose(self._dots), ".", color=MIDDLE, markersize=2)
        return self._figure

    def save(self, path: Path) -> None:
        """Finish it into a PNG file."""
        with any_letters():
            write_atomically(path, FigureCanvasAgg(self.finish()).print_png)


@contextmanager
def any_letters() -> Iterator[None]:
    """Draw a letter that the font lacks as a box, without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def across(coordinates: Sequence[str]) -> float:
    """What x is multiplied by to grow to the right in the picture.

    In space it grows to the right hand of who faces the camera, which is the left of its picture.
    """
    return -1.0 if tuple(coordinates[:3]) == METRES else 1.0


def shortened(text: str, letters: int) -> str:
    """A text of at most so many letters; dots stand for the rest."""
    return text if len(text) <= letters else text[: letters - 3] + "..."


def _tones(layout: Layout, lighter: float) -> list[Colour]:
    """The colour of every bone: that of the side of its child."""
    sides = dict.fromkeys(layout.mirror, LEFT) | dict.fromkeys(layout.mirror.values(), RIGHT)
    colours = [to_rgb(sides.get(layout.joints[child], MIDDLE)) for child, _ in bones(layout)]
    return [tuple(part + (1 - part) * lighter for part in colour) for colour in colours]
