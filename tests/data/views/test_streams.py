import itertools

import pytest
import torch
from builders import LAYOUT, moving, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssl_skeleton.data.clips import Clips, body_mask
from ssl_skeleton.data.views.streams import streams

NAMES = ("joint", "bone", "motion", "bone_motion")


def plain_bone(clips: Clips) -> Tensor:
    bone = torch.zeros_like(clips.x)
    for child, parent in LAYOUT.bones.items():
        one, two = LAYOUT.index(child), LAYOUT.index(parent)
        bone[:, :, :, one] = clips.x[:, :, :, one] - clips.x[:, :, :, two]
    return bone


def plain_motion(clips: Clips, x_nctvm: Tensor) -> Tensor:
    motion, seen = torch.zeros_like(x_nctvm), body_mask(clips.x)[:, 0, :, 0]
    for n, length in enumerate(clips.lengths.tolist()):
        for t, m in itertools.product(range(length - 1), range(x_nctvm.shape[4])):
            if seen[n, t, m] and seen[n, t + 1, m]:
                motion[n, :, t, :, m] = x_nctvm[n, :, t + 1, :, m] - x_nctvm[n, :, t, :, m]
    return motion


@given(seeds, st.integers(2, 9), st.integers(1, 3), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_streams_are_those_of_plain_loops(seed, frames, bodies, names):
    clips = moving(frames=frames, bodies=bodies, seed=seed)
    bone = plain_bone(clips)
    plain = {"joint": clips.x, "bone": bone}
    plain |= {"motion": plain_motion(clips, clips.x), "bone_motion": plain_motion(clips, bone)}
    found = streams(clips, LAYOUT, names)
    assert torch.equal(found.x, torch.cat([plain[name] for name in names], dim=1))
    assert torch.equal(found.lengths, clips.lengths)


@given(seeds, st.integers(2, 3), st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_a_confidence_is_in_every_stream_as_it_is(seed, space, names):
    clips = moving(seed=seed)
    sure = torch.rand(clips.x[:, :1].shape) * body_mask(clips.x)
    found = streams(clips.with_x(torch.cat([clips.x[:, :space], sure], 1)), LAYOUT, names, space)
    for name, part in zip(names, found.x.split(space + 1, dim=1), strict=True):
        plain = streams(clips, LAYOUT, [name]).x[:, :space]
        assert torch.equal(part, torch.cat([plain, sure], dim=1))


def test_a_body_at_the_origin_is_seen_by_its_confidence():
    x_nctvm = torch.zeros(1, 4, 3, len(LAYOUT.joints), 1)
    x_nctvm[:, 3] = 0.5
    x_nctvm[:, :3, 1] = 2.0
    clips = Clips(x_nctvm, torch.tensor([3]), torch.tensor([0]), torch.tensor([0]))
    step = streams(clips, LAYOUT, ["motion"]).x[:, :3]
    assert torch.equal(step[:, :, 0], torch.full_like(step[:, :, 0], 2.0))
    assert torch.equal(step[:, :, 1], torch.full_like(step[:, :, 0], -2.0))


@pytest.mark.parametrize("name", ["motion", "bone_motion"])
def test_what_lies_past_the_end_does_not_move_the_last_frame(name):
    clips = moving(frames=6)
    filled = clips.with_x(clips.x.clone())
    for n, length in enumerate(clips.lengths.tolist()):
        filled.x[n, :, length:] = 7.0
    found = streams(filled, LAYOUT, [name]).x
    assert torch.equal(found, streams(clips, LAYOUT, [name]).x)


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_of_one_frame_has_no_motion(name):
    clips = moving(frames=6)
    single = Clips(clips.x[:, :, :1], torch.ones_like(clips.lengths), clips.index, clips.label)
    found = streams(single, LAYOUT, [name]).x
    assert found.shape == single.x.shape
    assert bool(found.any()) is (name in ("joint", "bone"))
