"""Clips as pictures: strips of poses, and contact sheets of a whole store."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.inspection.defects import joints_there
from ssl_skeleton.data.store import Store
from ssl_skeleton.errors import UserError
from ssl_skeleton.figures.page import Corner, Page, Pose, across, shortened

_POSES = 6
_STRIPS = 30  # a page
_NAMES = 2.2  # the width of the names beside a strip, in cells
_ROWS, _COLUMNS = 9, 15  # cells on a contact sheet
_CELL_HEIGHT = 1.3  # there, with two lines of names
_LETTERS = 25  # of a name that fit a cell there

Clips = NDArray[np.int64]
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
        page = Page(store.layout, store.path.name, _NAMES + _POSES, len(part), inches=1.2)
        for place, clip in enumerate(part.tolist()):
            seen = _seen_frames(store, clip)
            frames = seen[np.linspace(0, len(seen) - 1, min(_POSES, len(seen))).round().astype(np.int64)]
            _draw(page, store, clip, frames, [(_NAMES + pose, -place - 1) for pose in range(len(frames))])
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
        height = -(-len(part) // _COLUMNS) * _CELL_HEIGHT
        page = Page(store.layout, store.path.name, _COLUMNS, height, inches=1.1)
        for place, clip in enumerate(part.tolist()):
            left, top = place % _COLUMNS, -(place // _COLUMNS) * _CELL_HEIGHT
            seen = _seen_frames(store, clip)
            _draw(page, store, clip, seen[len(seen) // 2 :][:1], [(left, top - 1)])
            page.write(left + 0.04, top - 1.09, shortened(store.names[clip], _LETTERS), 5.5)
            page.write(left + 0.04, top - 1.2, shortened(_class_name(store, clip), _LETTERS), 5.5)
        page.save(file)
    return paths


def _draw(page: Page, store: Store, clip: int, frames: Clips, corners: list[Corner]) -> None:
    """Draw frames of a clip into the cells at `corners`."""
    page.draw([_bodies(store, clip, frame) for frame in frames.tolist()], corners)


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


def _bodies(store: Store, clip: int, frame: int) -> Pose:
    """What a clip shows in a frame."""
    joints = len(store.layout.joints)
    found = []
    for _, row, first, frames in _tracks(store, clip):
        inside = first <= frame < first + frames
        x_vc = store.frames_rvc[row + frame - first] if inside else np.zeros((joints, 3), np.float32)
        xy_vc = x_vc[:, :2].astype(np.float64) * (across(store.meta.coordinates), 1.0)
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
