"""What holds for every insert, by itself and in every place of a block."""

import pytest
import torch
from builders import examples, one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from tiny import listed, random_clips, recipe_tree
from torch.export import Dim
from torch.nn import functional

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.agcn import AGCNConfig
from ssl_skeleton.encoders.inserts import AnyInsert
from ssl_skeleton.encoders.pooling import valid_steps
from ssl_skeleton.encoders.st_gcn import STGCNConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.skeleton.layout import load_layout

TREES = {
    "motion_excitation": {"name": "motion_excitation"},
    "channel_excitation": {"name": "channel_excitation"},
    "spatio_temporal_excitation": {"name": "spatio_temporal_excitation"},
    "multiple_temporal_aggregation": {"name": "multiple_temporal_aggregation"},
    "temporal_shift": {"name": "temporal_shift"},
    "non_local": {"name": "non_local"},
    "non_local_frames": {"name": "non_local", "over": "frames"},
    "non_local_joints": {"name": "non_local", "over": "joints"},
    "spatio_temporal_motion": {"name": "spatio_temporal_motion"},
    "deformable_convolution": {"name": "deformable_convolution", "kernel": 5},
}
LAYOUT = load_layout("common_15")
ENCODERS = {  # blocks of 4, 8 and 16 channels, the last two with a stride
    config.name: config
    for config in (STGCNConfig(width=1 / 16, depth=0.1, dropout=0.0), AGCNConfig(width=1 / 16, depth=0.1))
}
every_insert = pytest.mark.parametrize("tree", list(TREES.values()), ids=TREES)
every_place = pytest.mark.parametrize("place", ["start", "series", "parallel", "end"])
every_encoder = pytest.mark.parametrize("encoder", list(ENCODERS.values()), ids=ENCODERS)


def read(tree):
    return TypeAdapter(AnyInsert).validate_python(tree)


def moved(module):
    """The module with all parameters and statistics away from their start."""
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.2 + 0.3 * torch.rand_like(tensor))
    return module


def made(tree, channels):
    """An insert, in float64, that is always the same."""
    torch.manual_seed(0)
    return moved(read(tree).build(channels).double())


def some_features(lengths, channels, more=0, *, seed=0):
    torch.manual_seed(seed)
    mask_kt = frame_mask(torch.tensor(lengths), max(lengths) + more)
    x_ktvc = torch.randn(*mask_kt.shape, 3, channels, dtype=torch.float64) * mask_kt[:, :, None, None]
    return x_ktvc.requires_grad_(), mask_kt


def with_insert(config, tree, place):
    """The encoder with an insert in all of its blocks, trained on one batch."""
    torch.manual_seed(0)
    inserted = config.model_copy(update={"inserts": (read(tree | {"place": place}),)})
    encoder = inserted.build(LAYOUT, 3, 2)
    for block in encoder.blocks:
        for insert in getattr(block, place):
            moved(insert)
    clips = random_clips(LAYOUT, [9, 5], bodies=2, seed=7)
    encoder(3 * clips.x + 1, clips.lengths)
    return encoder


def test_every_insert_is_here():
    assert {type(read(tree)) for tree in TREES.values()} == set(listed(AnyInsert))


@every_insert
@settings(max_examples=examples(15), deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    more=st.integers(0, 3),
    channels=st.sampled_from([3, 4, 8]),
    seed=st.integers(0, 99),
)
def test_a_body_alone_equals_itself_in_a_padded_batch(tree, lengths, more, channels, seed):
    insert = made(tree, channels).eval()
    x_ktvc, mask_kt = some_features(lengths, channels, more, seed=seed)
    found = insert(x_ktvc, mask_kt)
    assert found.shape == x_ktvc.shape
    assert not found[~mask_kt].any()
    weight_ktvc = torch.randn_like(found)
    gradients = torch.autograd.grad((found * weight_ktvc).sum(), x_ktvc, retain_graph=True)[0]
    for body, length in enumerate(lengths):
        alone_ktvc = x_ktvc[body : body + 1, :length].detach().requires_grad_()
        expected = insert(alone_ktvc, None)
        torch.testing.assert_close(found[body : body + 1, :length], expected)
        (expected * weight_ktvc[body : body + 1, :length]).sum().backward()
        torch.testing.assert_close(gradients[body : body + 1, :length], alone_ktvc.grad)


@every_insert
@settings(max_examples=examples(10), deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=2, max_size=3), more=st.integers(1, 4))
def test_padding_changes_nothing_in_training(tree, lengths, more):
    results = []
    for padding in (0, more):
        insert = made(tree, 4)
        x_ktvc, mask_kt = some_features(lengths, 4)
        padded_ktvc = functional.pad(x_ktvc, (0, 0, 0, 0, 0, padding))
        padded_kt = functional.pad(mask_kt, (0, padding))
        out_ktvc = insert(padded_ktvc, padded_kt)
        assert not out_ktvc[~padded_kt].any()
        out_ktvc[padded_kt].square().sin().sum().backward()
        results.append([out_ktvc[padded_kt], x_ktvc.grad, *(p.grad for p in insert.parameters())])
        results[-1].extend(insert.state_dict().values())
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


@every_insert
def test_no_mask_is_a_mask_of_valid_frames(tree):
    insert = made(tree, 8)
    x_ktvc, mask_kt = some_features([5, 5], 8)
    torch.testing.assert_close(insert(x_ktvc, None), insert(x_ktvc, mask_kt))


@every_insert
@pytest.mark.parametrize("training", [False, True])
def test_a_body_without_valid_frames_stays_nothing(tree, training):
    """As a compiled graph has for a body that is absent."""
    insert = made(tree, 4).train(training)
    x_ktvc, mask_kt = some_features([5, 3], 4)
    expected = insert(x_ktvc, mask_kt)
    nobody_ktvc = torch.zeros_like(x_ktvc[:1])
    nobody_kt = torch.zeros_like(mask_kt[:1])
    found = insert(torch.cat([x_ktvc, nobody_ktvc]), torch.cat([mask_kt, nobody_kt]))
    torch.testing.assert_close(found[:2], expected)
    assert not found[2].any()
    gradients = torch.autograd.grad(found.sin().sum(), [x_ktvc, *insert.parameters()])
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_insert
@pytest.mark.parametrize("frames", [20, 300])
def test_it_computes_in_bfloat16_where_autocast_asks(tree, frames):
    insert = made(tree, 16).float()
    x_ktvc = torch.randn(2, frames, 5, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = insert(x_ktvc.bfloat16(), None)
    assert found.dtype == torch.bfloat16
    exact = insert(x_ktvc.bfloat16().float(), None)
    assert (found - exact).norm() / exact.norm() < 0.03


@every_encoder
@every_insert
@every_place
def test_it_has_its_place_in_every_block(encoder, tree, place):
    built = with_insert(encoder, tree, place).double()
    seen = []
    for block in built.blocks:
        (insert,) = getattr(block, place)
        insert.register_forward_hook(lambda insert, given, out: seen.append((given[0].shape, out.shape)))
    clips = random_clips(LAYOUT, [1, 8, 13], bodies=2)
    features_ntd = built(clips.x.double(), clips.lengths)
    inputs = {"start": (3, 4, 8)}.get(place, (4, 8, 16))
    frames = {"end": (13, 7, 4)}.get(place, (13, 13, 7))
    shapes = [(6, frame, 15, channels) for frame, channels in zip(frames, inputs, strict=True)]
    assert seen == [(shape, shape) for shape in shapes]
    (features_ntd * torch.randn_like(features_ntd)).sum().backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-9, name  # rounding leaves 1e-15 of what should be zero


@every_encoder
@every_insert
@every_place
def test_a_clip_alone_equals_itself_in_every_place(encoder, tree, place):
    built = with_insert(encoder, tree, place).eval()
    clips = random_clips(LAYOUT, [1, 8, 13], bodies=2)
    with torch.no_grad():
        features_ntd = built(clips.x, clips.lengths)
        steps = valid_steps(clips.lengths, 13, features_ntd.shape[1]).tolist()
        for clip, (length, valid) in enumerate(zip(clips.lengths.tolist(), steps, strict=True)):
            alone_td = built(clips.x[clip : clip + 1, :, :length], clips.lengths[clip : clip + 1])[0]
            torch.testing.assert_close(alone_td, features_ntd[clip, :valid], atol=1e-5, rtol=1e-4)
    trained = built.train()(clips.x[:1, :, :1, :, :1], clips.lengths[:1])  # one frame of one body
    assert trained.isfinite().all()


@torch.no_grad()
def test_an_exported_encoder_with_inserts_takes_any_frames():
    """Also a single one, or as many as leave a block a single step."""
    # It leaves out a frame and puts another back.
    insert = read({"name": "spatio_temporal_motion", "place": "end", "blocks": (2,)})
    encoder = moved(ENCODERS["st_gcn"].model_copy(update={"inserts": (insert,)}).build(LAYOUT, 3, 1)).eval()
    dynamic = {0: Dim.DYNAMIC, 2: Dim.DYNAMIC}, {0: Dim.DYNAMIC}
    clips = random_clips(LAYOUT, [12, 5])
    program = torch.export.export(encoder, (clips.x, clips.lengths), dynamic_shapes=dynamic).module()
    for lengths in ([1], [1, 2], [4], [5, 3], [9], [17, 20, 1]):
        clips = random_clips(LAYOUT, lengths)
        expected = encoder(clips.x, clips.lengths)
        torch.testing.assert_close(program(clips.x, clips.lengths), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"name": "motion_exitation"}, ".0: unknown name 'motion_exitation'; did you mean 'motion_excita"),
        ({"name": "tsm"}, ".0: unknown name 'tsm'; choose one of "),
        ({"place": "end"}, ".0: the key 'name' is missing"),
        ({"name": "non_local", "place": "serial"}, ".0.place: 'serial' is not possible; did you mean 'se"),
        ({"name": "non_local", "ower": "both"}, ".0: unknown key 'ower'; did you mean 'over'?"),
        ({"name": "non_local", "blocks": []}, ".0.blocks: "),
        ({"name": "non_local", "blocks": [-1]}, ".0.blocks.0: input should be greater than or equal to 0"),
        ({"name": "temporal_shift", "share": 0.6}, ".0.share: input should be less than or equal to 0.5"),
        ({"name": "temporal_shift", "share": 0.0}, ".0.share: input should be greater than 0"),
        ({"name": "multiple_temporal_aggregation", "groups": 1}, ".0.groups: input should be greater than"),
        ({"name": "channel_excitation", "reduction": 0}, ".0.reduction: input should be greater than"),
        ({"name": "deformable_convolution", "kernel": 4}, ".0: kernel: should be an odd number, not 4"),
    ],
)
def test_a_recipe_with_a_wrong_insert_is_refused(tree, message, tmp_path):
    encoder = {"name": "st_gcn", "inserts": [tree]}
    with pytest.raises(UserError) as error:
        Recipe.from_tree(recipe_tree(tmp_path) | {"encoder": encoder}, "recipe")
    assert one_line(error.value).startswith(f"recipe: encoder.inserts{message}")


def test_a_recipe_gives_its_inserts_back(tmp_path):
    trees = [{"name": "temporal_shift", "share": 0.25, "blocks": [1, 2]}, *TREES.values()]
    encoder = {"name": "agcn", "inserts": trees}
    recipe = Recipe.from_tree(recipe_tree(tmp_path) | {"encoder": encoder}, "recipe")
    assert Recipe.from_tree(recipe.to_tree(), "recipe") == recipe
    found = [insert.model_dump(exclude_unset=True) for insert in recipe.encoder.inserts]
    assert found == [{**trees[0], "blocks": (1, 2)}, *trees[1:]]


@every_insert
def test_a_block_that_is_not_there_is_refused(tree):
    config = STGCNConfig(width=1 / 16, inserts=(read(tree | {"blocks": (0, 99)}),))
    with pytest.raises(UserError) as error:
        config.build(LAYOUT, 3, 1)
    name = tree["name"]
    assert one_line(error.value) == (f"encoder.inserts: {name} wants block 99, but st_gcn has blocks 0 to 8")


@pytest.mark.parametrize(
    ("tree", "channels", "message"),
    [
        ({"name": "temporal_shift"}, 1, "temporal_shift wants 2 channels at least, there is 1"),
        (
            {"name": "multiple_temporal_aggregation"},
            5,
            "multiple_temporal_aggregation cannot part 5 channels into 4 groups or fewer; name the `blocks`",
        ),
        (
            {"name": "deformable_convolution", "groups": 4},
            3,
            "deformable_convolution cannot part 3 channels into 4 groups; name the `blocks` that it goes",
        ),
    ],
)
def test_channels_that_do_not_fit_are_refused(tree, channels, message):
    with pytest.raises(UserError) as error:
        read(tree).build(channels)
    assert one_line(error.value).startswith(f"encoder.inserts: {message}")


@pytest.mark.parametrize(("share", "channels", "shifted"), [(1 / 8, 64, 8), (1 / 8, 4, 1), (1 / 2, 3, 1)])
def test_a_share_of_the_channels_is_shifted_each_way(share, channels, shifted):
    assert read({"name": "temporal_shift", "share": share}).build(channels).moved == shifted


@pytest.mark.parametrize(("channels", "groups"), [(64, 4), (4, 4), (3, 3), (6, 3), (2, 2)])
def test_channels_are_aggregated_in_as_many_groups_as_fit(channels, groups):
    assert read({"name": "multiple_temporal_aggregation"}).build(channels).groups == groups


def test_more_groups_than_channels_are_not_looked_for():
    assert read({"name": "multiple_temporal_aggregation", "groups": 10**15}).build(6).groups == 6


@pytest.mark.parametrize("name", ["motion_excitation", "channel_excitation", "spatio_temporal_motion"])
@pytest.mark.parametrize(("options", "squeezed"), [({}, 4), ({"reduction": 5}, 12), ({"reduction": 99}, 1)])
def test_channels_are_squeezed_by_the_reduction(name, options, squeezed):
    assert read({"name": name, **options}).build(64).expand.in_features == squeezed


@pytest.mark.parametrize(("channels", "embedded"), [(64, 32), (5, 2), (1, 1)])
def test_half_of_the_channels_are_embedded(channels, embedded):
    assert read({"name": "non_local"}).build(channels).project.in_features == embedded


@pytest.mark.parametrize("over", ["both", "frames", "joints"])
def test_a_non_local_block_starts_as_the_identity(over):
    x_ktvc, mask_kt = some_features([4, 2], 4)
    insert = read({"name": "non_local", "over": over}).build(4).double()
    assert torch.equal(insert(x_ktvc, mask_kt), x_ktvc)


@pytest.mark.parametrize("over", ["both", "frames", "joints"])
def test_a_non_local_block_never_asks_for_a_mean_of_nothing(over, monkeypatch):
    """Kernels of attention differ in what that is."""
    attend = functional.scaled_dot_product_attention

    def attend_to_something(*args, attn_mask, **options):
        assert attn_mask is None or attn_mask.any(dim=-1).all()
        return attend(*args, attn_mask=attn_mask, **options)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attend_to_something)
    insert = made({"name": "non_local", "over": over}, 4)
    mask_kt = torch.tensor([[True, True], [True, False], [False, False]])
    assert insert(torch.zeros(3, 2, 5, 4).double(), mask_kt).isfinite().all()
