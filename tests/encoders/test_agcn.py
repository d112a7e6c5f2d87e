import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_is_textbook
from torch.nn import functional

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.agcn import AdaptiveGraph, AGCNConfig
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")


def norm(layer, x_nctv):
    return functional.batch_norm(x_nctv, None, None, layer.weight, layer.bias, training=True)


def convolve(x_nctv, weight_dc, stride=1):
    return functional.conv2d(x_nctv, weight_dc[..., None, None], stride=(stride, 1))


def shortcut(layer, x_nctv):
    if layer.pointwise is None:
        return x_nctv
    return norm(layer.norm, convolve(x_nctv, layer.pointwise.weight, layer.stride))


def textbook(encoder, x_nctvm):
    """AGCN as it is usually written: (N M, C, T, V), for each part one matrix product along the joints."""
    clips, channels, frames, joints, bodies = x_nctvm.shape
    x = x_nctvm.permute(0, 4, 3, 1, 2).reshape(clips * bodies, joints * channels, frames)
    x = norm(encoder.input_norm, x).view(-1, joints, channels, frames).permute(0, 2, 3, 1)
    for block in encoder.blocks:
        theta_ped, phi_ped = block.spatial.graph.embed.weight.view(2, 3, -1, x.shape[1])
        total = 0
        for part in range(3):
            one = convolve(x, theta_ped[part]).permute(0, 3, 1, 2).flatten(2)  # joint by all else
            two = convolve(x, phi_ped[part]).flatten(1, 2)  # all else by joint
            own_nvv = functional.softmax(one @ two / two.shape[1], dim=2)
            graph_nvv = block.spatial.graph.fixed_pvv[part] + block.spatial.graph.learned_pvv[part] + own_nvv
            mixed = (x.flatten(1, 2) @ graph_nvv.transpose(1, 2)).view(x.shape)
            total = total + convolve(mixed, block.spatial.convolution.weight_pcd[part].T)
        y = functional.relu(norm(block.spatial.norm, total) + shortcut(block.spatial.shortcut, x))
        y = functional.conv2d(
            y, block.temporal.convolution.convolution.weight, stride=(block.size.stride, 1), padding=(4, 0)
        )
        y = norm(block.temporal.norm, y)
        x = functional.relu(y if block.shortcut is None else y + shortcut(block.shortcut, x))
    return x.mean(dim=3).unflatten(0, (clips, bodies)).mean(dim=1).transpose(1, 2)


def test_it_is_the_textbook_form():
    encoder = AGCNConfig(width=0.125).build(LAYOUT, 3, 2).double()
    for name, parameter in encoder.named_parameters():
        if "norm" in name or "learned" in name:
            parameter.data.uniform_(0.5, 1.5)
    assert_is_textbook(encoder, textbook, LAYOUT)


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_a_body_s_own_graph_knows_its_valid_frames_alone(lengths, seed):
    torch.manual_seed(seed)
    graph = AdaptiveGraph(3, 2, torch.zeros(3, 4, 4)).double()
    frames = max(lengths) + 1
    mask_kt = frame_mask(torch.tensor(lengths), frames)
    x_ktvc = 3 * torch.randn(len(lengths), frames, 4, 3, dtype=torch.float64) * mask_kt[:, :, None, None]
    found = graph(x_ktvc, mask_kt)
    assert found.shape == (3, len(lengths), 4, 4)
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(3, len(lengths), 4, dtype=torch.float64))
    for body, length in enumerate(lengths):
        alone = graph(x_ktvc[body : body + 1, :length], None)
        torch.testing.assert_close(found[:, body], alone[:, 0])


def test_the_graph_is_the_sum_of_three():
    fixed_pvv = torch.rand(2, 4, 4)
    graph = AdaptiveGraph(3, 2, fixed_pvv)
    x_ktvc = torch.randn(2, 5, 4, 3)
    before = graph(x_ktvc, None)
    graph.learned_pvv.data += 0.25
    torch.testing.assert_close(graph(x_ktvc, None), before + 0.25)
    graph.embed.weight.data.zero_()
    torch.testing.assert_close(graph(x_ktvc, None)[:, 1], fixed_pvv + 0.25 + 0.25)


@pytest.mark.parametrize(("width", "dim"), [(1, 256), (0.25, 64)])
def test_sizes_as_published(width, dim):
    encoder = AGCNConfig(width=width).build(LAYOUT, 3, 2)
    assert [block.size.outputs for block in encoder.blocks] == [dim // 4] * 4 + [dim // 2] * 3 + [dim] * 3
    assert encoder.strides == [1, 1, 1, 1, 2, 1, 1, 2, 1, 1]
    assert encoder.blocks[0].spatial.graph.embed.out_features == 2 * 3 * (dim // 16)
