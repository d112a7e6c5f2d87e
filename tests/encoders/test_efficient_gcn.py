import pytest
import torch
from tiny import assert_is_textbook, random_clips
from torch.nn import functional

from ssl_skeleton.encoders.blocks.branches import BranchInputs
from ssl_skeleton.encoders.blocks.joint_attention import JointAttention
from ssl_skeleton.encoders.blocks.norm import FrameNorm
from ssl_skeleton.encoders.efficient_gcn import EfficientGCNConfig
from ssl_skeleton.encoders.inserts.excitation import MotionExcitation, MotionExcitationConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")
ALL = ("joint", "velocity", "bone")


def norm(layer, x_nctv):
    return functional.batch_norm(x_nctv, None, None, layer.weight, layer.bias, training=True)


def pointwise(layer, x_nctv, stride=1):
    return functional.conv2d(x_nctv, layer.weight[..., None, None], stride=(stride, 1))


def in_time(layer, x_nctv):
    weight = layer.convolution.weight
    groups = x_nctv.shape[1] // weight.shape[1]
    return functional.conv2d(x_nctv, weight, stride=layer.convolution.stride, padding=(2, 0), groups=groups)


def shortcut(layer, x_nctv):
    if layer.pointwise is None:
        return x_nctv
    return norm(layer.norm, pointwise(layer.pointwise, x_nctv, layer.stride))


def spatial(layer, x_nctv):
    weight_pcd = layer.convolution.weight_pcd
    z = functional.conv2d(x_nctv, weight_pcd.transpose(1, 2).flatten(0, 1)[..., None, None])
    graphs_pvv = layer.graphs_pvv * layer.importance_pvv
    y = torch.einsum("npctv,pwv->nctw", z.unflatten(1, (len(weight_pcd), -1)), graphs_pvv)
    return functional.silu(norm(layer.norm, y) + shortcut(layer.shortcut, x_nctv))


def sandglass(layer, x_nctv):
    one, two, three, four = layer.steps
    y = functional.silu(norm(one.norm, in_time(one.convolution, x_nctv)))
    y = norm(two.norm, pointwise(two.convolution, y))
    y = functional.silu(norm(three.norm, pointwise(three.convolution, y)))
    return norm(four.norm, in_time(four.convolution, y)) + shortcut(layer.shortcut, x_nctv)


def attended(layer, x_nctv):
    frames = x_nctv.shape[2]
    along_t = x_nctv.mean(dim=3, keepdim=True)
    along_v = x_nctv.mean(dim=2, keepdim=True).transpose(2, 3)
    both = norm(layer.squeeze_norm, pointwise(layer.squeeze, torch.cat([along_t, along_v], dim=2)))
    along_t, along_v = functional.hardswish(both).split([frames, x_nctv.shape[3]], dim=2)
    weight_t = torch.sigmoid(pointwise(layer.frame, along_t) + layer.frame.bias[:, None, None])
    weight_v = torch.sigmoid(pointwise(layer.joint, along_v) + layer.joint.bias[:, None, None])
    return functional.silu(norm(layer.norm, x_nctv * (weight_t * weight_v.transpose(2, 3))) + x_nctv)


def through(blocks, x_nctv):
    for block in blocks:
        x_nctv = spatial(block.spatial, x_nctv)
        for layer in block.temporal.layers:
            x_nctv = sandglass(layer, x_nctv)
        x_nctv = attended(block.temporal.attention, x_nctv)
    return x_nctv


def textbook(encoder, x_nctvm):
    """EfficientGCN as it is usually written: (N M, C, T, V), the inputs made first, then branch by branch."""
    clips, _, _, _, bodies = x_nctvm.shape
    x = x_nctvm.permute(0, 4, 1, 2, 3).flatten(0, 1)
    one = functional.pad(x[:, :, 1:] - x[:, :, :-1], (0, 0, 0, 1))
    two = functional.pad(x[:, :, 2:] - x[:, :, :-2], (0, 0, 0, 2))
    bones, turns = [], []
    for child, parent in enumerate(LAYOUT.parents):
        bones.append(x[..., child] - x[..., parent])
        size = bones[-1].norm(dim=1, keepdim=True)
        turns.append(bones[-1] if child == parent else torch.arccos(bones[-1] / size))
    bone, angles = torch.stack(bones, dim=3), torch.stack(turns, dim=3)
    centred = x - x[..., [LAYOUT.index(LAYOUT.root)]]
    derived = {"joint": (x, centred), "velocity": (one, two), "bone": (bone, angles)}
    parts = []
    for name, branch in zip(encoder.stem.inputs.names, encoder.stem.branches, strict=True):
        y = spatial(branch.spatial, norm(branch.norm, torch.cat(derived[name], dim=1)))
        y = functional.silu(
            norm(branch.temporal.steps[0].norm, in_time(branch.temporal.steps[0].convolution, y)) + y
        )
        parts.append(through(branch.blocks, y))
    y = through(encoder.blocks, torch.cat(parts, dim=1))
    return y.mean(dim=3).unflatten(0, (clips, bodies)).mean(dim=1).transpose(1, 2)


@pytest.mark.parametrize(("scale", "branches"), [(0, ALL), (2, ("bone", "joint")), (4, ("velocity",))])
def test_it_is_the_textbook_form(scale, branches):
    torch.manual_seed(0)
    config = EfficientGCNConfig(width=0.125, scale=scale, branches=branches)
    encoder = config.build(LAYOUT, 3, 2).double()
    for name, parameter in encoder.named_parameters():
        if "importance" in name or "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    assert_is_textbook(encoder, textbook, LAYOUT)


@pytest.mark.parametrize(("scale", "millions"), [(0, 0.29), (2, 0.51), (4, 1.10)])
def test_it_has_as_many_parameters_as_published(scale, millions):
    encoder = EfficientGCNConfig(scale=scale).build(LAYOUT, 3, 2)
    weights = sum(values.numel() for name, values in encoder.named_parameters() if "importance" not in name)
    # The release has a bias for each channel that a convolution gives a norm, which takes it out again.
    inputs = [branch.norm for branch in encoder.stem.branches]
    gated = [layer.norm for layer in encoder.modules() if isinstance(layer, JointAttention)]
    biases = 0
    for name, layer in encoder.named_modules():
        if isinstance(layer, FrameNorm) and not any(layer is other for other in (*inputs, *gated)):
            biases += layer.num_features * (3 if name.endswith("spatial.norm") else 1)  # three graphs
    classifier = 60 * encoder.dim + 60
    assert round((weights + biases + classifier) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("scale", "branch", "main", "layers"),
    [
        (0, [48, 32], [64, 128], [0, 0, 1, 1]),
        (1, [64, 32], [80, 160], [1, 1, 1, 1]),
        (2, [64, 32], [96, 192], [1, 1, 2, 2]),
        (3, [80, 48], [112, 224], [1, 1, 2, 2]),
        (4, [96, 48], [128, 272], [2, 2, 3, 3]),
    ],
)
def test_sizes_as_released(scale, branch, main, layers):
    encoder = EfficientGCNConfig(scale=scale).build(LAYOUT, 3, 2)
    assert len(encoder.stem.branches) == 3
    for stem in encoder.stem.branches:
        assert stem.temporal.shortcut.pointwise is None
        assert stem.spatial.convolution.weight_pcd.shape == (3, 6, 64)
        assert [block.size.outputs for block in stem.blocks] == branch
        assert [len(block.temporal.layers) for block in stem.blocks] == layers[:2]
    assert encoder.blocks[0].size.inputs == 3 * branch[1]
    assert [block.size.outputs for block in encoder.blocks] == main
    assert [len(block.temporal.layers) for block in encoder.blocks] == layers[2:]
    assert encoder.strides == [2, 2]
    for block in encoder.blocks:
        assert block.temporal.strides == [2] + [1] * (len(block.temporal.layers) - 1)
    assert encoder.dim == main[1]


def test_width_and_depth_come_on_top():
    encoder = EfficientGCNConfig(scale=2, width=0.5, depth=2).build(LAYOUT, 3, 2)
    stem = encoder.stem.branches[0]
    assert stem.spatial.norm.num_features == 32
    assert [block.size.outputs for block in (*stem.blocks, *encoder.blocks)] == [32, 16, 48, 96]
    assert [len(block.temporal.layers) for block in (*stem.blocks, *encoder.blocks)] == [2, 2, 4, 4]
    least = EfficientGCNConfig(width=0.001, depth=0.001).build(LAYOUT, 3, 2)
    stem = least.stem.branches[0]
    assert [len(block.temporal.layers) for block in (*stem.blocks, *least.blocks)] == [0, 0, 1, 1]
    assert least.dim == 4


@pytest.mark.parametrize("reach", [0, 1, 3])
def test_a_graph_a_distance_each_normalised_by_itself(reach):
    encoder = EfficientGCNConfig(width=0.1, reach=reach).build(LAYOUT, 3, 2)
    spatial_part = encoder.blocks[0].spatial
    graphs_pvv = spatial_part.graphs_pvv
    assert len(graphs_pvv) == reach + 1
    assert torch.equal(graphs_pvv[0], torch.eye(25))
    assert ((graphs_pvv > 0).sum(dim=0) <= 1).all()  # no pair is at two distances
    torch.testing.assert_close(graphs_pvv, graphs_pvv.transpose(1, 2))
    assert (spatial_part.importance_pvv == 1).all()


def test_coordinates_are_normed_behind_what_is_derived_from_them():
    encoder = EfficientGCNConfig(width=0.1).build(LAYOUT, 3, 2).eval()
    seen = []
    for branch in encoder.stem.branches:
        branch.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    clips = random_clips(LAYOUT, [6])
    encoder(clips.x, clips.lengths)
    derived = BranchInputs(LAYOUT, ALL)(clips.x.permute(0, 4, 2, 3, 1)[:, 0])
    for found, expected in zip(seen, derived, strict=True):
        assert torch.equal(found, expected)
    assert not hasattr(encoder, "input_norm")


def test_inserts_are_for_the_main_stream():
    config = EfficientGCNConfig(width=0.1, inserts=(MotionExcitationConfig(),))
    encoder = config.build(LAYOUT, 3, 2)
    there = [name for name, module in encoder.named_modules() if isinstance(module, MotionExcitation)]
    assert there == ["blocks.0.series.0", "blocks.1.series.0"]
    with pytest.raises(UserError, match="efficient_gcn has blocks 0 to 1"):
        EfficientGCNConfig(inserts=(MotionExcitationConfig(blocks=(2,)),)).build(LAYOUT, 3, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"branches": ["joint", "joint"]}, "one stands twice"),
        ({"branches": []}, "branches"),
        ({"branches": ["bones"]}, "bone"),
        ({"temporal": "sandglas"}, "sandglass"),
        ({"scale": 5}, "scale"),
        ({"input_norm": "body"}, "input_norm"),
    ],
)
def test_what_it_cannot_be(change, message):
    with pytest.raises(UserError, match=message):
        EfficientGCNConfig.from_tree({"name": "efficient_gcn", **change}, "encoder")


def test_dropout_is_of_what_a_block_gives():
    encoder = EfficientGCNConfig(width=0.1, dropout=0.5).build(LAYOUT, 3, 1)
    seen = []
    for block in (encoder.stem.branches[0].blocks[0], encoder.blocks[1]):
        block.register_forward_hook(lambda block, given, out: seen.append(out))
    clips = random_clips(LAYOUT, [40])
    encoder(clips.x, clips.lengths)
    assert len(seen) == 2
    for out_ktvd in seen:
        assert 0.4 < float((out_ktvd == 0).float().mean()) < 0.6


def test_dropout_is_for_training_only():
    encoder, clips = EfficientGCNConfig(width=0.1, dropout=0.5).build(LAYOUT, 3, 1), random_clips(LAYOUT, [8])
    assert not torch.equal(encoder(clips.x, clips.lengths), encoder(clips.x, clips.lengths))
    encoder.eval()
    assert torch.equal(encoder(clips.x, clips.lengths), encoder(clips.x, clips.lengths))
