import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton", reason="triton is not installed")

from ssl_skeleton.ops.dropout_triton import dropped

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MASK = (1 << 64) - 1


def philox(seed: int, place: int) -> list[float]:
    """Philox 4x32-10 as Salmon et al. write it (SC 2011, Section 3.3): four numbers from 0 to 1.

    The key is the seed's two halves, the counter the place.
    """
    key, counter = [seed & 0xFFFFFFFF, (seed & MASK) >> 32], [place, 0, 0, 0]
    for _ in range(10):
        one, other = 0xD2511F53 * counter[0], 0xCD9E8D57 * counter[2]
        counter = [
            (other >> 32) ^ counter[1] ^ key[0],
            other & 0xFFFFFFFF,
            (one >> 32) ^ counter[3] ^ key[1],
            one & 0xFFFFFFFF,
        ]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    signed = [number - (1 << 32) if number >> 31 else number for number in counter]
    return [(-number - 1 if number < 0 else number) * 4.6566127342e-10 for number in signed]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_drops_by_philox(dtype):
    seeds, share, size = [3, -7, 1 << 40], 0.3, 1100
    x_kd = torch.randn(3, size, dtype=dtype, device=DEVICE, requires_grad=True)
    found_kd = dropped(x_kd, torch.tensor(seeds, device=DEVICE), share)
    for row, seed in enumerate(seeds):
        for place in (0, 1, 255, 256, 700, 1023, 1024, 1099):
            block, rest = divmod(place, 1024)
            draw = philox(seed, 256 * block + rest % 256)[rest // 256]
            expected = 0 if draw < share else x_kd[row, place] / (1 - share)
            torch.testing.assert_close(found_kd[row, place], torch.as_tensor(expected).to(found_kd))


@settings(max_examples=10, deadline=None)
@given(
    rows=st.integers(0, 3),
    shape=st.lists(st.integers(1, 5), max_size=3),
    share=st.floats(0.01, 0.99),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_values_and_gradients(rows, shape, share, dtype):
    x = torch.randn(rows, *shape, dtype=dtype, device=DEVICE).requires_grad_()
    seeds_k = torch.arange(rows, device=DEVICE)
    found = dropped(x, seeds_k, share)
    assert found.shape == x.shape
    assert found.dtype == dtype
    kept = found != 0
    torch.testing.assert_close(found[kept], (x / (1 - share))[kept], rtol=0.02, atol=1e-3)
    slope = torch.randn_like(found)
    found.backward(slope)
    torch.testing.assert_close(x.grad, torch.where(kept, slope / (1 - share), 0), rtol=0.02, atol=1e-3)


def test_a_share_is_dropped_and_a_row_knows_nothing_of_others():
    x_kd = torch.ones(4, 5000, device=DEVICE)
    seeds_k = torch.tensor([5, 6, 7, 8], device=DEVICE)
    found_kd = dropped(x_kd, seeds_k, 0.4)
    assert float((found_kd == 0).float().mean()) == pytest.approx(0.4, abs=0.01)
    assert (found_kd.cpu().corrcoef() - torch.eye(4)).abs().max() < 0.1
    assert torch.equal(dropped(x_kd[2:], seeds_k[2:], 0.4), found_kd[2:])
    assert torch.equal(dropped(x_kd[:, :1300], seeds_k, 0.4), found_kd[:, :1300])
    assert not torch.equal(dropped(x_kd, seeds_k + 4, 0.4), found_kd)
