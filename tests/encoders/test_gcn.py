import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_clips

from ssl_skeleton.encoders.agcn import AGCNConfig
from ssl_skeleton.encoders.blocks.mask import strided
from ssl_skeleton.encoders.gcn import BlockSize, Stage
from ssl_skeleton.encoders.st_gcn import STGCNConfig
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")
CONFIGS = (STGCNConfig(width=0.125, depth=0.25, dropout=0.0), AGCNConfig(width=0.125, depth=0.25))
every_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
STAGES = (Stage(64, 4, 1), Stage(128, 3, 2))


def encoders(config, count=2):
    """The same encoder several times."""
    built = []
    for _ in range(count):
        torch.manual_seed(0)
        built.append(config.build(LAYOUT, 3, 2))
    return built


def assert_same_state(one, other):
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, msg=name)


def test_block_sizes_as_published():
    small, last = BlockSize(64, 64, 1), BlockSize(128, 128, 1)
    expected = [BlockSize(3, 64, 1), small, small, small, BlockSize(64, 128, 2), last, last]
    assert list(STGCNConfig().block_sizes(3, STAGES)) == expected


def test_width_and_depth():
    narrow = STGCNConfig(width=0.25, depth=0.5)
    sizes = [BlockSize(6, 16, 1), BlockSize(16, 16, 1), BlockSize(16, 32, 2), BlockSize(32, 32, 1)]
    assert list(narrow.block_sizes(6, STAGES)) == sizes
    least = STGCNConfig(width=0.001, depth=0.001)
    assert list(least.block_sizes(6, STAGES)) == [BlockSize(6, 4, 1), BlockSize(4, 4, 2)]
    assert {config.channels(64) % 4 for config in (STGCNConfig(width=w / 10) for w in range(1, 30))} == {0}


@every_config
@pytest.mark.parametrize("training", [False, True])
def test_bodies_that_are_absent_are_as_if_not_there(config, training):
    clips = random_clips(LAYOUT, [7, 7, 7], bodies=2)
    present = torch.tensor([[True, True], [True, False], [False, True]])
    x_nctvm = clips.x * present[:, None, None, None, :]
    one, other = (encoder.train(training) for encoder in encoders(config))
    alone_kctv = x_nctvm.permute(0, 4, 1, 2, 3)[present]
    alone_ktd = other(alone_kctv[..., None], torch.full((4,), 7))
    expected = torch.stack([alone_ktd[:2].mean(dim=0), alone_ktd[2], alone_ktd[3]])
    torch.testing.assert_close(one(x_nctvm, clips.lengths), expected, atol=1e-5, rtol=1e-4)
    assert_same_state(one, other)


@every_config
def test_absent_bodies_count_as_zeros_where_that_is_wished(config):
    clips = random_clips(LAYOUT, [7, 7], bodies=2)
    x_nctvm = clips.x.clone()
    x_nctvm[0, ..., 1] = 0
    counting, other = encoders(config.model_copy(update={"absent_bodies": "count"}))
    bodies_kctv = x_nctvm.permute(0, 4, 1, 2, 3).flatten(0, 1)
    expected = other(bodies_kctv[..., None] + 1e-30, torch.full((4,), 7))  # as good as zero, but there
    found = counting(x_nctvm, clips.lengths)
    torch.testing.assert_close(found, expected.unflatten(0, (2, 2)).mean(dim=1), atol=1e-5, rtol=1e-4)


@every_config
def test_a_clip_without_anybody_gives_features(config):
    (encoder,) = encoders(config, 1)
    assert encoder(torch.zeros(2, 3, 5, 25, 2), torch.tensor([5, 3])).isfinite().all()


@every_config
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=2, max_size=3), more=st.integers(1, 5))
def test_padding_changes_nothing_in_training(config, lengths, more):
    clips = random_clips(LAYOUT, lengths, bodies=2)
    clips.x[0, ..., 1] = 0  # an absent body does not appear in the padding
    padded_nctvm = torch.cat([clips.x, torch.ones(len(lengths), 3, more, 25, 2)], dim=2)
    one, other = encoders(config)
    expected = one(clips.x, clips.lengths)
    found = other(padded_nctvm, clips.lengths)
    for clip, length in enumerate(lengths):
        torch.testing.assert_close(found[clip, :length], expected[clip, :length], atol=1e-4, rtol=1e-3)
    assert_same_state(one, other)


@every_config
def test_a_step_stands_for_the_frames_of_its_stride(config):
    (encoder,) = encoders(config, 1)
    features_ntd = encoder.eval()(random_clips(LAYOUT, [10], bodies=2).x, torch.tensor([10]))
    steps_ntd = features_ntd[:, ::4]
    assert torch.equal(features_ntd, steps_ntd.repeat_interleave(4, dim=1)[:, :10])
    assert not torch.equal(steps_ntd[:, 0], steps_ntd[:, 1])


@given(frames=st.integers(1, 20), stride=st.integers(1, 4), data=st.data())
def test_a_step_is_valid_when_its_first_frame_is(frames, stride, data):
    length = data.draw(st.integers(1, frames))
    mask_kt = (torch.arange(frames) < length)[None]
    found = strided(mask_kt, stride)
    assert found.shape == (1, -(-frames // stride))
    assert found.sum() == -(-length // stride)
    assert strided(None, stride) is None


@every_config
def test_it_computes_in_bfloat16_where_autocast_asks(config):
    one, other = encoders(config)
    clips = random_clips(LAYOUT, [9, 6], bodies=2)
    exact = one(clips.x, clips.lengths)
    with torch.autocast("cpu", torch.bfloat16):
        found = other(clips.x, clips.lengths)
    assert found.dtype == torch.bfloat16
    error = (found.float() - exact).norm() / exact.norm()
    assert 0 < error < 0.05
