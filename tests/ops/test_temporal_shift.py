import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_same_gradients

from ssl_skeleton.ops import temporal_shift as module
from ssl_skeleton.ops.temporal_shift import temporal_shift

sizes = st.tuples(st.integers(0, 2), st.integers(1, 7), st.integers(1, 4), st.integers(1, 4))
offsets = st.floats(-9, 9) | st.sampled_from([0.0, 1.0, -2.0, 0.5, 1e9, -1e9, math.inf, -math.inf])


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def by_loops(x_ktvc, frames_c, joints_c, stride):
    """Every value by itself: the places around it, each with its share."""
    clips, frames, joints, channels = x_ktvc.shape
    out_ktvc = torch.zeros(clips, len(range(0, frames, stride)), joints, channels, dtype=x_ktvc.dtype)
    for channel in range(channels):
        for row, frame, down in around(frames_c[channel], range(0, frames, stride), frames):
            for column, joint, across in around(joints_c[channel], range(joints), joints):
                value = x_ktvc[:, frame, joint, channel] * down * across
                out_ktvc[:, row, column, channel] = out_ktvc[:, row, column, channel] + value
    return out_ktvc


def around(offset, places, size):
    if not offset.isfinite():
        return
    low = math.floor(offset.item())
    for row, place in enumerate(places):
        for whole, share in ((place + low, 1 - (offset - low)), (place + low + 1, offset - low)):
            if 0 <= whole < size:
                yield row, whole, share


def check(kernel, device, inputs, stride):
    """Values and all gradients against loops."""
    x_ktvc, frames_c, joints_c = inputs
    leaves = [leaf.requires_grad_() for leaf in inputs if leaf is not None]
    still_c = torch.zeros(x_ktvc.shape[3], dtype=torch.float64)
    wanted_ktvc = by_loops(x_ktvc, frames_c, still_c if joints_c is None else joints_c, stride)
    there = [None if leaf is None else leaf.to(device) for leaf in inputs]
    out_ktvc = temporal_shift(*there, stride=stride, kernel=kernel).cpu()
    torch.testing.assert_close(out_ktvc, wanted_ktvc, rtol=1e-12, atol=1e-12)
    pull_ktvc = random(*wanted_ktvc.shape, seed=9)
    grads = torch.autograd.grad(out_ktvc, leaves, pull_ktvc)
    wanted = [torch.zeros_like(leaf) for leaf in leaves]
    if wanted_ktvc.requires_grad:  # something was within the clip
        found = torch.autograd.grad(wanted_ktvc, leaves, pull_ktvc, allow_unused=True)
        wanted = [zero if grad is None else grad for zero, grad in zip(wanted, found, strict=True)]
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, want)


@given(sizes, st.integers(1, 3), st.data())
@settings(max_examples=30, deadline=None)
def test_values_and_gradients_are_those_of_loops(kernel, device, size, stride, data):
    drawn = st.lists(offsets, min_size=size[3], max_size=size[3])
    frames_c = torch.tensor(data.draw(drawn), dtype=torch.float64)
    joints_c = torch.tensor(data.draw(drawn), dtype=torch.float64) if data.draw(st.booleans()) else None
    check(kernel, device, (random(*size), frames_c, joints_c), stride)


@pytest.mark.parametrize("stride", [1, 2])
def test_features_may_have_any_strides(kernel, device, stride):
    x_ktvc = random(2, 5, 6, 4).permute(0, 2, 3, 1)  # from (K, C, T, V)
    assert not x_ktvc.is_contiguous()
    check(kernel, device, (x_ktvc, 3 * random(10)[::2], 2 * random(10, seed=1)[::2]), stride)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU or none")
def test_it_runs_on_a_gpu_that_is_not_the_current_one(kernel):
    inputs = (random(2, 5, 3, 4), random(4, seed=1), random(4, seed=2))
    check(kernel, torch.device("cuda", torch.cuda.device_count() - 1), inputs, 2)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_many_frames_and_channels_equal_the_reference(kernel, device, stride, across):
    """More frames and more channels than a tile holds."""
    leaves = [random(2, 67, 3, 37), 9 * random(37, seed=1)] + ([random(37, seed=2)] if across else [])
    leaves = [leaf.requires_grad_() for leaf in leaves]
    out_ktvc = temporal_shift(*[leaf.to(device) for leaf in leaves], stride=stride, kernel=kernel).cpu()
    wanted_ktvc = temporal_shift(*leaves, stride=stride, kernel="torch")
    torch.testing.assert_close(out_ktvc, wanted_ktvc)
    assert_same_gradients(out_ktvc, wanted_ktvc, leaves)


@pytest.mark.parametrize("reach", [-1, 2, 16])
@given(sizes, st.integers(1, 3), st.data())
@settings(max_examples=20, deadline=None)
def test_the_two_ways_of_the_reference_are_equal(reach, size, stride, data):
    """Gathered where a channel looks farther than the convolution reaches."""
    drawn = st.lists(st.floats(-4, 4) | st.integers(-2, 2).map(float), min_size=size[3], max_size=size[3])
    offsets = [torch.tensor(data.draw(drawn), dtype=torch.float64) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_REACH", reach)
        check("torch", torch.device("cpu"), (random(*size), *offsets), stride)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_two_ways_are_equal_in_single_and_half_precision(dtype, stride):
    leaves = [random(2, 9, 5, 16, dtype=dtype), 2 * random(16, dtype=torch.float32, seed=1)]
    found = []
    for reach in (-1, 16):
        leaves = [leaf.detach().requires_grad_() for leaf in leaves]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_REACH", reach)
            out_ktvc = temporal_shift(*leaves, leaves[1] / 3, stride=stride)
        pull_ktvc = random(*out_ktvc.shape, dtype=dtype, seed=9)
        found.append([out_ktvc, *torch.autograd.grad(out_ktvc, leaves, pull_ktvc)])
    for one, other in zip(*found, strict=True):
        assert one.dtype == other.dtype
        assert (one - other).norm() < (1e-6 if dtype == torch.float32 else 2e-2) * one.norm()


def test_an_offset_that_is_no_number_is_seen():
    """So that the loss is no number either, and whoever trains hears of it."""
    out_ktvc = temporal_shift(random(1, 3, 2, 2), torch.tensor([math.nan, 0.5]))
    assert out_ktvc[..., 0].isnan().all()
    assert out_ktvc[..., 1].isfinite().all()


def test_whole_offsets_only_move(kernel, device):
    x_ktvc = random(2, 6, 3, 2)
    out_ktvc = temporal_shift(
        x_ktvc.to(device),
        torch.tensor([2.0, -1.0]).to(device),
        torch.tensor([0.0, 1.0]).to(device),
        kernel=kernel,
    ).cpu()
    wanted_ktvc = torch.zeros_like(x_ktvc)
    wanted_ktvc[:, :4, :, 0] = x_ktvc[:, 2:, :, 0]
    wanted_ktvc[:, 1:, :2, 1] = x_ktvc[:, :-1, 1:, 1]
    assert torch.equal(out_ktvc, wanted_ktvc)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_are_those_of_differences(kernel, device, stride, across):
    # Between whole numbers, where there are kinks, and one within a clip and one beyond.
    offsets = [torch.tensor([-0.7, 2.3], dtype=torch.float64), torch.tensor([0.6, -0.4], dtype=torch.float64)]
    inputs = [random(1, 3, 2, 2), *offsets[: 1 + across]]
    assert torch.autograd.gradcheck(
        lambda *leaves: temporal_shift(*leaves, stride=stride, kernel=kernel),
        [leaf.to(device).requires_grad_() for leaf in inputs],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_type_stays_also_under_autocast(kernel, device, dtype):
    x_ktvc = random(2, 5, 3, 4, dtype=dtype).to(device).requires_grad_()
    frames_c = random(4, dtype=torch.float32).to(device).requires_grad_()
    with torch.autocast(device.type, torch.bfloat16):
        out_ktvc = temporal_shift(x_ktvc, frames_c, frames_c, kernel=kernel)
    out_ktvc.sum().backward()
    assert (out_ktvc.dtype, x_ktvc.grad.dtype, frames_c.grad.dtype) == (dtype, dtype, torch.float32)
    offset_c = frames_c.double().cpu()
    wanted_ktvc = by_loops(x_ktvc.double().cpu(), offset_c, offset_c, 1)
    rough = 1e-6 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(out_ktvc.double().cpu(), wanted_ktvc, rtol=rough, atol=rough)


def test_offsets_are_read_in_more_than_half_precision(kernel, device):
    x_ktvc = torch.zeros(1, 103, 1, 1, dtype=torch.bfloat16, device=device)
    x_ktvc[:, 101] = 1
    out_ktvc = temporal_shift(x_ktvc, torch.tensor([100.25], device=device), kernel=kernel)
    assert out_ktvc[0, :3, 0, 0].tolist() == [0.25, 0.75, 0]


@pytest.mark.parametrize("across", [False, True])
def test_compiled_it_is_the_same(kernel, device, across):
    leaves = [random(2, 5, 3, 4), random(4, seed=1)] + ([random(4, seed=2)] if across else [])
    leaves = [leaf.to(device).requires_grad_() for leaf in leaves]

    def shift(x_ktvc, *offsets):
        return temporal_shift(x_ktvc.sin(), *offsets, stride=2, kernel=kernel).cos()

    compiled_ktvc = torch.compile(shift, fullgraph=True, backend="aot_eager")(*leaves)
    torch.testing.assert_close(compiled_ktvc, shift(*leaves))
    assert_same_gradients(compiled_ktvc, shift(*leaves), leaves)


@pytest.mark.parametrize("across", [False, True])
def test_the_operator_keeps_the_rules_of_torch(across):
    pytest.importorskip("triton", reason="triton is not installed")
    from ssl_skeleton.ops.temporal_shift_triton import shifted

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x_ktvc, frames_c, joints_c = (
        leaf.to(device).requires_grad_()
        for leaf in (random(2, 5, 3, 4), random(4, seed=1), random(4, seed=2))
    )
    torch.library.opcheck(shifted, (x_ktvc, frames_c, joints_c if across else None, 2))
    torch.library.opcheck(
        torch.ops.ssl_skeleton.temporal_shift_backward.default,
        (random(2, 3, 3, 4).to(device), x_ktvc, frames_c, joints_c if across else None, 2),
        test_utils=("test_schema", "test_faketensor"),
    )


@pytest.mark.parametrize(("shape", "stride", "fault"), [((3,), 1, "do not fit"), ((4,), 0, "at least 1")])
def test_what_does_not_fit_is_refused(kernel, device, shape, stride, fault):
    with pytest.raises(ValueError, match=fault):
        temporal_shift(random(1, 2, 3, 4).to(device), random(*shape).to(device), stride=stride, kernel=kernel)
