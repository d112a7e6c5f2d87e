import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_same_gradients

from ssl_skeleton.ops.graph_shift import graph_shift, local_index, non_local_index, takers

sizes = st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def any_index(joints, channels, seed=0):
    """Places that many take from, places that none does, and channels that move."""
    return torch.randint(
        joints * channels, (joints * channels,), generator=torch.Generator().manual_seed(seed)
    )


def by_loops(x_ktvc, index_i, mask_vc=None):
    clips, frames, joints, channels = x_ktvc.shape
    values = []
    for clip in range(clips):
        for frame in range(frames):
            for joint in range(joints):
                for channel in range(channels):
                    source = int(index_i[joint * channels + channel])
                    value = x_ktvc[clip, frame, source // channels, source % channels]
                    if mask_vc is not None:
                        value = value * (torch.tanh(mask_vc[joint, channel]) + 1)
                    values.append(value)
    return torch.stack(values).view(x_ktvc.shape) if values else x_ktvc * 1


def check(kernel, device, x_ktvc, index_i, mask_vc):
    """Values and all gradients against loops."""
    leaves = [leaf.requires_grad_() for leaf in (x_ktvc, mask_vc) if leaf is not None]
    wanted_ktvc = by_loops(x_ktvc, index_i, mask_vc)
    there = [None if leaf is None else leaf.to(device) for leaf in (x_ktvc, index_i, mask_vc)]
    out_ktvc = graph_shift(*there, kernel=kernel).cpu()
    torch.testing.assert_close(out_ktvc, wanted_ktvc, rtol=1e-12, atol=1e-12)
    pull_ktvc = random(*x_ktvc.shape, seed=9)
    wanted = torch.autograd.grad(wanted_ktvc, leaves, pull_ktvc, allow_unused=not len(x_ktvc))
    grads = torch.autograd.grad(out_ktvc, leaves, pull_ktvc)
    for grad, want in zip(grads, wanted, strict=True):
        torch.testing.assert_close(grad, torch.zeros_like(grad) if want is None else want)


@given(sizes, st.booleans(), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_values_and_gradients_are_those_of_loops(kernel, device, size, masked, seed):
    x_ktvc, (joints, channels) = random(*size, seed=seed), size[2:]
    mask_vc = random(joints, channels, seed=seed + 1) if masked else None
    check(kernel, device, x_ktvc, any_index(joints, channels, seed), mask_vc)


@pytest.mark.parametrize("channels", [4, 5])
def test_one_place_may_be_taken_by_many(kernel, device, channels):
    """By as many as there is a table for, and by more."""
    index_i = torch.full((4 * channels,), 3)
    assert takers(index_i).shape == (4 * channels, 16 if channels == 4 else 0)
    check(kernel, device, random(2, 3, 4, channels), index_i, random(4, channels))
    check(kernel, device, random(2, 3, 4, channels), index_i, None)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU or none")
def test_it_runs_on_a_gpu_that_is_not_the_current_one(kernel):
    check(
        kernel, torch.device("cuda", torch.cuda.device_count() - 1), random(2, 3, 4, 5), any_index(4, 5), None
    )


def test_features_may_have_any_strides(kernel, device):
    x_ktvc = random(2, 5, 3, 4).permute(0, 2, 3, 1)  # from (K, C, T, V)
    assert not x_ktvc.is_contiguous()
    check(kernel, device, x_ktvc, any_index(4, 5), random(5, 4).t())
    check(kernel, device, random(4, 3, 4, 10)[::2, :, :, ::2], non_local_index(4, 5), None)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("index_of", [non_local_index, any_index])
def test_many_rows_and_channels_equal_the_reference(kernel, device, index_of, masked):
    """More frames than a program takes, more channels than a tile holds."""
    x_ktvc, index_i = random(3, 13, 25, 37), index_of(25, 37)
    leaves = [x_ktvc.requires_grad_()] + ([random(25, 37, seed=1).requires_grad_()] if masked else [])
    there = [leaf.to(device) for leaf in leaves]
    index_i = index_i.to(device)
    out_ktvc = graph_shift(there[0], index_i, *there[1:], takers_id=takers(index_i), kernel=kernel).cpu()
    wanted_ktvc = graph_shift(leaves[0], index_i.cpu(), *leaves[1:], kernel="torch")
    torch.testing.assert_close(out_ktvc, wanted_ktvc)
    assert_same_gradients(out_ktvc, wanted_ktvc, leaves)


@given(sizes, st.integers(0, 1000), st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
@settings(max_examples=30, deadline=None)
def test_with_its_takers_it_is_the_same(kernel, device, size, seed, dtype):
    source = torch.Generator().manual_seed(seed)
    index_i = torch.randperm(size[2] * size[3], generator=source)
    if seed % 3 == 0:
        index_i = any_index(*size[2:], seed)
    index_i = index_i.to(device)
    found = []
    for takers_id in (None, takers(index_i)):
        x_ktvc = random(*size, seed=seed, dtype=dtype).to(device).requires_grad_()
        mask_vc = random(*size[2:], dtype=torch.float32).to(device).requires_grad_()
        out_ktvc = graph_shift(x_ktvc, index_i, mask_vc, takers_id, kernel=kernel)
        pull_ktvc = random(*size, seed=9, dtype=dtype).to(device)
        found.append([out_ktvc, *torch.autograd.grad(out_ktvc, [x_ktvc, mask_vc], pull_ktvc)])
    assert torch.equal(found[0][0], found[1][0])
    for one, other in zip(*found, strict=True):
        rough = 4e-2 if dtype == torch.bfloat16 else 1e-6
        torch.testing.assert_close(one, other, rtol=rough, atol=rough)


def test_gradients_are_those_of_differences(kernel, device):
    inputs = [random(2, 3, 4, 3).to(device), random(4, 3, seed=1).to(device)]
    index_i = any_index(4, 3).to(device)
    assert torch.autograd.gradcheck(
        lambda x_ktvc, mask_vc: graph_shift(x_ktvc, index_i, mask_vc, kernel=kernel),
        [leaf.requires_grad_() for leaf in inputs],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_type_stays_also_under_autocast(kernel, device, dtype):
    x_ktvc = random(2, 3, 5, 4, dtype=dtype).to(device).requires_grad_()
    mask_vc = random(5, 4, dtype=torch.float32).to(device).requires_grad_()
    index_i = non_local_index(5, 4).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        out_ktvc = graph_shift(x_ktvc, index_i, mask_vc, kernel=kernel)
    out_ktvc.sum().backward()
    assert (out_ktvc.dtype, x_ktvc.grad.dtype, mask_vc.grad.dtype) == (dtype, dtype, torch.float32)
    wanted_ktvc = by_loops(x_ktvc.double().cpu(), index_i.cpu(), mask_vc.double().cpu())
    rough = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(out_ktvc.double().cpu(), wanted_ktvc, rtol=rough, atol=rough)


@pytest.mark.parametrize("masked", [False, True])
def test_compiled_it_is_the_same(kernel, device, masked):
    x_ktvc = random(2, 3, 5, 4).to(device).requires_grad_()
    mask_vc = random(5, 4, seed=1).to(device).requires_grad_() if masked else None
    index_i = any_index(5, 4).to(device)
    takers_id = takers(index_i)

    def shift(x_ktvc):
        return graph_shift(x_ktvc.sin(), index_i, mask_vc, takers_id, kernel=kernel).cos()

    compiled_ktvc = torch.compile(shift, fullgraph=True, backend="aot_eager")(x_ktvc)
    leaves = [leaf for leaf in (x_ktvc, mask_vc) if leaf is not None]
    torch.testing.assert_close(compiled_ktvc, shift(x_ktvc))
    assert_same_gradients(compiled_ktvc, shift(x_ktvc), leaves)


@pytest.mark.parametrize("masked", [False, True])
def test_the_operator_keeps_the_rules_of_torch(masked):
    pytest.importorskip("triton", reason="triton is not installed")
    from ssl_skeleton.ops.graph_shift_triton import shifted

    device = "cuda" if torch.cuda.is_available() else "cpu"
    index_i = any_index(4, 3).to(device)
    scale_vc = random(4, 3, seed=1).to(device).requires_grad_() if masked else None
    x_ktvc = random(2, 3, 4, 3).to(device).requires_grad_()
    torch.library.opcheck(shifted, (x_ktvc, index_i, takers(index_i), scale_vc))
    torch.library.opcheck(
        torch.ops.ssl_skeleton.graph_shift_backward.default,
        (x_ktvc.detach(), x_ktvc.detach() if masked else None, takers(index_i), scale_vc),
        test_utils=("test_schema", "test_faketensor"),
    )


@given(st.integers(1, 30), st.integers(1, 70))
@settings(max_examples=30, deadline=None)
def test_non_local_shift(joints, channels):
    """Channel c of joint v comes from joint v + c; the way back undoes it."""
    place_vc = torch.arange(joints * channels).view(joints, channels)
    there_vc = place_vc.flatten()[non_local_index(joints, channels)].view(joints, channels)
    for joint in range(joints):
        for channel in range(channels):
            assert there_vc[joint, channel] == place_vc[(joint + channel) % joints, channel]
    assert torch.equal(there_vc.flatten()[non_local_index(joints, channels, back=True)], place_vc.flatten())


def test_non_local_shift_is_that_of_published_lists():
    """(i * C + j + j * C) mod (C * V) on the way in, (i * C + j - j * C) mod (C * V) on the way out."""
    places = [(i, j) for i in range(25) for j in range(64)]
    assert non_local_index(25, 64).tolist() == [(i * 64 + j + j * 64) % 1600 for i, j in places]
    assert non_local_index(25, 64, back=True).tolist() == [(i * 64 + j - j * 64) % 1600 for i, j in places]


def test_local_shift():
    index_i = local_index([[1], [0, 2], [1]], channels=5)
    joints_vc, channels_vc = (index_i // 5).view(3, 5), (index_i % 5).view(3, 5)
    assert joints_vc.tolist() == [[0, 0, 1, 1, 1], [1, 0, 2, 2, 2], [2, 2, 1, 1, 1]]
    assert channels_vc.tolist() == [list(range(5))] * 3
    assert (local_index([[1, 2], [], []], channels=2) // 2).tolist() == [0, 1, 1, 1, 2, 2]


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_takers_are_those_who_take(joints, channels, seed):
    index_i = any_index(joints, channels, seed)
    takers_id = takers(index_i)
    for source, row in enumerate(takers_id.tolist()):
        wanted = [place for place, taken in enumerate(index_i.tolist()) if taken == source]
        assert row == wanted + [-1] * (takers_id.shape[1] - len(wanted))
    assert takers(non_local_index(joints, channels)).shape == (joints * channels, 1)


@pytest.mark.parametrize("wrong", [-1, 12, 2**40])
def test_takers_of_a_list_that_names_no_place_are_refused(wrong):
    index_i = non_local_index(4, 3)
    index_i[5] = wrong
    with pytest.raises(ValueError, match="of 12 places names one that is not there"):
        takers(index_i)


def test_the_kernel_reads_no_foreign_memory(device, kernel):
    if kernel == "torch":
        pytest.skip("torch refuses such a list by itself")
    x_ktvc = random(3, 2, 4, 3).to(device)[1:2]  # with other values before and behind it
    index_i = non_local_index(4, 3).to(device)
    wrong_i = index_i.clone()
    wrong_i[[0, 5]] = torch.tensor([-1, 24], device=device)
    out_ti = graph_shift(x_ktvc, wrong_i, None, takers(index_i), kernel=kernel).flatten(0, 1).flatten(1)
    assert not out_ti[:, [0, 5]].any()
    assert (out_ti != 0).sum() == 20


def test_a_list_that_does_not_fit_is_refused(kernel, device):
    with pytest.raises(ValueError, match="does not fit"):
        graph_shift(random(1, 2, 3, 4).to(device), non_local_index(3, 5).to(device), kernel=kernel)
