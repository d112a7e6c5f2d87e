from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import FACTS, LAYOUT, examples, recordings, stored, upright, write_store
from hypothesis import given, settings
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import IMAGE, Recording, Track
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.data.views.augment import AugmentConfig
from ssl_skeleton.data.views.draws import Draws
from ssl_skeleton.data.views.normalise import NormaliseConfig
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.figures.page import LEFT, RIGHT
from ssl_skeleton.figures.views import draw_views, shown_views
from ssl_skeleton.pretext.base import WantedView
from ssl_skeleton.training.seeds import generator
from ssl_skeleton.training.task import Task

PLAIN = SamplingConfig(frames=6, bodies=2, normalise=NormaliseConfig(center="none", facing="none"))
STRONG = AugmentConfig(crop=0.5, rotate=(20.0, 40.0, 20.0), noise=0.01, mask_joints=0.4, mask_frames=0.2)


def task_of(
    stores: Store | Sequence[Store], views: dict[str, WantedView], sampling: SamplingConfig = PLAIN
) -> Task:
    packed = PackedClips(stores, sampling.bodies, order=sampling.order)
    every = torch.arange(len(packed.lengths))
    return Task("main", SimpleNamespace(views=views), packed, [every], sampling, seed=3)


def person() -> np.ndarray:
    """Somebody upright who looks at the camera, (4, V, 3), and leans on a little in every frame."""
    pose_vc = upright().numpy().T.copy()
    pose_vc[LAYOUT.index("spine")] = (0, 0.25, 0)
    steps = np.linspace(0, 0.05, 4)[:, None, None] * pose_vc[:, 1:2] * [0, 0, 1]
    return (pose_vc + steps + np.array([1, 2, 3])).astype(np.float32)


def store_of(folder: Path, *bodies: np.ndarray, facts=FACTS) -> Store:
    tracks = [Track(0, x_tvc) for x_tvc in bodies]
    write_store(folder / "store", [Recording("one", len(bodies[0]), tracks)], facts=facts)
    return open_store(folder / "store")


def pixels(figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def places(image: np.ndarray, colour: str) -> np.ndarray:
    """Where the pixels of that colour are below the titles: (P, 2) as (across, down) in pixels."""
    found = np.argwhere(np.abs(image - to_rgb(colour)).max(axis=2) < 0.02)
    return found[found[:, 0] > image.shape[0] * 0.75 / 1.75][:, ::-1]


def test_views_of_the_same_positions_share_a_title(tmp_path):
    seen = ViewConfig(augment=STRONG)
    motion = seen.model_copy(update={"streams": ("motion", "bone")})
    task = task_of(
        store_of(tmp_path, person()),
        {
            "input": WantedView(seen, "input"),
            "key": WantedView(motion, "key"),
            "teacher": WantedView(motion, "input"),
            "other": WantedView(ViewConfig(), "input"),
        },
    )
    titles = ["not augmented", "input: joint, teacher: motion + bone", "key: motion + bone", "other: joint"]
    assert list(shown_views(task, torch.tensor([0]), 1)) == titles


@given(recordings())
@settings(max_examples=examples(8), deadline=None)
def test_what_is_shown_is_what_the_view_is_made_of(clips):
    view = ViewConfig(streams=("bone",), augment=STRONG)
    positions = ViewConfig(augment=STRONG)
    with stored(clips) as store:
        task = task_of(store, {"input": WantedView(view, "input")})
        index = torch.arange(len(store))
        recorded, found = shown_views(task, index, 7).values()
        draws = Draws(generator(3, "main", "picture", 7, "input"), len(index))
        wanted = make_view(task.packed, index, PLAIN, positions, draws)
    assert torch.equal(found.x * found.seen, wanted.x)
    assert not (found.seen & ~wanted.seen).any()
    assert torch.equal(recorded.x, make_view(task.packed, index, PLAIN, ViewConfig(), None).x)


def test_a_joint_at_the_origin_is_not_taken_for_a_masked_one(tmp_path):
    sampling = replaced(PLAIN, normalise=NormaliseConfig(center="each_frame", facing="none"))
    wanted = {"input": WantedView(ViewConfig(augment=AugmentConfig(mask_joints=0.5)), "input")}
    task = task_of(store_of(tmp_path, person()), wanted, sampling)
    masks = [shown_views(task, torch.tensor([0]), epoch)["input: joint"].seen for epoch in range(60)]
    shown = torch.stack([mask.expand(1, 1, 6, len(LAYOUT.joints), 2)[0, 0, 0, :, 0] for mask in masks])
    root = LAYOUT.index(LAYOUT.root)
    others = [joint for joint in range(len(LAYOUT.joints)) if joint != root]
    assert shown[:, root].all()  # it is at zero, whether it is masked or not
    assert shown[:, others].float().mean().item() == pytest.approx(0.5, abs=0.05)


def replaced(sampling: SamplingConfig, **changes) -> SamplingConfig:
    return sampling.model_copy(update=changes)


@pytest.mark.parametrize("kind", ["metres", "image", "agcn"])
def test_people_stand_upright_and_face_the_camera(kind, tmp_path):
    x_tvc, facts, sampling = person(), FACTS, PLAIN
    if kind == "image":  # where x grows to the right
        x_tvc[:, :, 0] *= -1
        x_tvc[:, :, 2] = 0.5
        facts = replace(FACTS, coordinates=IMAGE)
    if kind == "agcn":
        sampling = replaced(PLAIN, normalise="agcn")
    turned = ViewConfig(augment=AugmentConfig(rotate=(0.0, 0.0, 5.0)))
    views = {"input": WantedView(ViewConfig(), "input"), "key": WantedView(turned, "key")}
    task = task_of(store_of(tmp_path, x_tvc, facts=facts), views, sampling)
    image = pixels(draw_views(task, torch.tensor([0]), 1))
    left, right = places(image, LEFT), places(image, RIGHT)
    cell = image.shape[1] / (2.2 + 3 * 4 + 2 * 0.4)
    for number in range(12):
        corner = (2.2 + number + 0.4 * (number // 4)) * cell
        one, other = (part[(part[:, 0] > corner) & (part[:, 0] < corner + cell)] for part in (left, right))
        assert min(len(one), len(other)) > 30
        assert other[:, 0].mean() < one[:, 0].mean()  # the camera sees the right side on its left
        both = np.concatenate([one, other])
        assert np.ptp(both[:, 1]) > 1.1 * np.ptp(both[:, 0])  # 0.5 from hips to shoulders, which are 0.4 wide


@given(recordings())
@settings(max_examples=examples(4), deadline=None)
def test_any_clips_can_be_drawn_at_their_own_lengths(clips):
    views = {"input": WantedView(ViewConfig(augment=STRONG), "input")}
    with stored(clips) as store:
        for frames in (None, 6):
            task = task_of(store, views, replaced(PLAIN, frames=frames))
            image = pixels(draw_views(task, torch.arange(len(store)), 1))
            assert image.shape[0] == pytest.approx((len(store) + 0.75) * 0.9 * 150, abs=1)
