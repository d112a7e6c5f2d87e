import copy
import math

import pytest
import torch
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.recurrence import recur, scanned

some_lengths = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def gru_of(inputs, size, layers, *, bidirectional=True, **options):
    torch.manual_seed(inputs)
    return nn.GRU(inputs, size, layers, batch_first=True, bidirectional=bidirectional, **options).double()


grus = st.builds(gru_of, st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), bidirectional=st.booleans())


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def packed(gru, x_nti, lengths_n):
    """The usual way: torch's GRU over packed sequences."""
    sequences = pack_padded_sequence(x_nti, lengths_n, batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(gru(sequences)[0], batch_first=True, total_length=x_nti.shape[1])[0]


def with_gradients(states_ntd, x_nti, gru):
    slope_ntd = normal(*states_ntd.shape, seed=1).to(states_ntd.dtype)
    return [states_ntd.detach(), *torch.autograd.grad(states_ntd, [x_nti, *gru.parameters()], slope_ntd)]


@settings(max_examples=examples(40), deadline=None)
@given(lengths=some_lengths, more=st.integers(0, 3), gru=grus)
def test_it_gives_what_torch_s_gru_gives(lengths, more, gru):
    lengths_n = torch.tensor(lengths)
    x_nti = normal(len(lengths), max(lengths) + more, gru.input_size).requires_grad_()
    expected = with_gradients(packed(gru, x_nti, lengths_n), x_nti, gru)
    torch.testing.assert_close(with_gradients(recur(gru, x_nti, lengths_n), x_nti, gru), expected)
    with torch.no_grad():
        assert torch.equal(recur(gru.eval(), x_nti, lengths_n), recur(gru.train(), x_nti, lengths_n))


@settings(max_examples=examples(20), deadline=None)
@given(lengths=some_lengths, more=st.integers(0, 3), gru=grus)
def test_frames_may_all_hear_the_same(lengths, more, gru):
    lengths_n, frames = torch.tensor(lengths), max(lengths) + more
    x_n1i = normal(len(lengths), 1, gru.input_size).requires_grad_()
    expected = with_gradients(packed(gru, x_n1i.expand(-1, frames, -1), lengths_n), x_n1i, gru)
    torch.testing.assert_close(with_gradients(recur(gru, x_n1i, lengths_n, frames), x_n1i, gru), expected)


@pytest.mark.parametrize("garbage", [0.0, 1e30, math.inf, math.nan])
def test_what_lies_in_other_frames_is_not_looked_at(garbage):
    gru, lengths_n = gru_of(3, 4, 2), torch.tensor([2, 7, 5])
    x_nti = normal(3, 8, 3)
    expected = with_gradients(recur(gru, x_nti.requires_grad_(), lengths_n), x_nti, gru)
    filled_nti = torch.where(frame_mask(lengths_n, 8)[..., None], x_nti.detach(), garbage).requires_grad_()
    found = with_gradients(recur(gru, filled_nti, lengths_n), filled_nti, gru)
    assert all(map(torch.equal, found, expected))
    assert not found[1][~frame_mask(lengths_n, 8)].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_are_of_what_autocast_asks_for(dtype):
    gru, lengths_n = gru_of(24, 32, 2).float(), torch.tensor([9, 4, 12])
    x_nti = normal(3, 12, 24).requires_grad_()
    double = copy.deepcopy(gru).double()
    exact = with_gradients(recur(double, x_nti, lengths_n), x_nti, double)
    with torch.autocast("cpu", dtype):
        states_ntd = recur(gru, x_nti.float(), lengths_n)
    assert states_ntd.dtype == dtype
    found = with_gradients(states_ntd, x_nti, gru)
    for one, other in zip(found, exact, strict=True):
        assert (one.double() - other).norm() < 0.02 * other.norm()


def test_the_gru_s_own_dropout_lies_between_its_layers():
    gru, lengths_n = gru_of(3, 50, 2, dropout=0.4), torch.tensor([6, 6])
    x_nti, seen = normal(2, 6, 3), []
    below = nn.GRU(3, 50, 1, batch_first=True, bidirectional=True).double()
    below.load_state_dict({name: gru.state_dict()[name] for name in below.state_dict()})
    whole_ntd = recur(below, x_nti, lengths_n)
    with torch.no_grad():  # the layer above lets one feature after another through, as tanh of three times it
        for parameter in (gru.weight_hh_l1, gru.bias_ih_l1, gru.bias_hh_l1, gru.weight_ih_l1):
            parameter.zero_()
        gru.weight_ih_l1[100:150] = torch.eye(50, 100) * 3
        gru.bias_ih_l1[50:100] = -50  # next to nothing of its state is kept
    for seed in range(20):
        torch.manual_seed(seed)
        seen.append(recur(gru.train(), x_nti, lengths_n)[..., :50].atanh() / 3)
    kept = torch.stack(seen).abs() > 1e-9
    assert float(kept.double().mean()) == pytest.approx(0.6, abs=0.02)
    expected = torch.stack([whole_ntd[..., :50] / 0.6] * 20)
    torch.testing.assert_close(torch.stack(seen)[kept], expected[kept])
    torch.testing.assert_close(recur(gru.eval(), x_nti, lengths_n)[..., :50].atanh() / 3, whole_ntd[..., :50])


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (1, True), (3, True)])
def test_a_scan_gives_what_torch_s_gru_gives(layers, bidirectional):
    gru, lengths_n = gru_of(5, 4, layers, bidirectional=bidirectional), torch.tensor([3, 7, 1])
    x_nti, valid_nt = normal(3, 8, 5), frame_mask(lengths_n, 8)
    with torch.no_grad():
        found = scanned(gru, x_nti, valid_nt)
        torch.testing.assert_close(found[valid_nt], packed(gru, x_nti, lengths_n)[valid_nt])
