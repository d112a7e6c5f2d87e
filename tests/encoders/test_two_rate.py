import pytest
import torch
from builders import one_line
from tiny import random_clips
from torch.nn import functional

from ssl_skeleton.config import Config
from ssl_skeleton.encoders import AnyEncoder
from ssl_skeleton.encoders.efficient_gcn import EfficientGCNConfig
from ssl_skeleton.encoders.st_gcn import STGCNConfig
from ssl_skeleton.encoders.two_rate import TwoRateConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")
SMALL = STGCNConfig(width=0.125, depth=0.25, dropout=0.0)


class Tree(Config):
    encoder: AnyEncoder


def build(bodies=2, **changes):
    torch.manual_seed(0)
    return TwoRateConfig(encoder=SMALL, **changes).build(LAYOUT, 3, bodies)


def norm(layer, x_nctv):
    return functional.batch_norm(x_nctv, None, None, layer.weight, layer.bias, training=True)


def enter(path, x_nctvm):
    clips, channels, frames, joints, bodies = x_nctvm.shape
    x = x_nctvm.permute(0, 4, 3, 1, 2).reshape(clips * bodies, joints * channels, frames)
    return norm(path.input_norm, x).view(-1, joints, channels, frames).permute(0, 2, 3, 1)


def convolve(layer, x_nctv, stride):
    weight = layer.convolution.weight
    return functional.conv2d(x_nctv, weight, stride=(stride, 1), padding=(weight.shape[2] // 2, 0))


def st_gcn_block(block, x_nctv):
    graphs_pvv = block.spatial.graphs_pvv * block.spatial.importance_pvv
    y = torch.einsum("nctv,pwv,pcd->ndtw", x_nctv, graphs_pvv, block.spatial.convolution.weight_pcd)
    y = convolve(block.temporal.convolution, functional.relu(norm(block.spatial.norm, y)), block.size.stride)
    y = norm(block.temporal.norm, y)
    if block.shortcut is not None:
        weight = block.shortcut.pointwise.weight[..., None, None]
        y = y + norm(block.shortcut.norm, functional.conv2d(x_nctv, weight, stride=(block.size.stride, 1)))
    return functional.relu(y)


def textbook(encoder, x_nctvm):
    """Both paths in the usual (N M, C, T, V); features (N, T, D)."""
    slow, fast = enter(encoder.slow, x_nctvm[:, :, :: encoder.ratio]), enter(encoder.fast, x_nctvm)
    for number in range(3):
        if number > 0:
            lateral = encoder.laterals[str(number)]
            slow = slow + functional.relu(
                norm(lateral.norm, convolve(lateral.convolution, fast, encoder.ratio))
            )
        slow = st_gcn_block(encoder.slow.blocks[number], slow)
        fast = st_gcn_block(encoder.fast.blocks[number], fast)
    slow, fast = (x.mean(dim=3).unflatten(0, (len(x_nctvm), -1)).mean(dim=1) for x in (slow, fast))
    steps = [
        torch.cat([slow[:, :, frame // 4 // encoder.ratio], fast[:, :, frame // 4]], dim=1)
        for frame in range(x_nctvm.shape[2])
    ]
    return torch.stack(steps, dim=1)


@pytest.mark.parametrize(("ratio", "lateral", "share"), [(2, 5, 0.5), (4, 1, 1.0), (5, 7, 0.25)])
def test_it_is_the_textbook_form(ratio, lateral, share):
    encoder = build(ratio=ratio, lateral=lateral, share=share).double()
    for name, parameter in encoder.named_parameters():
        if "importance" in name or "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    clips = random_clips(LAYOUT, [23, 23], bodies=2)
    x_nctvm = clips.x.double().requires_grad_()
    found, expected = encoder(x_nctvm, clips.lengths), textbook(encoder, x_nctvm)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    wanted = [x_nctvm, *encoder.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), wanted),
        torch.autograd.grad((expected * weights).sum(), wanted),
    )


def test_what_is_fast_reaches_what_is_slow_and_not_the_other_way():
    encoder, clips = build(), random_clips(LAYOUT, [16, 9], bodies=2)

    def heard_by(features_ntd):
        encoder.zero_grad()
        (features_ntd * torch.randn(features_ntd.shape)).sum().backward(retain_graph=True)
        return {name for name, value in encoder.named_parameters() if value.grad.any()}

    slow_ntd, fast_ntd = encoder(clips.x, clips.lengths).split([encoder.slow.dim, encoder.fast.dim], dim=2)
    everything = {name for name, _ in encoder.named_parameters()}
    assert heard_by(slow_ntd) == {name for name in everything if not name.startswith("fast.blocks.2.")}
    assert heard_by(fast_ntd) == {name for name in everything if name.startswith("fast.")}


def test_the_slow_path_sees_the_first_of_every_few_frames():
    encoder, clips = build(ratio=3).eval(), random_clips(LAYOUT, [14], bodies=2)
    changed = clips.x.clone()
    changed[:, :, torch.arange(14) % 3 != 0] += 1
    for lateral in encoder.laterals.values():
        torch.nn.init.zeros_(lateral.norm.weight)
    before, after = (encoder(x_nctvm, clips.lengths) for x_nctvm in (clips.x, changed))
    assert torch.equal(before[..., : encoder.slow.dim], after[..., : encoder.slow.dim])
    assert not torch.equal(before[..., encoder.slow.dim :], after[..., encoder.slow.dim :])


def test_a_body_seen_between_the_slow_frames_counts_in_both_paths():
    encoder, clips = build(ratio=4).eval(), random_clips(LAYOUT, [10], bodies=2)
    x_nctvm = clips.x.clone()
    x_nctvm[:, :, torch.arange(10) != 1, :, 1] = 0
    alone = [encoder(x_nctvm[..., body : body + 1], clips.lengths) for body in (0, 1)]
    torch.testing.assert_close(encoder(x_nctvm, clips.lengths), (alone[0] + alone[1]) / 2)


def channels(lateral):
    convolution = lateral.convolution.convolution
    return convolution.in_channels, convolution.out_channels


def test_sizes_follow_the_encoder():
    encoder = TwoRateConfig(encoder=STGCNConfig()).build(LAYOUT, 3, 2)
    assert encoder.dim == 256 + 64
    assert [block.size.outputs for block in encoder.fast.blocks] == [16] * 3 + [32] * 3 + [64] * 3
    assert {place: channels(lateral) for place, lateral in encoder.laterals.items()} == {
        "3": (16, 64),
        "6": (32, 128),
    }


def test_a_stem_has_a_lateral_connection_behind_it():
    encoder = TwoRateConfig(encoder=EfficientGCNConfig(branches=("joint", "bone"))).build(LAYOUT, 3, 2)
    assert {place: channels(lateral) for place, lateral in encoder.laterals.items()} == {
        "0": (2 * 8, 2 * 32),
        "1": (16, 64),
    }


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({}, "recipe: encoder.encoder: this key is missing"),
        ({"encoder": {"name": "gru"}}, "recipe: encoder.encoder: unknown name 'gru'; choose one of "),
        ({"encoder": {"name": "two_rate"}}, "recipe: encoder.encoder: unknown name 'two_rate'; "),
        (
            {"encoder": {"name": "st_gcn", "widht": 1}},
            "recipe: encoder.encoder: unknown key 'widht'; did you",
        ),
        ({"encoder": {"name": "st_gcn"}, "ratio": 1}, "recipe: encoder.ratio: input should be greater"),
        ({"encoder": {"name": "st_gcn"}, "share": 0.0}, "recipe: encoder.share: input should be greater"),
        (
            {"encoder": {"name": "st_gcn"}, "lateral": 4},
            "recipe: encoder: lateral: should be an odd number, not 4",
        ),
    ],
)
def test_an_impossible_config_is_refused_in_one_line(tree, message):
    with pytest.raises(UserError) as error:
        Tree.from_tree({"encoder": {"name": "two_rate", **tree}}, "recipe")
    assert one_line(error.value).startswith(message)
