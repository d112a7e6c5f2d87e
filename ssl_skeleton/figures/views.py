"""What a pretext sees of clips, as a picture: each clip beside the views of it."""

from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.view import ViewConfig, make_view
from ssl_skeleton.figures.page import Page, Pose, across, shortened
from ssl_skeleton.training.seeds import generator
from ssl_skeleton.training.task import Task

_POSES = 4  # of a clip in each view
_NAMES = 2.2  # the width of the names beside a row, in cells
_TITLES = 0.35  # the height of the line with the views' names, in cells
_GAP = 0.4  # between two views, in cells
_LETTERS = 35  # of a name that fit beside a row


def draw_views(task: Task, index: Tensor, epoch: int) -> Figure:
    """A figure with a row for each of the clips `index` (N,): a few poses over time in every view.

    Shown are the positions of which a view's streams are made, without what is masked. A row has one scale,
    so that views can be compared.
    """
    views = shown_views(task, index, epoch)
    about = f"{task.name}, epoch {epoch}"
    lefts = [_NAMES + (_POSES + _GAP) * number for number in range(len(views))]
    page = Page(task.packed.layout, about, lefts[-1] + _POSES, len(index) + _TITLES, inches=0.9)
    for left, title in zip(lefts, views, strict=True):
        page.write(left + 0.1, -0.2, title, 9)
    axes = [0, 2 if task.sampling.normalise == "agcn" else 1]  # to the side, and up
    flip = (across(task.packed.coordinate_names), 1.0)
    for row, name in enumerate(task.names(index)):
        bottom = -_TITLES - row - 1
        page.write(0.05, bottom + 0.45, shortened(name, _LETTERS), 7)
        poses, corners = [], []
        for left, clips in zip(lefts, views.values(), strict=True):
            for place, frame in enumerate(_frames(int(clips.lengths[row]))):
                poses.append(_pose(clips, row, frame, axes, flip))
                corners.append((left + place, bottom))
        page.draw(poses, corners)
    return page.finish()


def shown_views(task: Task, index: Tensor, epoch: int) -> dict[str, Clips]:
    """The positions of clips (N,) as they are, and in the views that the pretext sees of them, by title.

    Views of the same positions share a title; what is masked is not `seen`.
    """
    titles: dict[tuple[ViewConfig, str], list[str]] = {}
    for name, wanted in task.pretext.views.items():
        view = wanted.view.model_copy(update={"streams": ("joint",)})
        titles.setdefault((view, wanted.draw), []).append(f"{name}: {' + '.join(wanted.view.streams)}")
    views = {"not augmented": make_view(task.packed, index, task.sampling, ViewConfig(), None)}
    for (view, draw), names in titles.items():
        views[", ".join(names)] = _positions(task, index, view, (task.name, "picture", epoch, draw))
    return views


def _positions(task: Task, index: Tensor, view: ViewConfig, purpose: tuple[str | int, ...]) -> Clips:
    """A view of positions, of which those that are masked are not seen."""

    def made(**changes: float) -> Clips:
        changed = view.model_copy(update={"augment": view.augment.model_copy(update=changes)})
        draws = Draws(generator(task.seed, *purpose), len(index))
        return make_view(task.packed, index, task.sampling, changed, draws)

    masked, whole = made(), made(mask_joints=0.0, mask_frames=0.0)  # masks are drawn last
    kept = (masked.x == whole.x).all(dim=1, keepdim=True)
    return replace(whole, mask=whole.seen & kept)


def _frames(length: int) -> list[int]:
    """A few frames, evenly over a clip."""
    frames: list[int] = np.linspace(0, length - 1, min(_POSES, length)).round().astype(int).tolist()
    return frames


def _pose(clips: Clips, row: int, frame: int, axes: list[int], flip: tuple[float, float]) -> Pose:
    """What a clip shows in a frame."""
    xy_vcm = clips.x[row, axes, frame].permute(1, 0, 2).double().cpu().numpy()
    there_vm = clips.seen[row, 0, frame].expand(len(xy_vcm), -1).cpu().numpy()
    return [(xy_vcm[..., body] * flip, there_vm[:, body]) for body in range(xy_vcm.shape[2])]
