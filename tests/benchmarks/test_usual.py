from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import random_clips
from usual import usual_form, usual_views
from usual_clips import UsualClips, collate, padded

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.views.augment import AugmentConfig
from ssl_skeleton.data.views.streams import streams
from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.pretext.base import INPUT, PoseShape, PretextConfig, Teacher
from ssl_skeleton.pretext.contrastive_motion import KEY, ContrastiveMotionConfig
from ssl_skeleton.pretext.information_fuser import TEACHER, InformationFuserConfig
from ssl_skeleton.pretext.sequence_reconstructor import SequenceReconstructorConfig
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v1_20")
BOTH, MOTION = ViewConfig(streams=("joint", "motion")), ViewConfig(streams=("motion",))
CONTRAST = {"hidden": 6, "outputs": 4, "queue": 7, "momentum": 0.9}
PRETEXTS: dict[str, PretextConfig] = {
    "ser": SequenceReconstructorConfig(input=BOTH, layers=1),
    "ser_readout": SequenceReconstructorConfig(hidden=5),
    "cml": ContrastiveMotionConfig(input=MOTION, pooling="mean_max", **CONTRAST),
    "cml_mean": ContrastiveMotionConfig(key=BOTH, input=BOTH, **CONTRAST),
    "inf": InformationFuserConfig(input=BOTH, teacher="contrast", pooling="mean_max", hidden=6),
}
DRAWN = {"cml": KEY, "inf": TEACHER}


def encoder(norm: str) -> GRUConfig:
    return GRUConfig(hidden=5, dropout=0.0, input_norm=norm)


def views(name: str, lengths: list[int], seed: int) -> dict[str, Clips]:
    """The views of a pretext, the longest clips first, in float64."""
    found = {}
    for draw, names in enumerate(usual_views(PRETEXTS[name])):
        noise = random_clips(LAYOUT, lengths, seed=2 * seed + draw)
        for wanted in names:
            clips = streams(noise, LAYOUT, wanted)
            key = DRAWN[name.partition("_")[0]] if found else INPUT
            found[key] = replace(clips, x=clips.x.double())
    return found


@pytest.mark.parametrize("lengths", [[6, 6, 6], [9, 5, 1]])
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("name", PRETEXTS)
def test_the_usual_form_computes_and_learns_the_same(name, norm, lengths):
    torch.manual_seed(0)
    config, sizes = PRETEXTS[name], encoder(norm)
    teacher = Teacher(sizes.build(LAYOUT, 3, 1), MOTION)
    ours = config.build(
        sizes.build(LAYOUT, 3 * len(config.input.streams), 1), PoseShape(20, 3, 1), {"contrast": teacher}
    )
    usual = usual_form(config, sizes)
    usual.load(ours)
    ours, usual = ours.double().train(), usual.double().train()
    for step in range(4):  # more than the queue holds
        seen = views(name, lengths, step)
        losses = ours(seen)["loss"], usual(padded(list(seen.values())))
        torch.testing.assert_close(*losses)
        for network, loss in zip((ours, usual), losses, strict=True):
            trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
            network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in trained:
                    parameter.sub_(0.1 * parameter.grad)
            network.after_step()
    again = usual_form(config, sizes)
    again.load(ours)
    wanted = again.double().state_dict()
    assert wanted.keys() == usual.state_dict().keys()
    for key, value in usual.state_dict().items():
        torch.testing.assert_close(value, wanted[key], msg=key)


def test_samples_are_centred_sorted_padded_and_reversed():
    clips = [
        np.arange(frames, dtype=np.float32)[:, None, None] * np.ones((1, 20, 3), np.float32) + frames
        for frames in (2, 5, 3)
    ]
    dataset = UsualClips(clips, usual_views(PRETEXTS["inf"]), AugmentConfig(), None)
    batch = collate([dataset[number] for number in range(3)])
    both, motion = batch.views
    assert batch.lengths.tolist() == [5, 3, 2]
    assert both.shape == (3, 5, 120)
    assert motion.shape == (3, 5, 60)
    assert both[:, :, 0].tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0], [0, 1, 0, 0, 0]]
    assert batch.backwards[:, :, 0].tolist() == [[4, 3, 2, 1, 0], [2, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    steps = [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert motion[:, :, 0].tolist() == both[:, :, 3].tolist() == steps


def test_a_turn_keeps_distances_and_draws_differ():
    clip = np.random.default_rng(0).normal(size=(4, 20, 3)).astype(np.float32)
    change = AugmentConfig(rotate=(30, 60, 30))
    dataset = UsualClips([clip], usual_views(PRETEXTS["cml_mean"]), change, frames=4)
    turned = [view.reshape(4, 20, 6)[..., :3] for view in dataset[0]]
    assert len(turned) == 2
    assert not np.allclose(*turned)
    wanted = np.linalg.norm(clip - clip[0, 0], axis=2)
    for x_tvc in turned:
        np.testing.assert_allclose(np.linalg.norm(x_tvc, axis=2), wanted, rtol=1e-4, atol=1e-6)


def test_a_cut_is_a_window_of_the_clip():
    clip = np.arange(40, dtype=np.float32)[:, None, None] * np.ones((1, 20, 3), np.float32)
    dataset = UsualClips([clip], usual_views(PRETEXTS["ser"]), AugmentConfig(crop=0.5), frames=7)
    spans = []
    for _ in range(50):
        x_t = dataset[0][0][:, 0]
        np.testing.assert_allclose(np.diff(x_t), x_t[-1] / 6, rtol=1e-4)  # evenly spaced, from the first on
        spans.append(x_t[-1])
    assert 18 <= min(spans) < 24
    assert 35 < max(spans) <= 39
