"""A layer of the GRU against the textbook form, one clip and one frame at a time, and against torch's."""

from itertools import chain

import pytest
import torch
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_skeleton.encoders.frame_rows import FrameRows
from ssl_skeleton.encoders.gru_layer import gru_layer

some_lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5)
SIZES = st.integers(1, 5)


def some_cases(inputs=SIZES, sizes=SIZES):
    """The options of `layer_and_inputs`."""
    return st.fixed_dictionaries(
        {"lengths": some_lengths, "more": st.integers(0, 2), "inputs": inputs, "size": sizes}
        | {"directions": st.sampled_from([1, 2]), "held": st.booleans(), "seed": st.integers(0, 99)}
    )


def weights_of(gru):
    return list(chain(*gru.all_weights))


def layer_and_inputs(
    lengths, *, more=0, inputs=3, size=4, directions=2, held=False, seed=0, dtype=torch.float64
):
    torch.manual_seed(seed)
    gru = nn.GRU(inputs, size, bidirectional=directions == 2, dtype=dtype)
    with torch.no_grad():
        for weight in gru.parameters():
            weight.mul_(3)  # at their start, gates are open halfway
    frames = max(lengths) + more
    x_nti = torch.randn(len(lengths), 1 if held else frames, inputs, dtype=dtype, requires_grad=True)
    return gru, x_nti, FrameRows.of(torch.tensor(lengths), frames, directions)


def textbook(gru, x_nti, lengths, frames):
    """The equations of the layer's docstring for one clip, one direction, one frame after another."""
    clips = []
    for x_ti, length in zip(x_nti.expand(-1, frames, -1), lengths, strict=True):
        ways = []
        for back, (w, u, b, c) in enumerate(gru.all_weights):
            w_r, w_z, w_n, u_r, u_z, u_n = (*w.chunk(3), *u.chunk(3))
            b_r, b_z, b_n, c_r, c_z, c_n = (*b.chunk(3), *c.chunk(3))
            h, states = torch.zeros_like(b_n), {}
            for frame in reversed(range(length)) if back else range(length):
                x = x_ti[frame]
                r = torch.sigmoid(w_r @ x + b_r + u_r @ h + c_r)
                z = torch.sigmoid(w_z @ x + b_z + u_z @ h + c_z)
                n = torch.tanh(w_n @ x + b_n + r * (u_n @ h + c_n))
                h = (1 - z) * n + z * h
                states[frame] = h
            ways.append(torch.stack([states.get(t, torch.zeros_like(h)) for t in range(frames)]))
        clips.append(torch.cat(ways, dim=1))
    return torch.stack(clips)


def with_slopes(y_ntd, x_nti, gru):
    """The states, and the slopes of a sum of them, each weighed differently, by inputs and weights."""
    weigh_ntd = torch.randn(y_ntd.shape, generator=torch.Generator().manual_seed(1)).to(y_ntd.dtype)
    return [y_ntd.detach(), *torch.autograd.grad((y_ntd * weigh_ntd).sum(), [x_nti, *gru.parameters()])]


@settings(max_examples=examples(40), deadline=None)
@given(case=some_cases())
def test_values_and_gradients_are_those_of_the_textbook(case):
    gru, x_nti, rows = layer_and_inputs(**case)
    expected = with_slopes(textbook(gru, x_nti, case["lengths"], rows.frames), x_nti, gru)
    found = with_slopes(gru_layer(x_nti, rows, weights_of(gru), torch.float64), x_nti, gru)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@settings(max_examples=examples(30), deadline=None)
@given(case=some_cases(), dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_nothing_changes_where_no_gradient_is_wanted(case, dtype):
    gru, x_nti, rows = layer_and_inputs(**case)
    trained_ntd = gru_layer(x_nti, rows, weights_of(gru), dtype)
    assert trained_ntd.dtype == dtype
    with torch.no_grad():
        assert torch.equal(gru_layer(x_nti, rows, weights_of(gru), dtype), trained_ntd)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("held", [False, True])
def test_gradients(directions, held):
    gru, x_nti, rows = layer_and_inputs([3, 1, 3], more=1, inputs=2, size=3, directions=directions, held=held)
    assert torch.autograd.gradcheck(
        lambda x, *weights: gru_layer(x, rows, weights, torch.float64), (x_nti, *weights_of(gru))
    )


@settings(max_examples=examples(15), deadline=None)
@given(case=some_cases(st.integers(4, 40), st.integers(8, 40)))
def test_16_bits_are_near(case):
    gru, x_nti, rows = layer_and_inputs(**case)
    expected = with_slopes(gru_layer(x_nti, rows, weights_of(gru), torch.float64), x_nti, gru)
    found = with_slopes(gru_layer(x_nti, rows, weights_of(gru), torch.bfloat16), x_nti, gru)
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() <= 0.03 * other.norm()


@torch.no_grad()
def test_a_state_moves_by_steps_far_smaller_than_16_bits_know():
    """z is nearly 1: each step adds a thousandth of what is missing, and nothing to a state of 16 bits."""
    gru, frames = nn.GRU(1, 32), 400
    for weight in gru.parameters():
        weight.zero_()
    gru.bias_ih_l0[32:64] = 7.0
    gru.bias_ih_l0[64:] = 3.0
    x_nti, rows = torch.zeros(1, frames, 1), FrameRows.of(torch.tensor([frames]), frames, 1)
    exact_ntd = gru_layer(x_nti, rows, weights_of(gru.double()), torch.float64)
    found_ntd = gru_layer(x_nti, rows, weights_of(gru.float()), torch.bfloat16)
    assert exact_ntd[0, -1, 0] > 0.25
    torch.testing.assert_close(found_ntd.double(), exact_ntd, rtol=0.01, atol=1e-3)


def test_autocast_around_it_changes_nothing():
    gru, x_nti, rows = layer_and_inputs([4, 2], dtype=torch.float32)
    expected = with_slopes(gru_layer(x_nti, rows, weights_of(gru), torch.float32), x_nti, gru)
    with torch.autocast("cpu", torch.bfloat16):
        found = with_slopes(gru_layer(x_nti, rows, weights_of(gru), torch.float32), x_nti, gru)
    assert all(map(torch.equal, found, expected))


def test_a_graph_can_be_gone_through_twice():
    gru, x_nti, rows = layer_and_inputs([4, 2])
    y_ntd = gru_layer(x_nti, rows, weights_of(gru), torch.float64).square().sum()
    first = torch.autograd.grad(y_ntd, [x_nti, *gru.parameters()], retain_graph=True)
    assert all(map(torch.equal, torch.autograd.grad(y_ntd, [x_nti, *gru.parameters()]), first))


def test_frozen_parts_take_no_gradient():
    gru, x_nti, rows = layer_and_inputs([4, 2])
    full = torch.autograd.grad(gru_layer(x_nti, rows, weights_of(gru), torch.float64).sum(), gru.weight_hh_l0)
    gru.requires_grad_(False).weight_hh_l0.requires_grad_()
    gru_layer(x_nti.detach(), rows, weights_of(gru), torch.float64).sum().backward()
    assert torch.equal(gru.weight_hh_l0.grad, full[0])
    assert gru.weight_ih_l0.grad is None
