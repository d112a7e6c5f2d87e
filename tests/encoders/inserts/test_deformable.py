import pytest
import torch
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ssl_skeleton.encoders.inserts.deformable import DeformableConvolutionConfig, interpolated


@settings(max_examples=examples(20), deadline=None)
@given(sizes=st.tuples(*[st.integers(1, 3)] * 3), groups=st.integers(1, 3), seed=st.integers(0, 99))
def test_gradients_are_those_of_finite_differences(sizes, groups, seed):
    torch.manual_seed(seed)
    bodies, frames, joints = sizes
    x_ktvc = torch.randn(bodies, frames, joints, 2 * groups, dtype=torch.float64, requires_grad=True)
    places = torch.randint(-3, frames + 3, (bodies, frames, joints, groups, 2)) + 0.05  # no corner is near
    places = (places + 0.9 * torch.rand(places.shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(interpolated, (x_ktvc, places))


def test_places_may_lie_anywhere():
    x_ktvc = torch.arange(1.0, 4.0)[None, :, None, None]
    places = torch.tensor([-1e30, -1.0, -0.25, 0.0, 0.5, 1.75, 2.0, 2.5, 3.0, 1e30, torch.inf])
    expected = torch.tensor([0.0, 0.0, 0.75, 1.0, 1.5, 2.75, 3.0, 1.5, 0.0, 0.0, 0.0])
    found = interpolated(x_ktvc, places.expand(1, 3, 1, 1, -1))
    assert torch.equal(found, expected.expand(1, 3, 1, 1, -1)[..., None])


def test_at_a_whole_number_the_slope_is_that_ahead():
    """Where all offsets start: what they first learn depends on it."""
    x_ktvc = torch.tensor([1.0, 5.0, 2.0])[None, :, None, None]
    places = torch.arange(-1.0, 4.0).expand(1, 3, 1, 1, -1).clone().requires_grad_()
    interpolated(x_ktvc, places).sum().backward()
    slopes = torch.tensor([1.0, 4.0, -3.0, -2.0, 0.0])
    assert torch.equal(places.grad, slopes.expand(1, 3, 1, 1, -1))


def test_late_frames_keep_their_numbers_in_half_precision():
    insert = DeformableConvolutionConfig().build(4).bfloat16()
    frames_ktvgr = insert.frames(torch.randn(1, 300, 2, 4, dtype=torch.bfloat16))
    assert frames_ktvgr[0, 299, 0, 0].tolist() == [298, 299, 300]


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_it_starts_as_a_temporal_convolution(kernel):
    insert = DeformableConvolutionConfig(kernel=kernel, groups=2).build(4).double().eval()
    x_ktvc = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    weight_dcr = insert.product.weight.view(4, 2, kernel, 2).transpose(2, 3).flatten(1, 2)
    convolved = functional.conv2d(x_ktvc.permute(0, 3, 1, 2), weight_dcr[..., None], padding=(kernel // 2, 0))
    torch.testing.assert_close(insert(x_ktvc, None), insert.norm(convolved.permute(0, 2, 3, 1)))
