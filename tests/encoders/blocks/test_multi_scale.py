import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_same_gradients
from torch.nn import functional

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.blocks.multi_scale import MultiScaleUnit


def seen_unit(channels, stride, dropout=0.0):
    """A unit with norms of its own, in float64."""
    unit = MultiScaleUnit(channels, stride, dropout).double()
    for name, tensor in unit.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    return unit


def norm(layer, x_nctv, first, last):
    """Some channels of a norm."""
    return functional.batch_norm(
        x_nctv, None, None, layer.weight[first:last], layer.bias[first:last], training=True
    )


def textbook(unit, x_nctv):
    """Branch by branch, each with norms of its own."""
    stride, quarter, branches = unit.stride, x_nctv.shape[1] // 4, []
    for branch in range(3):
        part = slice(branch * quarter, (branch + 1) * quarter)
        y = functional.conv2d(x_nctv, unit.reduce.weight[part, :, None, None])
        y = functional.relu(norm(unit.reduced_norm, y, part.start, part.stop))
        if branch < 2:
            dilation, weight = branch + 1, (unit.near, unit.far)[branch].convolution.weight
            y = functional.conv2d(
                y, weight, stride=(stride, 1), padding=(2 * dilation, 0), dilation=(dilation, 1)
            )
        else:
            y = functional.max_pool2d(y, (3, 1), (stride, 1), (1, 0))
        branches.append(norm(unit.norm, y, part.start, part.stop))
    y = functional.conv2d(x_nctv, unit.pointwise.weight[..., None, None], stride=(stride, 1))
    branches.append(norm(unit.norm, y, 3 * quarter, 4 * quarter))
    return torch.cat(branches, dim=1)


@given(
    bodies=st.integers(1, 3),
    frames=st.integers(1, 12),
    quarter=st.integers(1, 3),
    stride=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_it_is_the_textbook_form(bodies, frames, quarter, stride, seed):
    torch.manual_seed(seed)
    unit = seen_unit(4 * quarter, stride)
    x_ktvc = torch.randn(bodies, frames, 5, 4 * quarter, dtype=torch.float64, requires_grad=True)
    found = unit(x_ktvc, None)
    expected = textbook(unit, x_ktvc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert found.shape == (bodies, -(-frames // stride), 5, 4 * quarter)
    torch.testing.assert_close(found, expected)
    assert_same_gradients(found, expected, [x_ktvc, *unit.parameters()])


@pytest.mark.parametrize("training", [False, True])
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    more=st.integers(0, 3),
    stride=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_padding_is_not_there(training, lengths, more, stride, seed):
    torch.manual_seed(seed)
    unit, frames = seen_unit(8, stride).train(training), max(lengths) + more
    mask_kt = frame_mask(torch.tensor(lengths), frames)
    x_ktvc = torch.randn(len(lengths), frames, 3, 8, dtype=torch.float64) * mask_kt[:, :, None, None]
    found = unit(x_ktvc, mask_kt)
    after_kt = mask_kt[:, ::stride]
    assert found.shape[:2] == after_kt.shape
    assert not found[~after_kt].any()
    if training:  # norms see all bodies: more padding is more of nothing
        longer = unit(
            functional.pad(x_ktvc, (0, 0, 0, 0, 0, 2 * stride)), functional.pad(mask_kt, (0, 2 * stride))
        )
        torch.testing.assert_close(longer[:, : found.shape[1]], found)
        return
    for body, length in enumerate(lengths):
        alone = unit(x_ktvc[body : body + 1, :length], None)[0]
        torch.testing.assert_close(found[body, : len(alone)], alone)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_maximum_is_that_of_frames_that_are_there(frames):
    unit = seen_unit(4, 1).eval()
    x_ktvc = torch.randn(1, frames, 1, 4, dtype=torch.float64)
    reduced_t = functional.relu(unit.reduced_norm(unit.reduce(x_ktvc), None))[0, :, 0, 2].tolist()
    pooled_t = [max(reduced_t[max(0, frame - 1) : frame + 2]) for frame in range(frames)]
    expected_ktvc = torch.zeros(1, frames, 1, 4, dtype=torch.float64)
    expected_ktvc[0, :, 0, 2] = torch.tensor(pooled_t)
    torch.testing.assert_close(unit(x_ktvc, None)[..., 2], unit.norm(expected_ktvc, None)[..., 2])


def test_dropout_comes_last():
    torch.manual_seed(0)
    x_ktvc = torch.randn(2, 50, 5, 8, dtype=torch.float64)
    unit = seen_unit(8, 2, dropout=0.25)
    found, kept = unit(x_ktvc, None), unit.dropout.eval() and unit(x_ktvc, None)
    dropped = found == 0
    assert 0.2 < dropped.double().mean() < 0.3
    torch.testing.assert_close(found[~dropped], kept[~dropped] / 0.75)
