import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_same_gradients, random_clips
from torch import nn
from torch.nn import functional

from ssl_skeleton.config import UserError
from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.gcn import BlockSize
from ssl_skeleton.encoders.shift_gcn import (
    GraphShift,
    ShiftGCNConfig,
    SpatialUnit,
    TemporalShift,
    TemporalUnit,
)
from ssl_skeleton.ops.graph_shift import non_local_index
from ssl_skeleton.skeleton.layout import Layout, load_layout

LAYOUT = load_layout("kinect_v2_25")
TINY = {"width": 0.125, "depth": 0.25}


def norm(layer, x_nctv):
    return functional.batch_norm(x_nctv, None, None, layer.weight, layer.bias, training=True)


def pointwise(layer, x_nctv, stride=1):
    return functional.conv2d(x_nctv, layer.weight[..., None, None], layer.bias, stride=(stride, 1))


def shortcut(layer, x_nctv):
    if layer.pointwise is None:
        return x_nctv
    return norm(layer.norm, pointwise(layer.pointwise, x_nctv, layer.stride))


def graph_shifted(shift, x_nctv):
    """Value by value: place i = v * C + c takes what lies at place index_i[i]."""
    channels = x_nctv.shape[1]
    values = [x_nctv[:, place % channels, :, place // channels] for place in shift.index_i.tolist()]
    return torch.stack(values, dim=2).unflatten(2, (-1, channels)).permute(0, 3, 1, 2)


def shifted(shift, x_nctv, half):
    """Every frame and joint has a share of 1 in its own place, less a whole one in a place beside it."""
    frames, joints = x_nctv.shape[2:]
    row_cs = (
        torch.arange(0, frames, shift.stride) + shift.frames_c[:, None] + (half if shift.stride > 1 else 0)
    )
    column_cw = (
        torch.arange(joints) + (0 * shift.frames_c if shift.joints_c is None else shift.joints_c)[:, None]
    )
    share_cst = (1 - (row_cs[:, :, None] - torch.arange(frames)).abs()).clamp(min=0)
    share_cwv = (1 - (column_cw[:, :, None] - torch.arange(joints)).abs()).clamp(min=0)
    return torch.einsum("nctv,cst,cwv->ncsw", x_nctv, share_cst.to(x_nctv), share_cwv.to(x_nctv))


def textbook(encoder, x_nctvm, half):
    """Shift-GCN as it is usually written: (N M, C, T, V)."""
    clips, channels, frames, joints, bodies = x_nctvm.shape
    x = x_nctvm.permute(0, 4, 3, 1, 2).reshape(clips * bodies, joints * channels, frames)
    x = norm(encoder.input_norm, x).view(-1, joints, channels, frames).permute(0, 2, 3, 1)
    for block in encoder.blocks:
        spatial, temporal = block.spatial, block.temporal
        y = graph_shifted(spatial.shift_in, x) * (spatial.mask_vc.tanh() + 1).T[:, None]
        y = graph_shifted(spatial.shift_out, pointwise(spatial.product, y))
        flat = y.permute(0, 2, 3, 1).flatten(2).transpose(1, 2)  # (N M, V D, T)
        y = norm(spatial.norm, flat).unflatten(1, (joints, -1)).permute(0, 2, 3, 1)
        y = functional.relu(y + shortcut(spatial.shortcut, x))
        y = pointwise(temporal.product, shifted(temporal.shift_in, norm(temporal.norm_in, y), half))
        y = norm(temporal.norm_out, shifted(temporal.shift_out, functional.relu(y), half))
        x = functional.relu(y if block.shortcut is None else y + shortcut(block.shortcut, x))
    return x.mean(dim=3).unflatten(0, (clips, bodies)).mean(dim=1).transpose(1, 2)


def small_layout():
    return Layout(name="y", joints=tuple("abcd"), root="a", bones={"b": "a", "c": "b", "d": "b"})


@pytest.mark.parametrize(
    ("options", "half"),
    [
        ({}, 0.5),
        ({"joint_offsets": True, "bias": True}, 0.5),
        ({"spatial": "local"}, 0.5),
        ({"temporal": "naive"}, 0.0),
    ],
)
def test_it_is_the_textbook_form(options, half):
    torch.manual_seed(0)
    layout = small_layout()
    encoder = ShiftGCNConfig(width=0.0625, depth=0.4, **options).build(layout, 3, 2).double()
    for name, parameter in encoder.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
        if "mask" in name or "_c" in name:
            parameter.data.normal_()
    clips = random_clips(layout, [7, 7], bodies=2)
    x_nctvm = clips.x.double().requires_grad_()
    found, expected = encoder(x_nctvm, clips.lengths)[:, ::4], textbook(encoder, x_nctvm, half)
    torch.testing.assert_close(found, expected)
    # Biases before a norm are felt by nothing: their gradient is rounding alone.
    felt = [value for name, value in encoder.named_parameters() if value.ndim != 1 or not unfelt(name)]
    assert_same_gradients(found, expected, [x_nctvm, *felt])


def unfelt(name):
    return name.endswith(("spatial.product.bias", "pointwise.bias"))


def test_biases_stand_where_the_release_has_them():
    def biases(**options):
        encoder = ShiftGCNConfig(width=0.125, **options).build(LAYOUT, 3, 1)
        return {
            name
            for name, layer in encoder.named_modules()
            if isinstance(layer, nn.Linear) and layer.bias is not None
        }

    products = {f"blocks.{block}.temporal.product" for block in range(10)}
    assert biases() == products
    shortcuts = {f"blocks.{block}.spatial.shortcut.pointwise" for block in (0, 4, 7)}
    shortcuts |= {f"blocks.{block}.shortcut.pointwise" for block in (4, 7)}
    assert biases(bias=True) == products | shortcuts | {
        f"blocks.{block}.spatial.product" for block in range(10)
    }


@pytest.mark.parametrize(("width", "dim"), [(1, 256), (0.25, 64)])
def test_sizes_as_published(width, dim):
    encoder = ShiftGCNConfig(width=width).build(LAYOUT, 3, 2)
    assert [block.size.outputs for block in encoder.blocks] == [dim // 4] * 4 + [dim // 2] * 3 + [dim] * 3
    assert encoder.strides == [1, 1, 1, 1, 2, 1, 1, 2, 1, 1]
    assert encoder.dim == dim
    offsets = torch.cat([value for name, value in encoder.named_parameters() if name.endswith("frames_c")])
    assert -1 <= offsets.min() < -0.9
    assert 0.9 < offsets.max() <= 1


def test_offsets_in_joints_start_on_either_side_of_zero():
    torch.manual_seed(0)
    shift = TemporalShift(ShiftGCNConfig(joint_offsets=True), 64, 1)
    assert 10 < (shift.joints_c < 0).sum() < 54
    assert 0 < shift.joints_c.abs().max() <= 1e-8


@given(st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_the_second_non_local_shift_undoes_the_first(joints, channels):
    layout = Layout(
        name="chain",
        joints=tuple(f"j{joint}" for joint in range(joints)),
        root="j0",
        bones={f"j{joint}": f"j{joint - 1}" for joint in range(1, joints)},
    )
    there, back = (
        GraphShift(index_i, "auto") for index_i in ShiftGCNConfig().index_lists(layout, channels, channels)
    )
    x_ktvc = torch.randn(2, 3, joints, channels)
    assert torch.equal(back(there(x_ktvc)), x_ktvc)


def test_the_local_shift_takes_from_neighbours_alone():
    for index_i, channels in zip(
        ShiftGCNConfig(spatial="local").index_lists(LAYOUT, 12, 20), (12, 20), strict=True
    ):
        joint_vc = (index_i // channels).view(25, channels)
        for joint, givers in enumerate(joint_vc.tolist()):
            children = {child for child, parent in enumerate(LAYOUT.parents) if parent == joint}
            assert set(givers) == children | {joint, LAYOUT.parents[joint]}


def test_the_naive_shift_moves_thirds_of_the_channels():
    shift = TemporalShift(ShiftGCNConfig(temporal="naive"), 7, 1)
    assert not [*shift.parameters(), *shift.state_dict()]
    x_ktvc = torch.randn(2, 5, 3, 7)
    out_ktvc = shift(x_ktvc)
    nothing = torch.zeros(2, 1, 3, 3)
    torch.testing.assert_close(out_ktvc[..., :3], torch.cat([nothing, x_ktvc[:, :-1, :, :3]], dim=1))
    torch.testing.assert_close(out_ktvc[..., 3:5], x_ktvc[..., 3:5])
    torch.testing.assert_close(out_ktvc[..., 5:], torch.cat([x_ktvc[:, 1:, :, 5:], nothing[..., :2]], dim=1))
    strided = TemporalShift(ShiftGCNConfig(temporal="naive"), 7, 2)
    torch.testing.assert_close(strided(x_ktvc), out_ktvc[:, ::2])


def test_a_learned_shift_with_a_stride_looks_half_a_frame_further():
    shift = TemporalShift(ShiftGCNConfig(), 4, 2)
    shift.frames_c.data = torch.tensor([0.0, 0.5, -0.5, 1.0])
    x_ktvc = torch.arange(6.0)[None, :, None, None].expand(1, 6, 1, 4) + 1
    wanted = [[1.5, 2, 1, 2.5], [3.5, 4, 3, 4.5], [5.5, 6, 5, 3]]  # half of the last, half of nothing
    assert shift(x_ktvc)[0, :, 0].tolist() == wanted


@pytest.mark.parametrize("index", ["permutation", "any"])
def test_a_shift_follows_the_list_that_is_loaded(index):
    torch.manual_seed(0)
    index_i = torch.randperm(12) if index == "permutation" else torch.randint(12, (12,))
    loaded, built = GraphShift(non_local_index(4, 3), "auto"), GraphShift(index_i, "auto")
    twin = copy.deepcopy(loaded)
    loaded.load_state_dict(built.state_dict())
    x_ktvc = torch.randn(2, 3, 4, 3, requires_grad=True)
    pull_ktvc = torch.randn(2, 3, 4, 3)
    found, wanted = (
        (shift(x_ktvc), *torch.autograd.grad(shift(x_ktvc), x_ktvc, pull_ktvc)) for shift in (loaded, built)
    )
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[0].flatten(2), x_ktvc.flatten(2)[:, :, index_i])
    torch.testing.assert_close(found[1], wanted[1])
    assert torch.equal(twin.index_i, non_local_index(4, 3))
    twin.load_state_dict(built.state_dict())
    assert torch.equal(twin.takers_id, built.takers_id)


def test_a_list_that_names_no_place_is_refused():
    shift = GraphShift(non_local_index(4, 3), "auto")
    with pytest.raises(ValueError, match="names one that is not there"):
        shift.load_state_dict({"index_i": non_local_index(4, 3) + 1})


def test_offsets_in_joints_must_be_learned():
    tree = {"name": "shift_gcn", "temporal": "naive", "joint_offsets": True}
    with pytest.raises(UserError, match="joint_offsets: true needs learned offsets"):
        ShiftGCNConfig.from_tree(tree, "encoder")


@pytest.mark.parametrize("unit", ["spatial", "temporal"])
def test_nothing_stays_in_frames_that_are_not_valid(unit):
    """Each by itself: what the next part does with such frames must not hide them."""
    torch.manual_seed(0)
    config, size = ShiftGCNConfig(bias=True, joint_offsets=True), BlockSize(8, 8, 2)
    part = SpatialUnit(config, size, LAYOUT) if unit == "spatial" else TemporalUnit(config, size)
    mask_kt = frame_mask(torch.tensor([9, 4, 1]), 9)
    x_ktvc = torch.randn(3, 9, 25, 8) * mask_kt[:, :, None, None]
    part.train()(x_ktvc, mask_kt)
    out_ktvc = part.eval()(x_ktvc, mask_kt)
    after_kt = mask_kt if unit == "spatial" else mask_kt[:, ::2]
    assert not out_ktvc[~after_kt].any()
    assert out_ktvc[after_kt].any(dim=(1, 2)).all()
    for clip, length in enumerate([9, 4, 1]):
        alone = part(x_ktvc[clip : clip + 1, :length], None)
        torch.testing.assert_close(out_ktvc[clip, : alone.shape[1]], alone[0], atol=1e-5, rtol=1e-4)


def test_dropout_is_that_of_the_config():
    torch.manual_seed(0)
    part = TemporalUnit(ShiftGCNConfig(dropout=0.25), BlockSize(8, 8, 1))
    x_ktvc = torch.randn(4, 20, 25, 8)
    assert 0.24 < (part.train()(x_ktvc, None) == 0).float().mean() < 0.26
    assert (part.eval()(x_ktvc, None) != 0).all()


class Units(nn.Module):
    """A block's two parts, one after the other."""

    def __init__(self, config):
        super().__init__()
        self.spatial = SpatialUnit(config, BlockSize(4, 8, 2), LAYOUT)
        self.temporal = TemporalUnit(config, BlockSize(4, 8, 2))

    def forward(self, x_ktvc, mask_kt):
        return self.temporal(self.spatial(x_ktvc, mask_kt), mask_kt)


@pytest.mark.parametrize("options", [{}, {"spatial": "local", "joint_offsets": True}, {"temporal": "naive"}])
def test_an_exported_graph_takes_clips_of_any_length(options):
    torch.manual_seed(0)
    units = Units(ShiftGCNConfig(**options)).eval()

    def inputs(lengths):
        mask_kt = frame_mask(torch.tensor(lengths), max(lengths))
        return torch.randn(len(lengths), max(lengths), 25, 4) * mask_kt[:, :, None, None], mask_kt

    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    exported = torch.export.export(units, inputs([9, 3]), dynamic_shapes=(free, free)).module()
    for lengths in ([9, 3], [12, 1, 7], [40, 40]):
        some = inputs(lengths)
        torch.testing.assert_close(exported(*some), units(*some), atol=1e-5, rtol=1e-4)


def test_compiled_it_is_the_same():
    torch.manual_seed(0)
    units = Units(ShiftGCNConfig(joint_offsets=True)).eval()
    mask_kt = frame_mask(torch.tensor([9, 3]), 9)
    x_ktvc = torch.randn(2, 9, 25, 4) * mask_kt[:, :, None, None]
    with torch.no_grad():
        compiled = torch.compile(units, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x_ktvc, mask_kt), units(x_ktvc, mask_kt), atol=1e-5, rtol=1e-4)


def test_it_computes_in_bfloat16_where_autocast_asks():
    torch.manual_seed(0)
    encoder = ShiftGCNConfig(**TINY).build(LAYOUT, 3, 2)
    clips = random_clips(LAYOUT, [9, 6], bodies=2)
    exact = encoder(clips.x, clips.lengths)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(clips.x, clips.lengths)
    assert found.dtype == torch.bfloat16
    assert 0 < (found.float() - exact).norm() / exact.norm() < 0.05
