import pytest
import torch
from tiny import random_clips
from torch import nn

from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v1_20")


def frame_vectors(x_ctvm) -> list[list[float]]:
    """The V * C * M numbers of every frame, by loops."""
    channels, frames, joints, bodies = x_ctvm.shape
    return [
        [float(x_ctvm[c, t, v, m]) for v in range(joints) for c in range(channels) for m in range(bodies)]
        for t in range(frames)
    ]


@pytest.mark.parametrize(("bidirectional", "dim"), [(True, 16), (False, 8)])
def test_it_is_torch_s_gru_over_the_frames(bidirectional, dim):
    encoder = GRUConfig(hidden=8, bidirectional=bidirectional).build(LAYOUT, 3, 2).eval()
    clips = random_clips(LAYOUT, [3, 5], bodies=2)
    features_ntd = encoder(clips.x, clips.lengths)
    assert encoder.dim == dim
    for clip, length in enumerate([3, 5]):
        frames = torch.tensor(frame_vectors(clips.x[clip, :, :length]))
        torch.testing.assert_close(features_ntd[clip, :length], encoder.gru(frames)[0])
    assert not features_ntd[0, 3:].any()


def test_the_input_norm_learns_from_valid_frames_alone():
    encoder = GRUConfig(hidden=8, input_norm="batch").build(LAYOUT, 3, 1).train()
    clips = random_clips(LAYOUT, [2, 6, 3])
    encoder(clips.x * 3 + 2, clips.lengths)  # shifted: the padding is no longer zero
    rows = [
        row for clip in range(3) for row in frame_vectors(clips.x[clip, :, : clips.lengths[clip]] * 3 + 2)
    ]
    seen = torch.tensor(rows, dtype=torch.float64)
    expected_mean = 0.1 * seen.mean(dim=0)
    expected_variance = 0.9 + 0.1 * seen.var(dim=0)
    torch.testing.assert_close(encoder.norm.running_mean.double(), expected_mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.norm.running_var.double(), expected_variance, atol=1e-5, rtol=1e-5)


def test_the_input_norm_takes_scale_and_shift_out():
    encoder = GRUConfig(hidden=8, dropout=0.0, input_norm="batch").build(LAYOUT, 3, 1).train()
    clips = random_clips(LAYOUT, [4, 6])
    plain = encoder(clips.x, clips.lengths)
    torch.testing.assert_close(encoder(100 * clips.x - 7, clips.lengths), plain, atol=1e-4, rtol=1e-3)


def test_dropout_is_for_training_only():
    encoder = GRUConfig(hidden=8, dropout=0.5).build(LAYOUT, 3, 1)
    clips = random_clips(LAYOUT, [4])
    encoder.train()
    assert not torch.equal(encoder(clips.x, clips.lengths), encoder(clips.x, clips.lengths))
    encoder.eval()
    assert torch.equal(encoder(clips.x, clips.lengths), encoder(clips.x, clips.lengths))


@pytest.mark.parametrize("bidirectional", [True, False])
@torch.no_grad()
def test_weights_of_torch_s_gru_go_in_and_come_out(bidirectional):
    """Checkpoints name them as torch does."""
    torch.manual_seed(0)
    gru = nn.GRU(60, 8, 2, batch_first=True, bidirectional=bidirectional)
    encoder = GRUConfig(hidden=8, bidirectional=bidirectional).build(LAYOUT, 3, 1).eval()
    encoder.load_state_dict({f"gru.{name}": weight for name, weight in gru.state_dict().items()})
    clips = random_clips(LAYOUT, [5])
    frames_ti = torch.tensor(frame_vectors(clips.x[0]))
    torch.testing.assert_close(encoder(clips.x, clips.lengths)[0], gru(frames_ti)[0])
    gru.load_state_dict({name.removeprefix("gru."): weight for name, weight in encoder.state_dict().items()})
    torch.testing.assert_close(encoder(clips.x, clips.lengths)[0], gru(frames_ti)[0])


def test_a_clip_meets_the_same_dropout_in_any_batch():
    encoder = GRUConfig(hidden=8, dropout=0.5).build(LAYOUT, 3, 1).train()
    clips, found = random_clips(LAYOUT, [4, 9, 6]), []
    for part in (slice(0, 1), slice(0, 2), slice(0, 3)):
        torch.manual_seed(3)
        found.append(encoder(clips.x[part], clips.lengths[part])[0])
    torch.testing.assert_close(found[1], found[0].expand_as(found[1]))
    torch.testing.assert_close(found[2], found[0].expand_as(found[2]))
