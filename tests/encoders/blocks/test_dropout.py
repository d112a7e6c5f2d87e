import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.encoders.blocks.dropout import Dropout


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
