import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.encoders.blocks.dropout import Dropout, dropout_of, seeded


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_share_is_dropped_and_the_mean_stays(share, dtype):
    torch.manual_seed(0)
    x = torch.ones(200, 500, dtype=dtype, requires_grad=True)
    dropped = Dropout(share)(x)
    assert dropped.dtype == dtype
    kept = dropped != 0
    assert float(kept.float().mean()) == pytest.approx(1 - share, abs=0.01)
    assert dropped[kept].tolist() == pytest.approx([1 / (1 - share)] * int(kept.sum()), rel=0.01)
    assert kept.float().mean(dim=0).std() < 0.05  # no column is dropped as a whole
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped.detach())


def test_nothing_is_dropped_in_eval_mode():
    x = torch.randn(50)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@given(shape=st.lists(st.integers(0, 5), max_size=3), share=st.floats(1e-9, 0.999), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_any_shape_and_share(dtype, shape, share, seed):
    x = torch.randn(shape, dtype=dtype)
    torch.manual_seed(seed)
    dropped = Dropout(share)(x)
    assert dropped.shape == x.shape
    kept = dropped != 0
    torch.testing.assert_close(dropped[kept], x[kept] / (1 - share), rtol=0.02, atol=1e-3)
    torch.manual_seed(seed)
    assert torch.equal(Dropout(share)(x), dropped)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_all_or_next_to_all_may_be_dropped(dtype):
    x = torch.ones(99, dtype=dtype)
    assert not Dropout(1.0)(x).any()
    assert (Dropout(1 - 1e-12)(x) != 0).sum() <= 1  # a threshold beyond the integers would not be read


@given(
    parts=st.integers(1, 3),
    clips=st.integers(1, 7),
    seed=st.integers(0, 99),
    shape=st.sampled_from([(3, 5), (4,), ()]),
)
@settings(max_examples=30, deadline=None)
def test_a_clip_meets_the_same_draws_in_any_part_of_the_batch(parts, clips, seed, shape):
    x_nd, dropout = torch.randn(clips, *shape), Dropout(0.5)
    with seeded(seed, range(clips)):
        whole = [dropout(x_nd), dropout(x_nd)]
    for number in range(min(parts, clips)):
        places = range(number, clips, parts)
        with seeded(seed, places):
            assert torch.equal(dropout(x_nd[places]), whole[0][places])
            assert torch.equal(dropout(x_nd[places]), whole[1][places])


@given(
    taken=st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=2, max_size=5),
    seed=st.integers(0, 9),
)
@settings(max_examples=30, deadline=None)
def test_so_does_a_body_whichever_others_are_there(taken, seed):
    taken_nm, everybody = torch.tensor(taken), torch.ones(len(taken), 3, dtype=torch.bool)
    x_nmd, dropout = torch.randn(len(taken), 3, 8), Dropout(0.5)
    with seeded(seed, range(len(taken))), dropout_of(everybody):
        whole_nmd = dropout(x_nmd.flatten(0, 1)).view_as(x_nmd)
    for places in (range(0, len(taken), 2), range(1, len(taken), 2)):
        some = taken_nm[places]
        with seeded(seed, places), dropout_of(some):
            assert torch.equal(dropout(x_nmd[places][some]), whole_nmd[places][some])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_padding_changes_no_draw(dtype):
    x_ntd, dropout = torch.ones(3, 9, 5, dtype=dtype), Dropout(0.5)
    found = []
    for frames in (9, 4):
        with seeded(0, range(3)):
            found.append(dropout(x_ntd[:, :frames]))
    assert torch.equal(found[0][:, :4], found[1])


def test_clips_calls_and_seeds_have_draws_of_their_own():
    x_nd, dropout, found = torch.ones(20, 64), Dropout(0.5), []
    for seed in (0, 1):
        with seeded(seed, range(20)):
            found += [*dropout(x_nd), *dropout(x_nd)]
    assert len({tuple(row.tolist()) for row in found}) == 80
    agreement = torch.stack(found).sign().corrcoef()[~torch.eye(80, dtype=torch.bool)]
    assert agreement.abs().max() < 0.7  # of 64 draws that know nothing of each other


def test_what_draws_by_itself_does_so_otherwise_in_every_part():
    found = []
    for places in (range(0, 4, 2), range(1, 4, 2), range(0, 4, 2)):
        with seeded(7, places):
            found.append(torch.rand(3))
    assert torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])


def test_outside_of_a_step_draws_follow_torch_s_seed():
    x, dropout = torch.ones(4, 50), Dropout(0.5)
    torch.manual_seed(0)
    one, other = dropout(x), dropout(x)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), one)
    assert not torch.equal(one, other)
