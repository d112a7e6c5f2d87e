import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tiny import listed, random_clips, tiny_recipe, tiny_store

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders import AnyEncoder
from ssl_skeleton.encoders.base import EncoderConfig
from ssl_skeleton.encoders.pooling import valid_steps
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.run import Run
from ssl_skeleton.skeleton.layout import layout_names, load_layout

_TINY = {"width": 0.125, "depth": 0.25}  # one block a stage: graph encoders of 8, 16 and 32 channels
TREES = {
    "gru": {"name": "gru", "hidden": 8},
    "gru_batch": {"name": "gru", "hidden": 8, "input_norm": "batch"},
    "gru_one_way": {"name": "gru", "hidden": 8, "layers": 1, "bidirectional": False, "dropout": 0.0},
    "st_gcn": {"name": "st_gcn", **_TINY},
    "st_gcn_plain": {"name": "st_gcn", **_TINY, "partition": "uniform", "normalisation": "symmetric"},
    "st_gcn_count": {"name": "st_gcn", **_TINY, "edge_importance": False, "absent_bodies": "count"},
    "agcn": {"name": "agcn", **_TINY},
}
CONFIGS = {name: TypeAdapter(AnyEncoder).validate_python(tree) for name, tree in TREES.items()}

every_encoder = pytest.mark.parametrize("config", list(CONFIGS.values()), ids=CONFIGS)
every_layout = pytest.mark.parametrize(
    "layout", [load_layout(name) for name in layout_names()], ids=layout_names()
)
every_body = pytest.mark.parametrize("bodies", [1, 2])
some_lengths = st.lists(st.integers(1, 20), min_size=1, max_size=4)


def trained(config: EncoderConfig, layout, bodies=1, channels=3):
    """An encoder in eval mode that has seen a batch, so that no statistics are at their start."""
    torch.manual_seed(0)
    encoder = config.build(layout, channels, bodies)
    seen = random_clips(layout, [9, 5], bodies=bodies, channels=channels, seed=7)
    encoder.train()(3 * seen.x + 1, seen.lengths)
    return encoder.eval()


def test_every_encoder_is_here():
    assert {type(config) for config in CONFIGS.values()} == set(listed(AnyEncoder))


@every_encoder
@every_layout
@every_body
@pytest.mark.parametrize("channels", [3, 6])
def test_features_are_finite_and_of_the_promised_shape(config, layout, bodies, channels):
    encoder = trained(config, layout, bodies, channels)
    for lengths in ([1, 13, 20], [4, 4], [1]):
        clips = random_clips(layout, lengths, bodies=bodies, channels=channels)
        features_ntd = encoder(clips.x, clips.lengths)
        assert features_ntd.shape[0] == len(clips)
        assert 1 <= features_ntd.shape[1] <= max(lengths)
        assert features_ntd.shape[2] == encoder.dim
        assert features_ntd.dtype == torch.float32
        assert features_ntd.isfinite().all()
        assert features_ntd.std() > 1e-3


@every_encoder
@every_layout
@every_body
@pytest.mark.parametrize("lengths", [(3, 20, 8), (5,)], ids=["padded", "alone"])
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
@every_body
@settings(max_examples=20, deadline=None)
@given(lengths=some_lengths, more=st.integers(0, 3), seed=st.integers(0, 99))
def test_a_clip_alone_equals_itself_in_a_padded_batch(config, bodies, lengths, more, seed):
    layout = load_layout(layout_names()[0])
    encoder = trained(config, layout, bodies)
    clips = random_clips(layout, [*lengths, max(lengths) + more], bodies=bodies, seed=seed)
    features_ntd = encoder(clips.x, clips.lengths)
    steps = valid_steps(clips.lengths, clips.x.shape[2], features_ntd.shape[1])
    for clip, (length, valid) in enumerate(zip(clips.lengths.tolist(), steps.tolist(), strict=True)):
        alone_td = encoder(clips.x[clip : clip + 1, :, :length], clips.lengths[clip : clip + 1])[0]
        torch.testing.assert_close(alone_td, features_ntd[clip, :valid], atol=1e-5, rtol=1e-4)


@every_encoder
@every_body
@pytest.mark.parametrize("training", [False, True])
def test_garbage_in_the_padding_changes_no_valid_feature(config, bodies, training):
    layout = load_layout(layout_names()[0])
    clips = random_clips(layout, [2, 12, 7], bodies=bodies)
    valid = frame_mask(clips.lengths, 12)
    found = []
    for garbage in (0.0, 1e3, math.nan):
        encoder = trained(config, layout, bodies).train(training)
        x_nctvm = torch.where(valid[:, None, :, None, None], clips.x, garbage)
        torch.manual_seed(1)  # of the dropout
        features_ntd = encoder(x_nctvm, clips.lengths)
        steps = valid_steps(clips.lengths, 12, features_ntd.shape[1])
        found.append(features_ntd[frame_mask(steps, features_ntd.shape[1])])
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@every_encoder
def test_training_works_on_one_frame_of_one_clip(config):
    layout = load_layout(layout_names()[0])
    encoder = trained(config, layout).train()
    clips = random_clips(layout, [1])
    assert encoder(clips.x, clips.lengths).isfinite().all()
    assert all(tensor.isfinite().all() for tensor in encoder.state_dict().values())


@every_encoder
@every_layout
def test_the_state_holds_everything(config, layout):
    encoder, clips = trained(config, layout), random_clips(layout, [4, 9])
    torch.manual_seed(5)
    other = config.build(layout, 3, 1).eval()
    assert not torch.equal(other(clips.x, clips.lengths), encoder(clips.x, clips.lengths))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other(clips.x, clips.lengths), encoder(clips.x, clips.lengths))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("stores") / "store", layout="kinect_v2_25", bodies=2)


@every_encoder
def test_a_recipe_trains_and_scores_it(config, store, tmp_path):
    tree = tiny_recipe(store, "fuse", epochs=1, encoder=config.to_tree()).to_tree()
    recipe = Recipe.from_tree(tree | {"data": tree["data"] | {"bodies": 2, "frames": None}}, "recipe")
    run = Run.start(recipe, tmp_path / "run")
    run.pretrain()
    result = run.evaluate("knn")
    assert 0 <= result["top1"] <= 1
    assert result["baselines"].keys() == {"raw", "untrained"}
    assert Run.open(run.folder).recipe.encoder == config
