"""Clips as pictures: strips of poses, and contact sheets of a whole store.

All are seen as the camera sees them: somebody who faces it has the right side on the left of the picture.
"""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ssl_skeleton.data.inspection.defects import bones, joints_there
from ssl_skeleton.data.recording import METRES
from ssl_skeleton.data.store import Store
from ssl_skeleton.errors import UserError
from ssl_skeleton.files import write_atomically
from ssl_skeleton.skeleton.layout import Layout

# Blue and vermilion of Okabe and Ito's palette, which every kind of colour vision tells apart.
LEFT, RIGHT, MIDDLE = "#0072B2", "#D55E00", "#444444"
_LIGHTER = 0.55  # how far towards white the tones of further bodies go
_FILL = 0.92  # of a cell, so that neighbours do not touch
_HEAD = 0.4  # the height of the head line, in cells

_POSES = 6
_STRIPS = 30  # a page
_NAMES = 2.2  # the width of the names beside a strip, in cells
_ROWS, _COLUMNS = 9, 15  # cells on a contact sheet
_CELL_HEIGHT = 1.3  # there, with two lines of names
_LETTERS = 25  # of a name that fit a cell there

Clips = NDArray[np.int64]
Colour = tuple[float, ...]
Progress = Callable[[Iterable[Clips], int], Iterable[Clips]]


def choose_clips(labels: Clips, number: int) -> Clips:
    """The indices of at most `number` clips of `labels` (N,): as many of each class, evenly over it.

    They come class by class.
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = np.zeros_like(counts)
    while (missing := min(number, len(labels)) - int(shares.sum())) > 0:
        left = np.flatnonzero(shares < counts)
        taken = min(missing, len(left))
        shares[left[np.arange(taken) * len(left) // taken]] += 1
    chosen = [
        np.flatnonzero(labels == label)[np.arange(share) * count // max(share, 1)]
        for label, share, count in zip(classes, shares, counts, strict=True)
    ]
    return np.concatenate(chosen)


def draw_strips(store: Store, clips: Clips, path: Path) -> list[Path]:
    """Draw a row of poses over time for each of `clips`; returns the files, numbered when more than one.

    Raises UserError when `path` does not end in .png.
    """
    parts = _split(clips, _STRIPS)
    paths = _paths(path, len(parts), always=False)
    for part, file in zip(parts, paths, strict=True):
        page = _Page(store, _NAMES + _POSES, len(part), inches=1.2)
        for place, clip in enumerate(part.tolist()):
            seen = _seen_frames(store, clip)
            frames = seen[np.linspace(0, len(seen) - 1, min(_POSES, len(seen))).round().astype(np.int64)]
            page.draw_clip(clip, frames, [(_NAMES + pose, -place - 1) for pose in range(len(frames))])
            seconds = store.lengths[clip] / store.meta.fps
            page.write(0.05, -place - 0.35, _class_name(store, clip), 9)
            page.write(0.05, -place - 0.52, store.names[clip], 7)
            page.write(0.05, -place - 0.67, f"{store.lengths[clip]} frames, {seconds:.1f} s", 7)
        page.save(file)
    return paths


def draw_sheets(store: Store, path: Path, progress: Progress = lambda parts, total: parts) -> list[Path]:
    """Draw the middle pose of every clip, class by class, on numbered pages; returns the files.

    Raises UserError when `path` does not end in .png.
    """
    parts = _split(np.argsort(store.labels, kind="stable"), _ROWS * _COLUMNS)
    paths = _paths(path, len(parts), always=True)
    for part, file in zip(progress(parts, len(parts)), paths, strict=True):
        page = _Page(store, _COLUMNS, -(-len(part) // _COLUMNS) * _CELL_HEIGHT, inches=1.1)
        for place, clip in enumerate(part.tolist()):
            left, top = place % _COLUMNS, -(place // _COLUMNS) * _CELL_HEIGHT
            seen = _seen_frames(store, clip)
            page.draw_clip(clip, seen[len(seen) // 2 :][:1], [(left, top - 1)])
            page.write(left + 0.04, top - 1.09, _shortened(store.names[clip]), 5.5)
            page.write(left + 0.04, top - 1.2, _shortened(_class_name(store, clip)), 5.5)
        page.save(file)
    return paths


class _Page:
    """One picture: cells of one unit to the right of and below (0, 0), and a head line above."""

    def __init__(self, store: Store, width: float, height: float, inches: float) -> None:
        self._store = store
        self._figure = Figure(figsize=(width * inches, (height + _HEAD) * inches), dpi=150)
        self._axes = self._figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(-height, _HEAD))
        self._axes.set_axis_off()
        self._bones = np.array(bones(store.layout), dtype=np.int64).reshape(-1, 2)
        self._tones = [_tones(store.layout, lighter) for lighter in (0, _LIGHTER)]
        self._segments: list[NDArray[np.float64]] = []
        self._colours: list[Colour] = []
        self._dots: list[NDArray[np.float64]] = []  # joints without a neighbour
        self.write(0.05, 0.15, "left", 9, LEFT)
        self.write(0.4, 0.15, "right", 9, RIGHT)
        self.write(0.85, 0.15, f"as the camera sees it, y up; further bodies lighter; {store.path.name}", 9)

    def draw_clip(self, clip: int, frames: Clips, corners: Sequence[tuple[float, float]]) -> None:
        """Draw a frame into the cell of each (left, bottom) corner, all on one scale.

        Across, each pose stands in the middle of its cell; its height is that within the clip.
        """
        poses = [_bodies(self._store, clip, frame) for frame in frames.tolist()]
        places = [np.concatenate([xy_vc[there_v] for xy_vc, there_v in pose]) for pose in poses]
        if not places:
            return
        middles = [(place[:, 0].min() + place[:, 0].max()) / 2 for place in places]
        low = min(place[:, 1].min() for place in places)
        height = max(place[:, 1].max() for place in places) - low
        size = max(height, *(np.ptp(place[:, 0]) for place in places)) or 1.0
        for pose, middle, (left, bottom) in zip(poses, middles, corners, strict=True):
            origin = np.array([middle, low])
            corner = np.array([left + 0.5, bottom + (1 - _FILL) / 2])
            for body, (xy_vc, there_v) in enumerate(pose):
                drawn = there_v[self._bones].all(axis=1)
                xy_b2c = (xy_vc[self._bones[drawn]] - origin) * (_FILL / size) + corner
                self._segments.extend(xy_b2c)
                tones = self._tones[min(body, 1)]
                self._colours.extend(tones[bone] for bone in np.flatnonzero(drawn))
                alone = there_v & ~np.isin(np.arange(len(there_v)), self._bones[drawn])
                self._dots.extend((xy_vc[alone] - origin) * (_FILL / size) + corner)

    def write(self, left: float, bottom: float, text: str, size: float, colour: str = "black") -> None:
        """Write text as it is; a dollar sign begins no formula."""
        self._axes.text(left, bottom, text, fontsize=size, color=colour, parse_math=False)

    def save(self, path: Path) -> None:
        """Draw it all into a PNG file."""
        lines = LineCollection(self._segments, colors=self._colours, linewidths=1.2, capstyle="round")
        self._axes.add_collection(lines, autolim=False)
        if self._dots:
            self._axes.plot(*np.transpose(self._dots), ".", color=MIDDLE, markersize=2)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks is a box
            write_atomically(path, FigureCanvasAgg(self._figure).print_png)


def _tones(layout: Layout, lighter: float) -> list[Colour]:
    """The colour of every bone: that of the side of its child."""
    sides = dict.fromkeys(layout.mirror, LEFT) | dict.fromkeys(layout.mirror.values(), RIGHT)
    colours = [to_rgb(sides.get(layout.joints[child], MIDDLE)) for child, _ in bones(layout)]
    return [tuple(part + (1 - part) * lighter for part in colour) for colour in colours]


def _tracks(store: Store, clip: int) -> NDArray[np.int64]:
    return store.tracks[slice(*np.searchsorted(store.tracks[:, 0], (clip, clip + 1)))]


def _seen_frames(store: Store, clip: int) -> Clips:
    """The frames of a clip in which any joint of anybody is there, ascending."""
    seen = [
        first
        + np.flatnonzero(joints_there(store.frames_rvc[row : row + frames], store.meta.coordinates).any(1))
        for _, row, first, frames in _tracks(store, clip)
    ]
    return np.unique(np.concatenate(seen)) if seen else np.zeros(0, np.int64)


def _bodies(store: Store, clip: int, frame: int) -> list[tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """Every body of the clip in that frame: x and y (V, 2), and which joints are there (V,)."""
    joints = len(store.layout.joints)
    found = []
    for _, row, first, frames in _tracks(store, clip):
        inside = first <= frame < first + frames
        # A body that is not there keeps its place in the list, and so its tone.
        x_vc = store.frames_rvc[row + frame - first] if inside else np.zeros((joints, 3), np.float32)
        # In space x grows to the right hand of who faces the camera, which is the left of its picture.
        across = -1.0 if tuple(store.meta.coordinates) == METRES else 1.0
        xy_vc = x_vc[:, :2].astype(np.float64) * (across, 1.0)
        found.append((xy_vc, joints_there(x_vc, store.meta.coordinates)))
    return found


def _split(clips: Clips, size: int) -> list[Clips]:
    return [clips[start : start + size] for start in range(0, len(clips), size)]


def _paths(path: Path, pages: int, *, always: bool) -> list[Path]:
    """`path` itself, or clips-001.png and so on for clips.png."""
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: figures are PNG files; choose a name that ends in .png")
    if pages == 1 and not always:
        return [path]
    return [path.with_name(f"{path.stem}-{number:03}{path.suffix}") for number in range(1, pages + 1)]


def _class_name(store: Store, clip: int) -> str:
    label = int(store.labels[clip])
    return store.meta.classes[label] if label >= 0 else "(unknown)"


def _shortened(text: str) -> str:
    return text if len(text) <= _LETTERS else text[: _LETTERS - 3] + "..."
