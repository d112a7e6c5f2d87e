import pytest
import torch
from tiny import ENCODER, random_clips

from ssl_skeleton.pretext.base import INPUT, PoseShape
from ssl_skeleton.pretext.sequence_reconstructor import SequenceReconstructorConfig
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v1_20")
LENGTHS = [3, 6, 1]


def reconstructor(bodies=1, **options):
    torch.manual_seed(0)
    encoder = ENCODER.build(LAYOUT, 3, bodies).eval()
    pretext = SequenceReconstructorConfig(**options).build(encoder, PoseShape(20, 3, bodies), {}).eval()
    with torch.no_grad():
        for parameter in pretext.parameters():
            parameter.mul_(3)  # at their start, states hardly depend on the clip
    return pretext


def frame_error(estimate, x_cvm) -> float:
    channels, joints, bodies = x_cvm.shape
    target = [float(x_cvm[c, v, m]) for v in range(joints) for c in range(channels) for m in range(bodies)]
    return sum((one - other) ** 2 for one, other in zip(estimate.tolist(), target, strict=True))


def decoded(pretext, state_d, frames) -> list[torch.Tensor]:
    """The decoder stepped by hand: the same state at every frame, its memory carried on."""
    poses, memory = [], None
    for _ in range(frames):
        step, memory = pretext.decoder(state_d[None], memory)
        poses.append(pretext.readout(step[0]))
    return poses


def losses_by_hand(pretext, clips) -> tuple[float, float]:
    forward, backward = 0.0, 0.0
    for x_ctvm, length in zip(clips.x, clips.lengths.tolist(), strict=True):
        features_td = pretext.encoder(x_ctvm[None, :, :length], torch.tensor([length]))[0]
        first, last = features_td[0], features_td[length - 1]
        for frame, pose in enumerate(decoded(pretext, first, length)):
            forward += frame_error(pose, x_ctvm[:, frame]) / length
        for frame, pose in enumerate(decoded(pretext, last, length)):
            backward += frame_error(pose, x_ctvm[:, length - 1 - frame]) / length
    return forward / len(clips), backward / len(clips)


@pytest.mark.parametrize("bodies", [1, 2])
@pytest.mark.parametrize("options", [{}, {"layers": 1, "hidden": 7}])
@torch.no_grad()
def test_the_whole_loss(bodies, options):
    pretext = reconstructor(bodies, **options)
    clips = random_clips(LAYOUT, LENGTHS, bodies=bodies)
    forward, backward = losses_by_hand(pretext, clips)
    parts = pretext({INPUT: clips})
    assert parts["reconstruct"].item() == pytest.approx(forward, rel=1e-5)
    assert parts["reconstruct_reversed"].item() == pytest.approx(backward, rel=1e-5)
    assert parts["loss"].item() == pytest.approx(forward + backward, rel=1e-5)
    assert forward != pytest.approx(backward, rel=1e-3)


def test_the_decoder_s_states_are_poses_by_default():
    pretext = reconstructor(bodies=2)
    assert (pretext.decoder.hidden_size, pretext.decoder.num_layers) == (20 * 3 * 2, 2)
    assert not list(pretext.readout.parameters())
    assert reconstructor(hidden=7).readout.out_features == 60


@torch.no_grad()
def test_it_sees_the_streams_of_its_input():
    two = {"streams": ("joint", "motion")}
    encoder = ENCODER.build(LAYOUT, 6, 1)
    config = SequenceReconstructorConfig.from_tree({"input": two}, "config")
    pretext = config.build(encoder, PoseShape(20, 3, 1), {})
    assert pretext.decoder.hidden_size == 20 * 6
    assert pretext({INPUT: random_clips(LAYOUT, LENGTHS, channels=6)})["loss"].isfinite()
