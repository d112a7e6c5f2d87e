import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.blocks.joint_attention import JointAttention

some_lengths = st.lists(st.integers(1, 5), min_size=1, max_size=3)


def seen_attention(channels, training):
    """An attention with norms of its own, in float64."""
    attention = JointAttention(channels).double().train(training)
    for name, tensor in attention.state_dict().items():
        if "norm" in name and tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    return attention


def norm(layer, rows_rc):
    """BatchNorm of a list of rows, written out."""
    rows_rc = torch.stack(rows_rc)
    if layer.training:
        mean, variance = rows_rc.mean(dim=0), rows_rc.var(dim=0, correction=0)
    else:
        mean, variance = layer.running_mean, layer.running_var
    return list(layer.weight * (rows_rc - mean) / (variance + layer.eps).sqrt() + layer.bias)


def hard_swish(x):
    return x * (x + 3).clamp(0, 6) / 6


def slow(attention, x_ktvc, lengths):
    """The attention one body, frame and joint after another; a list of (length, V, C)."""
    joints = x_ktvc.shape[2]
    rows = []
    for x_tvc, length in zip(x_ktvc, lengths, strict=True):
        rows += [attention.squeeze.weight @ (sum(x_tvc[t]) / joints) for t in range(length)]
        rows += [attention.squeeze.weight @ (sum(x_tvc[:length, v]) / length) for v in range(joints)]
    rows = iter([hard_swish(row) for row in norm(attention.squeeze_norm, rows)])
    weighted = []
    for x_tvc, length in zip(x_ktvc, lengths, strict=True):
        frame = [torch.sigmoid(attention.frame(next(rows))) for _ in range(length)]
        joint = [torch.sigmoid(attention.joint(next(rows))) for _ in range(joints)]
        weighted += [x_tvc[t, v] * frame[t] * joint[v] for t in range(length) for v in range(joints)]
    normal = iter(norm(attention.norm, weighted))
    out = []
    for x_tvc, length in zip(x_ktvc, lengths, strict=True):
        sums = [next(normal) + x_tvc[t, v] for t in range(length) for v in range(joints)]
        out.append(torch.stack([x * torch.sigmoid(x) for x in sums]).view(length, joints, -1))
    return out


@pytest.mark.parametrize("training", [False, True])
@settings(max_examples=15, deadline=None)
@given(lengths=some_lengths, more=st.integers(0, 2), seed=st.integers(0, 99))
def test_it_is_the_loop(training, lengths, more, seed):
    torch.manual_seed(seed)
    attention, frames = seen_attention(6, training), max(lengths) + more
    mask_kt = frame_mask(torch.tensor(lengths), frames)
    x_ktvc = torch.randn(len(lengths), frames, 3, 6, dtype=torch.float64) * mask_kt[:, :, None, None]
    x_ktvc.requires_grad_()
    expected = slow(attention, x_ktvc, lengths)
    found = attention(x_ktvc, None if mask_kt.all() else mask_kt)
    assert not found[~mask_kt].any()
    torch.testing.assert_close(found[mask_kt], torch.cat(expected))
    weights = torch.randn_like(found)
    wanted = [x_ktvc, *attention.parameters()]
    found_grads = torch.autograd.grad((found * weights).sum(), wanted)
    expected_grads = torch.autograd.grad((torch.cat(expected) * weights[mask_kt]).sum(), wanted)
    valid = mask_kt[:, :, None, None]
    torch.testing.assert_close(found_grads[0] * valid, expected_grads[0] * valid)
    torch.testing.assert_close(found_grads[1:], expected_grads[1:])


@pytest.mark.parametrize("training", [False, True])
def test_a_body_without_valid_frames_is_as_if_not_there(training):
    torch.manual_seed(0)
    attention, other = seen_attention(4, training), seen_attention(4, training)
    other.load_state_dict(attention.state_dict())
    mask_kt = frame_mask(torch.tensor([3, 0, 5]), 5)
    x_ktvc = torch.randn(3, 5, 3, 4, dtype=torch.float64) * mask_kt[:, :, None, None]
    found, expected = attention(x_ktvc, mask_kt), other(x_ktvc[::2], mask_kt[::2])
    torch.testing.assert_close(found[::2], expected)
    assert not found[1].any()
    found.sin().sum().backward()
    expected.sin().sum().backward()
    for one, same in zip(attention.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, same.grad)
    for name, tensor in attention.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], tensor, msg=name)


def test_the_weights_are_an_outer_product():
    attention = JointAttention(6)
    x_ktvc = torch.randn(2, 5, 4, 6)
    frame_kt1c, joint_k1vc = attention.weights(x_ktvc, None)
    assert frame_kt1c.shape == (2, 5, 1, 6)
    assert joint_k1vc.shape == (2, 1, 4, 6)
    for weights in (frame_kt1c, joint_k1vc):
        assert (weights > 0).all()
        assert (weights < 1).all()
    order_v = torch.tensor([2, 0, 3, 1])
    again_kt1c, moved_k1vc = attention.weights(x_ktvc[:, :, order_v], None)
    torch.testing.assert_close(again_kt1c, frame_kt1c)
    torch.testing.assert_close(moved_k1vc, joint_k1vc[:, :, order_v])


def test_half_of_the_channels_are_squeezed():
    attention = JointAttention(8)
    assert attention.squeeze.weight.shape == (4, 8)
