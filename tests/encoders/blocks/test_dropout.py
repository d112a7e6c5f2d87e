import pytest
import torch

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
