import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_same_gradients
from torch.nn import functional

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.blocks.separable import temporal_layer

KINDS = ("basic", "bottleneck", "depth_separable", "expanded", "sandglass")
every_kind = pytest.mark.parametrize("kind", KINDS)


def seen_layer(kind, channels, kernel, stride):
    """A layer with norms of its own, in float64."""
    layer = temporal_layer(kind, channels, kernel, stride).double()
    for name, tensor in layer.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    return layer


def norm(layer, x_nctv):
    return functional.batch_norm(x_nctv, None, None, layer.weight, layer.bias, training=True)


def swish(x):
    return x / (1 + torch.exp(-x))


def full(step, x_nctv):
    convolution = step.convolution.convolution
    padding = (convolution.kernel_size[0] // 2, 0)
    y_ndtv = functional.conv2d(x_nctv, convolution.weight, stride=(step.stride, 1), padding=padding)
    return norm(step.norm, y_ndtv)


def depthwise(step, x_nctv):
    """Each channel by itself."""
    convolution = step.convolution.convolution
    padding = (convolution.kernel_size[0] // 2, 0)
    channels = [
        functional.conv2d(x_nctv[:, c : c + 1], weight[None], stride=(step.stride, 1), padding=padding)
        for c, weight in enumerate(convolution.weight)
    ]
    return norm(step.norm, torch.cat(channels, dim=1))


def pointwise(step, x_nctv):
    return norm(step.norm, functional.conv2d(x_nctv, step.convolution.weight[..., None, None]))


def textbook(kind, layer, x_nctv):
    """The layers as they are usually drawn."""
    past = x_nctv
    if layer.shortcut.pointwise is not None:
        weight_dc = layer.shortcut.pointwise.weight
        past = functional.conv2d(x_nctv, weight_dc[..., None, None], stride=(layer.stride, 1))
        past = norm(layer.shortcut.norm, past)
    steps = layer.steps
    if kind == "basic":
        return swish(full(steps[0], x_nctv) + past)
    if kind == "bottleneck":
        y = swish(pointwise(steps[0], x_nctv))
        return swish(pointwise(steps[2], swish(full(steps[1], y))) + past)
    if kind == "depth_separable":
        return pointwise(steps[1], swish(depthwise(steps[0], x_nctv))) + past
    if kind == "expanded":
        y = swish(pointwise(steps[0], x_nctv))
        return pointwise(steps[2], swish(depthwise(steps[1], y))) + past
    y = pointwise(steps[1], swish(depthwise(steps[0], x_nctv)))
    return depthwise(steps[3], swish(pointwise(steps[2], y))) + past


@every_kind
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("frames", [2, 7, 8])
def test_a_layer_is_as_it_is_drawn(kind, stride, frames):
    torch.manual_seed(frames)
    layer = seen_layer(kind, 6, 5, stride)
    x_ktvc = torch.randn(3, frames, 4, 6, dtype=torch.float64, requires_grad=True)
    found = layer(x_ktvc, None)
    expected = textbook(kind, layer, x_ktvc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert found.shape == (3, -(-frames // stride), 4, 6)
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, [x_ktvc, *layer.parameters()])


@every_kind
@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    stride=st.integers(1, 3),
    training=st.booleans(),
    seed=st.integers(0, 99),
)
def test_padding_changes_nothing(kind, lengths, stride, training, seed):
    torch.manual_seed(seed)
    layer, frames = seen_layer(kind, 4, 5, stride).train(training), max(lengths)
    mask_kt = frame_mask(torch.tensor(lengths), frames)
    x_ktvc = torch.randn(len(lengths), frames, 3, 4, dtype=torch.float64) * mask_kt[:, :, None, None]
    padded_ktvc = functional.pad(x_ktvc, (0, 0, 0, 0, 0, 4))
    found = layer(padded_ktvc, functional.pad(mask_kt, (0, 4)))
    torch.testing.assert_close(found[:, : -(-frames // stride)], layer(x_ktvc, mask_kt))
    for body, length in enumerate(lengths):
        steps = -(-length // stride)
        assert not found[body, steps:].any()
        if not training:
            alone = layer(x_ktvc[body : body + 1, :length], None)
            torch.testing.assert_close(found[body, :steps], alone[0])


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        ("basic", 5 * 8 * 8),
        ("bottleneck", 8 * 4 + 5 * 4 * 4 + 4 * 8),
        ("depth_separable", 5 * 8 + 8 * 8),
        ("expanded", 8 * 16 + 5 * 16 + 16 * 8),
        ("sandglass", 5 * 8 + 8 * 4 + 4 * 8 + 5 * 8),
    ],
)
def test_what_a_layer_weighs(kind, weights):
    found = temporal_layer(kind, 8, 5).named_parameters()
    assert sum(values.numel() for name, values in found if "norm" not in name) == weights
