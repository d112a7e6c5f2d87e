"""Poses, recordings, stores and damage, for all tests."""

import json
import os
import re
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor

from ssl_skeleton.data.clips import Clips, frame_mask
from ssl_skeleton.data.recording import METRES, Facts, Recording, Track
from ssl_skeleton.data.splits import SplitRule
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.data.views.augment import rotation_matrix
from ssl_skeleton.data.writing import new_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout, load_layout

LAYOUT = load_layout("kinect_v1_20")
CLASSES = ("wave", "kick", "sit")
SPLITS = {
    "cross_view": SplitRule(column="camera", train=(1, 2), test=(3,)),
    "held_out": SplitRule(column="subject", train=(1,), validation=(3,), test=(2, 4)),
}
FACTS = Facts("made_up", LAYOUT, 30.0, CLASSES, splits=SPLITS)
seeds = st.integers(0, 2**31 - 1)


def examples(usual: int) -> int:
    """How many examples a property is tried with: twenty times as many in deep mode (`--deep`)."""
    return usual * 20 if os.environ.get("SSL_SKELETON_DEEP") else usual


@st.composite
def tracks(draw: st.DrawFn, frames: int, channels: int = len(METRES)) -> Track:
    """One body in a clip of so many frames: comes late, leaves early, is not seen in between."""
    first = draw(st.integers(0, frames - 1))
    seen = draw(st.lists(st.booleans(), min_size=1, max_size=frames - first))
    rng = np.random.default_rng(draw(seeds))
    x_tvc = rng.normal(size=(len(seen), len(LAYOUT.joints), channels)).astype(np.float32)
    x_tvc[~np.array(seen)] = 0
    return Track(first, x_tvc)


@st.composite
def recordings(draw: st.DrawFn, most_clips: int = 4, channels: int = len(METRES)) -> list[Recording]:
    """A few clips of up to eight frames and three bodies, with any names and facts."""
    text = st.text(st.characters(exclude_categories=["C"]), max_size=8) | st.sampled_from(
        ['a,"b"', "é\u20ac"]
    )
    names = draw(st.lists(text, min_size=1, max_size=most_clips, unique=True))
    facts = st.fixed_dictionaries(
        {"label": st.integers(-1, len(CLASSES) - 1)}
        | {fact: st.integers(-1, 999) for fact in ("subject", "camera", "setup", "repetition")}
    )
    clips = []
    for name in names:
        frames = draw(st.integers(1, 8))
        bodies = draw(st.lists(tracks(frames, channels), min_size=1, max_size=3))
        clips.append(Recording(name, frames, bodies, **draw(facts)))
    return clips


def without_joints(clips: list[Recording], seed: int, share: float = 0.3) -> list[Recording]:
    """The clips with some joints of some frames missing."""
    rng = np.random.default_rng(seed)
    for track in (track for clip in clips for track in clip.tracks):
        track.x_tvc[rng.random(track.x_tvc.shape[:2]) < share] = 0
    return clips


def write_store(
    out: Path,
    clips: Sequence[Recording],
    bodies: int = 3,
    *,
    facts: Facts = FACTS,
    overwrite: bool = False,
) -> None:
    """Write the clips as a store at `out`."""
    with new_store(out, facts, bodies=bodies, overwrite=overwrite) as writer:
        for clip in clips:
            writer.add(clip)
        writer.finish("nowhere")


@contextmanager
def stored(clips: Sequence[Recording], bodies: int = 3) -> Iterator[Store]:
    """The clips as an open store that vanishes with the block."""
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder) / "store", clips, bodies)
        yield open_store(Path(folder) / "store")


def standing(layout: Layout, people: int, seed: int) -> Tensor:
    """Poses (N, 3, V) that look along -z, upright, the root at the origin; other joints lie anywhere."""
    pose_ncv = 0.3 * torch.randn(people, 3, len(layout.joints), generator=torch.Generator().manual_seed(seed))
    facing = layout.facing
    places = {
        facing.left_hip: (-0.15, 0.0, 0.0),
        facing.right_hip: (0.15, 0.0, 0.0),
        facing.left_shoulder: (-0.2, 0.5, 0.0),
        facing.right_shoulder: (0.2, 0.5, 0.0),
        facing.upper_spine: (0.0, 0.5, 0.0),
        facing.lower_spine: (0.0, 0.0, 0.0),
        layout.root: (0.0, 0.0, 0.0),
    }
    for joint, place in places.items():
        pose_ncv[:, :, layout.index(joint)] = torch.tensor(place)
    return pose_ncv


def upright() -> Tensor:
    """Somebody as `standing`, (3, V), whose other joints lie at their parents."""
    pose_cv = standing(LAYOUT, 1, seed=0)[0]
    named = {LAYOUT.root, *LAYOUT.facing.to_tree().values()}
    for _ in LAYOUT.joints:
        for joint in set(LAYOUT.joints) - named:
            pose_cv[:, LAYOUT.index(joint)] = pose_cv[:, LAYOUT.index(LAYOUT.bones[joint])]
    return pose_cv


def moving(layout: Layout = LAYOUT, clips: int = 3, frames: int = 6, bodies: int = 2, seed: int = 0) -> Clips:
    """Clips of bodies that begin as `standing` somewhere, turned about any axis, and then move.

    The first body of every clip is seen in the first frame; others come and go. Lengths are 2 to `frames`.
    """
    generator = torch.Generator().manual_seed(seed)
    pose_ncv = standing(layout, clips * bodies, seed)
    turned = rotation_matrix(6 * torch.rand(len(pose_ncv), 3, generator=generator)) @ pose_ncv
    place = 2 * torch.rand(len(pose_ncv), 3, 1, generator=generator) + 1
    start = (turned + place).reshape(clips, bodies, 3, -1).permute(0, 2, 3, 1)
    step = 0.05 * torch.randn(clips, 3, frames, len(layout.joints), bodies, generator=generator)
    step[:, :, 0] = 0
    x_nctvm = start[:, :, None] + step.cumsum(2)
    lengths = torch.randint(2, frames + 1, (clips,), generator=generator)
    seen_ntm = torch.rand(clips, frames, bodies, generator=generator) < 0.7
    seen_ntm[:, 0, 0] = True
    seen_ntm &= frame_mask(lengths, frames)[:, :, None]
    x_nctvm = x_nctvm * seen_ntm[:, None, :, None, :]
    return Clips(x_nctvm, lengths, torch.arange(clips), torch.zeros(clips, dtype=torch.int64))


_PIECES = (
    b"nan",
    b"-inf",
    b"1e999",
    b"99999999999",
    b"100000000",
    b"4294967297",
    b"9" * 5000,
    b"-1",
    b"-99999999999",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
    b"\xff\xfe",
    b"\0",
    b"\n",
    b"\r",
    b",",
    b"[" * 3000,
    b"]",
    b'"',
    b"{}",
    b" ",
    b"\t",
    b"x",
    b"1_0",
    b"",
)


# In place of a number: more than there are bytes or memory, less than none, none at all.
NUMBERS = (
    *(b"0", b"1", b"-1", b"-2147483649", b"1000000000", b"2147483648", b"99999999999", b"9" * 400),
    *(b"nan", b"inf", b"-inf", b"1e30", b"1e999", b"1_0", b"0x1f", b""),
)


def _other_number(data: bytearray, place: int, number: bytes) -> bytearray:
    """`data` with the first number after `place` replaced; without one, it is put in."""
    found = re.compile(rb"-?\d[\d.]*").search(data, place)
    if found is None:
        return data[:place] + number + data[place:]
    return data[: found.start()] + number + data[found.end() :]


@st.composite
def damages(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` after one to three mishaps.

    Cut out, cut off, a flipped byte, swapped or doubled lines, a foreign piece, another number.
    """
    hurt = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(hurt)))
        kind = draw(st.sampled_from(("cut", "tail", "flip", "swap", "double", "piece", "number")))
        if kind == "flip" and place < len(hurt):
            hurt[place] ^= draw(st.integers(1, 255))
        elif kind == "tail":
            del hurt[place:]
        elif kind == "number":
            hurt = _other_number(hurt, place, draw(st.sampled_from(NUMBERS)))
        elif kind == "double":
            end = hurt.find(b"\n", place) + 1
            hurt[end:end] = hurt[place:end]
        elif kind == "swap":
            lines = hurt.split(b"\n")
            one, two = draw(st.tuples(*[st.integers(0, len(lines) - 1)] * 2))
            lines[one], lines[two] = lines[two], lines[one]
            hurt = bytearray(b"\n").join(lines)
        else:
            piece = b"" if kind == "cut" else draw(st.sampled_from(_PIECES))
            hurt[place : place + draw(st.integers(0, 5) | st.integers(1, 400))] = piece
    return bytes(hurt)


def one_line(error: BaseException) -> str:
    """The message of an error, which must be a single line that says something."""
    message = str(error)
    assert message.strip()
    assert len(message.splitlines()) == 1
    return message


def refusal_of(read: Callable[[Path], object], folder: Path, most: float) -> str:
    """The one line with which `read` refuses a folder, for which at no time `most` bytes are taken."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            read(folder)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    message = one_line(caught.value)
    assert message.startswith(str(folder))
    return message


def change_meta(folder: Path, **changes: object) -> None:
    """Let the meta.json of a folder say something else."""
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps(meta | changes))
