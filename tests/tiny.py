"""Tiny stores, clips, recipes and pretexts, so that a test trains in a blink."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from examples import facts_of
from torch import Tensor

from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import METRES, Recording, Track
from ssl_skeleton.data.store import open_store
from ssl_skeleton.data.views.view import SamplingConfig
from ssl_skeleton.data.writing import new_store
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.pretext.base import PoseShape, Pretext, Teacher
from ssl_skeleton.recipe import Recipe, StageConfig
from ssl_skeleton.runs.run import Run
from ssl_skeleton.skeleton.layout import Layout, load_layout
from ssl_skeleton.training.checkpoint import Checkpoint
from ssl_skeleton.training.task import Task

CLASSES, CAMERAS, REPETITIONS = 3, 3, 3
CLIPS = CLASSES * CAMERAS * REPETITIONS
ENCODER = GRUConfig(hidden=8, layers=2, input_norm="batch")

_SEEN = {"streams": ["joint"], "augment": {"crop": 0.5, "rotate": [10, 30, 10], "noise": 0.01}}
_RECONSTRUCT = {"name": "sequence_reconstructor", "layers": 1, "hidden": 8}
_CONTRAST = {"name": "contrastive_motion", "hidden": 8, "outputs": 4, "queue": 10, "momentum": 0.9}
_PREDICT = {"name": "latent_reconstructor", "hidden": 8, "momentum": 0.9}
_JOINT = {"name": "joint", "parts": [_RECONSTRUCT, _CONTRAST], "weights": [1.0, 0.5]}
_FUSE = {"name": "information_fuser", "teacher": "teacher", "hidden": 8}
PRETEXTS: dict[str, dict[str, Any]] = {
    "reconstruct": {"name": "sequence_reconstructor", "input": _SEEN},
    "reconstruct_two_streams": {**_RECONSTRUCT, "input": {"streams": ["joint", "motion"]}},
    "contrast": {**_CONTRAST, "input": _SEEN, "key": _SEEN},
    "contrast_frozen_head": {**_CONTRAST, "key_head": "frozen", "pooling": "mean_max"},
    "contrast_in_batch": {**_CONTRAST, "in_batch": True, "queue": 0, "input": _SEEN},
    "contrast_without_twin": {
        **_CONTRAST,
        "momentum": None,
        "symmetric": True,
        "in_batch": True,
        "input": _SEEN,
        "key": _SEEN,
    },
    "contrast_decoded": {
        **_CONTRAST,
        "decoder": {"layers": 1, "hidden": 5},
        "symmetric": True,
        "in_batch": True,
        "positives": 2,
        "positives_after": 1,
    },
    "predict": {**_PREDICT, "symmetric": True, "pooling": "mean_max", "input": _SEEN},
    "joint": {**_JOINT, "input": _SEEN},
    "fuse": {**_FUSE, "student": _RECONSTRUCT, "input": _SEEN},
    "fuse_contrast": {**_FUSE, "student": _CONTRAST, "pooling": "max"},
    "fuse_joint": {**_FUSE, "student": _JOINT},
}


def listed(annotation: Any) -> tuple[type, ...]:
    """The classes of a possibly annotated union, such as AnyPretext."""
    if isinstance(annotation, type):
        return (annotation,)
    return tuple(found for part in get_args(annotation) for found in listed(part))


def random_clips(
    layout: Layout, lengths: Sequence[int], *, channels: int = 3, bodies: int = 1, seed: int = 0
) -> Clips:
    """Clips of noise, zero past their lengths."""
    frames, clips = max(lengths), len(lengths)
    source = torch.Generator().manual_seed(seed)
    x_nctvm = torch.randn(clips, channels, frames, len(layout.joints), bodies, generator=source)
    valid = frame_mask(torch.tensor(lengths), frames)[:, None, :, None, None]
    return Clips(x_nctvm * valid, torch.tensor(lengths), torch.arange(clips), torch.zeros(clips).long())


def assert_is_textbook(
    encoder: Encoder, textbook: Callable[[Encoder, Tensor], Tensor], layout: Layout
) -> None:
    """A graph encoder in float64, and the textbook form of it, have the same steps and the same gradients.

    The strides of the encoder make four.
    """
    clips = random_clips(layout, [13, 13], bodies=2)
    x_nctvm = clips.x.double().requires_grad_()
    found, expected = encoder(x_nctvm, clips.lengths)[:, ::4], textbook(encoder, x_nctvm)
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, [x_nctvm, *encoder.parameters()])


def assert_same_gradients(found: Tensor, expected: Tensor, wanted: Sequence[Tensor]) -> None:
    """A random weighted sum of either has the same gradients of what is wanted."""
    weights = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), wanted),
        torch.autograd.grad((expected * weights).sum(), wanted),
    )


def motion(rng: np.random.Generator, label: int, frames: int, joints: int) -> np.ndarray:
    """A body (T, V, 3) whose joints swing the faster, the greater its label."""
    phase = np.arange(frames)[:, None, None] * (0.3 + 0.5 * label)
    still = np.linspace(-1, 1, joints)[:, None] * [0.3, 1.0, 0.1] + [0.0, 0.0, 3.0]
    swing = 0.3 * np.sin(phase + np.arange(joints)[:, None])
    return (still + swing + rng.normal(scale=0.02, size=(frames, joints, 3))).astype(np.float32)


def tiny_store(
    out: Path,
    dataset: str = "nw_ucla",
    *,
    layout: str | None = None,
    bodies: int = 1,
    labelled: bool = True,
    coordinates: tuple[str, ...] = METRES,
) -> Path:
    """A store of every class, camera and repetition; clips have 4 to 9 frames."""
    known, rng = facts_of(dataset), np.random.default_rng(0)
    body = load_layout(layout) if layout else known.layout
    facts = replace(known, layout=body, classes=("still", "slow", "fast"), coordinates=coordinates)
    with new_store(out, facts) as writer:
        for clip, (label, camera, repetition) in enumerate(np.ndindex(CLASSES, CAMERAS, REPETITIONS)):
            frames = 4 + clip % 6
            tracks = [Track(0, motion(rng, label, frames, len(body.joints))) for _ in range(bodies)]
            place = {"subject": repetition + 1, "camera": camera + 1, "setup": camera + 1}
            told = label if labelled else -1
            writer.add(Recording(f"clip{clip:02}", frames, tracks, label=told, **place))
        writer.finish("made up")
    return out


def write_recordings(folder: Path) -> Path:
    """The same motions as files in the format of NW-UCLA."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for label, camera, repetition in np.ndindex(CLASSES, CAMERAS, REPETITIONS):
        name = f"a{label + 1:02}_s01_e{repetition:02}_v{camera + 1:02}"
        x_tvc = motion(rng, label, 4 + repetition, 20)
        (folder / f"{name}.json").write_text(json.dumps({"file_name": name, "skeletons": x_tvc.tolist()}))
    return folder


def stage_tree(name: str, pretext: dict[str, Any], epochs: int = 4) -> dict[str, Any]:
    """A stage that trains fast."""
    optimiser = {"name": "sgd", "lr": 0.01}
    return {
        "name": name,
        "pretext": pretext,
        "training": {
            "epochs": epochs,
            "batch": 4,
            "optimiser": optimiser,
            "schedule": {"name": "cosine", "warmup": 1},
        },
    }


def recipe_tree(store: Path, pretext: str = "contrast", epochs: int = 4) -> dict[str, Any]:
    """A recipe of one pretext, after the teacher that it may need."""
    stages = [stage_tree("main", PRETEXTS[pretext], epochs)]
    if "teacher" in PRETEXTS[pretext]:
        stages.insert(0, stage_tree("teacher", PRETEXTS["contrast"], 1))
    return {
        "name": pretext,
        "device": "cpu",
        "data": {"store": str(store), "split": "cross_view", "frames": 6},
        "encoder": ENCODER.to_tree(),
        "stages": stages,
        "evaluation": {"linear": {"epochs": 5}, "knn": {"k": [1, 3]}},
    }


def tiny_recipe(store: Path, pretext: str = "contrast", epochs: int = 4, **changes: Any) -> Recipe:
    """That tree as a recipe."""
    return Recipe.from_tree(recipe_tree(store, pretext, epochs) | changes, "recipe")


def house_of_two_bodies(house: Path, one: str, other: str) -> Path:
    """Stores `one` of 20 and `other` of 25 joints, and in `run` a run that learned from the first."""
    tiny_store(house / one)
    tiny_store(house / other, layout="kinect_v2_25")
    Run.start(tiny_recipe(house / one, epochs=1), house / "run").pretrain()
    return house


def unevaluated(folder: Path, copy: Path) -> Path:
    """A copy of a run's folder as if it had never been evaluated."""
    return Path(shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("eval")))


def put_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Let a checkpoint take the place of another one, of which other names stay what they are."""
    path.unlink()
    torch.save(vars(checkpoint), path)


def pretext_task(
    pretext: str, store: Path, *, bodies: int = 1, frames: int | None = 6, seed: int = 0
) -> Task:
    """A pretext with random weights of `seed`, on the clips of `store`."""
    config = StageConfig.from_tree(stage_tree("main", PRETEXTS[pretext]), "stage").pretext
    packed = PackedClips(open_store(store), bodies)
    shape = PoseShape(len(packed.layout.joints), packed.coordinates, bodies)
    torch.manual_seed(seed)
    teacher = Teacher(
        ENCODER.build(packed.layout, 3, bodies), config.input.model_copy(update={"streams": ("motion",)})
    )
    encoder = ENCODER.build(packed.layout, 3 * len(config.input.streams), bodies)
    built = config.build(encoder, shape, {"teacher": teacher})
    return Task("main", built, packed, [torch.arange(CLIPS)], SamplingConfig(frames=frames, bodies=bodies), 0)


def sgd_step(pretext: Pretext, views: dict[str, Clips], rate: float = 0.01) -> dict[str, Tensor]:
    """One step of plain gradient descent; returns the losses before it."""
    optimiser = torch.optim.SGD((p for p in pretext.parameters() if p.requires_grad), lr=rate)
    parts = pretext(views)
    optimiser.zero_grad()
    parts["loss"].backward()
    optimiser.step()
    return parts


def same(one: Any, other: Any) -> bool:
    """Whether two trees of tensors and plain values are equal to the last bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)
