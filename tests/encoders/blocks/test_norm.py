import copy
from itertools import pairwise

import pytest
import ranked_jobs
import torch
from builders import examples
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import same
from torch.nn import functional

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.blocks import norm as norm_module
from ssl_skeleton.encoders.blocks.norm import FrameNorm, SyncedBatchNorm


def seen_norm(channels: int, kind: type[SyncedBatchNorm] = FrameNorm) -> SyncedBatchNorm:
    """A norm with weights and statistics of its own, in float64."""
    norm = kind(channels).double()
    for tensor in norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 2.0)
    return norm


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_other_frames_are_as_if_not_there(lengths, seed):
    torch.manual_seed(seed)
    norm, other = seen_norm(3), seen_norm(3)
    other.load_state_dict(norm.state_dict())
    frames = max(lengths) + 1
    x_ktvc = torch.randn(len(lengths), frames, 2, 3, dtype=torch.float64)
    mask_kt = frame_mask(torch.tensor(lengths), frames)
    for training in (True, False):
        found = norm.train(training)(x_ktvc, mask_kt)
        rows = torch.cat([x_tvc[:length] for x_tvc, length in zip(x_ktvc, lengths, strict=True)]).flatten(
            0, 1
        )
        assert torch.equal(found[mask_kt].flatten(0, 1), other.train(training)(rows[:, None, None])[:, 0, 0])
        assert not found[~mask_kt].any()
    assert torch.equal(norm.running_var, other.running_var)


def test_it_is_torch_s_norm_over_all_but_the_last_dimension():
    norm = seen_norm(3)
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    x_ktvc = torch.randn(2, 5, 4, 3, dtype=torch.float64) * 3 + 1
    expected = functional.batch_norm(x_ktvc.permute(0, 3, 1, 2), mean, variance, norm.weight, norm.bias, True)
    torch.testing.assert_close(norm(x_ktvc), expected.permute(0, 2, 3, 1))
    torch.testing.assert_close((norm.running_mean, norm.running_var), (mean, variance))


def test_one_row_alone_is_normalised_by_what_was_seen():
    norm = seen_norm(3)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    x_ktvc = torch.randn(1, 1, 1, 3, dtype=torch.float64)
    assert torch.equal(norm.train()(x_ktvc), norm.eval()(x_ktvc))
    assert all(torch.equal(before[name], tensor) for name, tensor in norm.state_dict().items())


def partition(rows: int, cuts: list[int]) -> list[int]:
    """How many of so many rows each rank has."""
    places = [0, *sorted(min(cut, rows) for cut in cuts), rows]
    return [end - begin for begin, end in pairwise(places)]


def alone_and_together(norm, job, parts, slopes, ranks_at_hand, *, compiled=False):
    """What a norm gives and learns from all parts at once on one rank, and from one part a rank."""
    state = copy.deepcopy(norm)
    alone, kept = job(norm, [whole(parts)], [torch.cat(slopes)])
    job = ranked_jobs.normalised_frames_compiled if compiled else job
    found = ranks_at_hand.together(len(parts), job, state, parts, slopes)
    together = {name: torch.cat([own[name] for own, _ in found]) for name in ("normal", "slope")}
    weights = {name: sum(own[name] for own, _ in found) for name in ("weight", "bias")}
    assert all(same(buffers, found[0][1]) for _, buffers in found)
    return (alone, kept), (together | weights, found[0][1])


def whole(parts):
    if isinstance(parts[0], tuple):
        return tuple(map(torch.cat, zip(*parts, strict=True)))
    return torch.cat(parts)


@settings(max_examples=examples(12), deadline=None)
@given(
    rows=st.integers(0, 9),
    cuts=st.lists(st.integers(0, 9), min_size=1, max_size=2),
    momentum=st.sampled_from([0.1, None]),
    shift=st.sampled_from([0.0, 1e4]),
)
@example(rows=1, cuts=[0], momentum=0.1, shift=0.0)  # one row of all: nothing to learn from it
@example(rows=2, cuts=[1], momentum=0.1, shift=0.0)  # each has one row, but they have two
@example(rows=6, cuts=[0, 6], momentum=None, shift=1e4)  # two of three have none
def test_ranks_normalise_together(rows, cuts, momentum, shift, ranks_at_hand):
    torch.manual_seed(rows)
    norm, sizes = seen_norm(3, SyncedBatchNorm), partition(rows, cuts)
    norm.momentum = momentum
    parts = list((torch.randn(rows, 3, dtype=torch.float64) + shift).split(sizes))
    slopes = list(torch.randn(rows, 3, dtype=torch.float64).split(sizes))
    if rows == 0:  # on one rank torch refuses
        found = ranks_at_hand.together(len(parts), ranked_jobs.normalised_rows, norm, parts, slopes)
        assert all(same(buffers, dict(norm.named_buffers())) for _, buffers in found)
        return
    alone, together = alone_and_together(norm, ranked_jobs.normalised_rows, parts, slopes, ranks_at_hand)
    # Far from zero, coordinates themselves are known to 1e-12 alone.
    torch.testing.assert_close(together, alone, rtol=1e-7, atol=1e-7 if shift else 1e-12)


@pytest.mark.parametrize("cuts", [[2], [1, 4]])
@pytest.mark.parametrize("compiled", [False, True])
def test_ranks_normalise_their_valid_frames_together(compiled, cuts, ranks_at_hand):
    torch.manual_seed(0)
    lengths, frames = torch.tensor([3, 1, 4, 2, 4]), 4
    mask_kt = frame_mask(lengths, frames)
    x_ktvc = torch.randn(5, frames, 2, 3, dtype=torch.float64)
    x_ktvc[~mask_kt] = torch.nan
    sizes = partition(5, cuts)
    parts = list(zip(x_ktvc.split(sizes), mask_kt.split(sizes), strict=True))
    slopes = list(torch.randn(5, frames, 2, 3, dtype=torch.float64).split(sizes))
    norm, job = seen_norm(3), ranked_jobs.normalised_frames
    alone, together = alone_and_together(norm, job, parts, slopes, ranks_at_hand, compiled=compiled)
    torch.testing.assert_close(together, alone)


def test_ranks_normalise_half_precision_as_one_rank_does(ranks_at_hand):
    torch.manual_seed(0)
    norm = SyncedBatchNorm(4)
    rows_rc = (100 + torch.randn(300, 4)).bfloat16()
    slopes = list(torch.randn(300, 4).bfloat16().split([100, 200]))
    parts = list(rows_rc.split([100, 200]))
    alone, together = alone_and_together(norm, ranked_jobs.normalised_rows, parts, slopes, ranks_at_hand)
    assert together[0]["normal"].dtype == alone[0]["normal"].dtype == torch.bfloat16
    torch.testing.assert_close(together[1], alone[1])
    torch.testing.assert_close(together[0], alone[0], atol=0.02, rtol=0.02)


def test_statistics_far_from_zero_are_as_exact_as_torch_s():
    """A difference of squares would lose the variance in float32."""
    torch.manual_seed(0)
    rows_rc = 4096 + torch.randn(500, 3)
    mean_c, square_c, count = norm_module._statistics(rows_rc)
    exact = rows_rc.double()
    torch.testing.assert_close(mean_c.double(), exact.mean(dim=0), rtol=1e-6, atol=0)
    torch.testing.assert_close(square_c.double() / 500, exact.var(dim=0, correction=0), rtol=1e-4, atol=0)
    assert count == 500
