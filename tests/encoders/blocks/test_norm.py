import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.blocks.norm import FrameNorm


def seen_norm(channels: int) -> FrameNorm:
    """A norm with weights and statistics of its own, in float64."""
    norm = FrameNorm(channels).double()
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
