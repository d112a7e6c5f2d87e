import functools
import math

import pytest
import torch
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tiny import listed, random_clips, same, tiny_recipe, tiny_store

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders import AnyEncoder
from ssl_skeleton.encoders.base import EncoderConfig
from ssl_skeleton.encoders.pooling import valid_steps
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run
from ssl_skeleton.skeleton.layout import layout_names, load_layout

_TINY = {"width": 0.125, "depth": 0.25}  # one block a stage: graph encoders of 8, 16 and 32 channels
_SLIM = {"width": 0.125, "depth": 1.5}  # where `depth` multiplies the layers of a block
TREES = {
    "gru": {"name": "gru", "hidden": 8},
    "gru_batch": {"name": "gru", "hidden": 8, "input_norm": "batch"},
    "gru_one_way": {"name": "gru", "hidden": 8, "layers": 1, "bidirectional": False, "dropout": 0.0},
    "st_gcn": {"name": "st_gcn", **_TINY},
    "st_gcn_plain": {"name": "st_gcn", **_TINY, "partition": "uniform", "normalisation": "symmetric"},
    "st_gcn_count": {"name": "st_gcn", **_TINY, "edge_importance": False, "absent_bodies": "count"},
    "agcn": {"name": "agcn", **_TINY},
    "st_gcn_inserts": {
        "name": "st_gcn",
        **_TINY,
        "inserts": (
            {"name": "temporal_shift", "place": "start"},
            {"name": "motion_excitation", "place": "parallel"},
            {"name": "channel_excitation", "place": "parallel"},
            {"name": "spatio_temporal_excitation", "place": "parallel"},
        ),
    },
    "agcn_inserts": {
        "name": "agcn",
        **_TINY,
        "inserts": (
            {"name": "spatio_temporal_motion", "place": "start"},
            {"name": "multiple_temporal_aggregation", "place": "series"},
            {"name": "deformable_convolution", "place": "parallel", "groups": 4},
            {"name": "non_local", "place": "end", "blocks": (0, 2)},
        ),
    },
    "ctr_gcn": {"name": "ctr_gcn", **_TINY},
    "ctr_gcn_distance": {
        "name": "ctr_gcn",
        **_TINY,
        "partition": "distance",
        "normalisation": "symmetric",
        "reduction": 2,
        "input_norm": "clip",
        "absent_bodies": "count",
        "dropout": 0.2,
    },
    "shift_gcn": {"name": "shift_gcn", **_TINY},
    "shift_gcn_local": {"name": "shift_gcn", **_TINY, "spatial": "local", "joint_offsets": True},
    "shift_gcn_naive": {"name": "shift_gcn", **_TINY, "temporal": "naive", "dropout": 0.5},
    "efficient_gcn": {"name": "efficient_gcn", **_TINY},
    "efficient_gcn_b2": {"name": "efficient_gcn", **_SLIM, "scale": 2, "branches": ("bone", "velocity")},
    **{
        f"efficient_gcn_{kind}": {"name": "efficient_gcn", **_SLIM, "branches": ("joint",), "temporal": kind}
        for kind in ("basic", "bottleneck", "depth_separable", "expanded")
    },
    "two_rate": {"name": "two_rate", "encoder": {"name": "st_gcn", "width": 0.25, "depth": 0.25}},
    "two_rate_efficient_gcn": {
        "name": "two_rate",
        "encoder": {"name": "efficient_gcn", **_TINY, "branches": ("joint",)},
        "ratio": 3,
        "share": 1.0,
        "lateral": 3,
    },
}
CONFIGS = {name: TypeAdapter(AnyEncoder).validate_python(tree) for name, tree in TREES.items()}

every_encoder = pytest.mark.parametrize("config", list(CONFIGS.values()), ids=CONFIGS)
LAYOUT = load_layout("kinect_v2_25")
every_layout = pytest.mark.parametrize(
    "layout", [load_layout(name) for name in layout_names()], ids=layout_names()
)
every_body = pytest.mark.parametrize("bodies", [1, 2])
some_lengths = st.lists(st.integers(1, 20), min_size=1, max_size=4)


def trained(config: EncoderConfig, layout, bodies=1, channels=3):
    """An encoder in eval mode that has seen a batch, so that no statistics are at their start.

    Nor are parameters that start at zero or as good as zero, which can keep others from being seen at all.
    """
    torch.manual_seed(0)
    encoder = config.build(layout, channels, bodies)
    for parameter in encoder.parameters():
        if parameter.abs().max() < 1e-3:
            torch.nn.init.normal_(parameter, std=0.3)
    seen = random_clips(layout, [9, 5], bodies=bodies, channels=channels, seed=7)
    encoder.train()(3 * seen.x + 1, seen.lengths)
    return encoder.eval()


@functools.cache
def kept(config: EncoderConfig, bodies: int):
    """The same on one layout, for those who leave it in eval mode and change nothing in it."""
    return trained(config, LAYOUT, bodies)


def some_absent(clips):
    """The same clips, some without their first body, some without their second, if there is one."""
    x_nctvm = clips.x.clone()
    if x_nctvm.shape[4] > 1:
        x_nctvm[1::3, ..., 1] = 0
        x_nctvm[2::3, ..., 0] = 0
    return clips.with_x(x_nctvm)


def test_every_encoder_is_here():
    assert {type(config) for config in CONFIGS.values()} == set(listed(AnyEncoder))


@every_encoder
@every_layout
@pytest.mark.parametrize(("bodies", "channels"), [(1, 3), (2, 6)])
def test_features_are_finite_and_of_the_promised_shape(config, layout, bodies, channels):
    encoder = trained(config, layout, bodies, channels)
    for lengths in ([1, 13, 20], [4, 4], [1]):
        clips = some_absent(random_clips(layout, lengths, bodies=bodies, channels=channels))
        features_ntd = encoder(clips.x, clips.lengths)
        assert features_ntd.shape[0] == len(clips)
        assert 1 <= features_ntd.shape[1] <= max(lengths)
        assert features_ntd.shape[2] == encoder.dim
        assert features_ntd.dtype == torch.float32
        assert features_ntd.isfinite().all()
        assert features_ntd.std() > 1e-3


@every_encoder
@every_layout
@pytest.mark.parametrize(("bodies", "lengths"), [(2, (3, 20, 8)), (1, (5,))], ids=["padded", "alone"])
def test_gradients_reach_every_parameter(config, layout, bodies, lengths):
    encoder = trained(config, layout, bodies).train()
    clips = random_clips(layout, lengths, bodies=bodies)
    features_ntd = encoder(clips.x, clips.lengths)
    (features_ntd * torch.randn(features_ntd.shape)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_encoder
def test_every_parameter_is_in_one_layer(config):
    encoder = config.build(LAYOUT, 3, 2)
    assert all(encoder.layers())
    layered = [id(parameter) for layer in encoder.layers() for parameter in layer]
    assert sorted(layered) == sorted(id(parameter) for parameter in encoder.parameters())


def assert_alone_as_in_the_batch(encoder, clips):
    features_ntd = encoder(clips.x, clips.lengths)
    steps = valid_steps(clips.lengths, clips.x.shape[2], features_ntd.shape[1])
    for clip, (length, valid) in enumerate(zip(clips.lengths.tolist(), steps.tolist(), strict=True)):
        alone_td = encoder(clips.x[clip : clip + 1, :, :length], clips.lengths[clip : clip + 1])[0]
        torch.testing.assert_close(alone_td, features_ntd[clip, :valid], atol=1e-5, rtol=1e-4)


@every_encoder
@every_body
@settings(max_examples=examples(5), deadline=None)
@given(lengths=some_lengths, more=st.integers(0, 3), seed=st.integers(0, 99))
def test_a_clip_alone_equals_itself_in_a_padded_batch(config, bodies, lengths, more, seed):
    clips = random_clips(LAYOUT, [*lengths, max(lengths) + more], bodies=bodies, seed=seed)
    assert_alone_as_in_the_batch(kept(config, bodies), some_absent(clips))


@every_encoder
@torch.no_grad()
def test_clips_of_a_frame_and_of_hundreds_share_a_batch(config):
    clips = random_clips(LAYOUT, [300, 299, 150, 1], bodies=2)
    assert_alone_as_in_the_batch(kept(config, 2), some_absent(clips))


@every_encoder
@pytest.mark.parametrize("training", [False, True])
def test_garbage_in_the_padding_changes_no_valid_feature(config, training):
    clips = some_absent(random_clips(LAYOUT, [2, 12, 7], bodies=2))
    valid = frame_mask(clips.lengths, 12)
    found = []
    for garbage in (0.0, 1e3, math.nan):
        encoder = trained(config, LAYOUT, 2).train() if training else kept(config, 2)
        x_nctvm = torch.where(valid[:, None, :, None, None], clips.x, garbage)
        torch.manual_seed(1)  # of the dropout
        features_ntd = encoder(x_nctvm, clips.lengths)
        steps = valid_steps(clips.lengths, 12, features_ntd.shape[1])
        found.append(features_ntd[frame_mask(steps, features_ntd.shape[1])])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@every_encoder
def test_more_padding_changes_nothing_in_training(config):
    clips, results = some_absent(random_clips(LAYOUT, [9, 4, 6], bodies=2)), []
    for more in (0, 5):
        encoder = trained(config, LAYOUT, 2).double().train()
        torch.manual_seed(1)  # of the dropout
        x_nctvm = torch.nn.functional.pad(clips.x.double(), (0, 0, 0, 0, 0, more), value=math.nan)
        features_ntd = encoder(x_nctvm, clips.lengths)
        results.append([features_ntd[:, :9][frame_mask(clips.lengths, 9)], *encoder.buffers()])
    torch.testing.assert_close(results[0], results[1])


@every_encoder
def test_training_works_on_one_frame_of_one_clip(config):
    encoder = trained(config, LAYOUT).train()
    clips = random_clips(LAYOUT, [1])
    assert encoder(clips.x, clips.lengths).isfinite().all()
    assert all(tensor.isfinite().all() for tensor in encoder.state_dict().values())


@every_encoder
def test_it_computes_in_bfloat16_where_autocast_asks(config):
    encoder, clips = trained(config, LAYOUT, 2), some_absent(random_clips(LAYOUT, [9, 6], bodies=2))
    exact = encoder(clips.x, clips.lengths)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(clips.x, clips.lengths)
        trained_on = encoder.train()(clips.x, clips.lengths)
    assert (found - exact).norm() / exact.norm() < 0.05
    (trained_on * torch.randn(trained_on.shape)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_encoder
def test_the_state_holds_everything(config):
    encoder, clips = kept(config, 2), random_clips(LAYOUT, [4, 9], bodies=2)
    torch.manual_seed(5)
    other = config.build(LAYOUT, 3, 2).eval()
    assert not torch.equal(other(clips.x, clips.lengths), encoder(clips.x, clips.lengths))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(clips.x, clips.lengths), encoder(clips.x, clips.lengths))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("stores") / "store", layout="kinect_v2_25", bodies=2)


@every_encoder
def test_a_recipe_trains_and_scores_it(config, store, tmp_path):
    """A contrastive teacher is distilled into a student that reconstructs and contrasts: every pretext."""
    tree = tiny_recipe(store, "fuse_joint", epochs=1, encoder=config.to_tree()).to_tree()
    tree["data"] |= {"bodies": 2, "frames": None}
    for stage in tree["stages"]:
        stage["training"]["batch"] = 9
    run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path / "run")
    run.pretrain()
    for stage in run.recipe.stages:
        before, after = run.build_encoder(stage), run.trained_encoder(stage)
        assert not same(dict(before.named_parameters()), dict(after.named_parameters()))
    result = evaluate(run, "knn")
    assert 0 <= result["top1"] <= 1
    assert result["baselines"].keys() == {"raw", "untrained"}
    assert Run.open(run.folder).recipe.encoder == config
