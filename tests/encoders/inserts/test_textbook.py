"""Every insert against its paper's form: (N, C, T, V), one step after the other, in float64."""

import pytest
import torch
from torch.nn import functional

from ssl_skeleton.encoders.inserts.aggregation import MultipleTemporalAggregationConfig
from ssl_skeleton.encoders.inserts.deformable import DeformableConvolutionConfig
from ssl_skeleton.encoders.inserts.excitation import (
    ChannelExcitationConfig,
    MotionExcitationConfig,
    SpatioTemporalExcitationConfig,
)
from ssl_skeleton.encoders.inserts.non_local import NonLocalConfig
from ssl_skeleton.encoders.inserts.spatio_temporal_motion import SpatioTemporalMotionConfig
from ssl_skeleton.encoders.inserts.temporal_shift import TemporalShiftConfig


def norm(layer, x_nctv):
    return functional.batch_norm(x_nctv, None, None, layer.weight, layer.bias, training=True)


def pointwise(layer, x_nctv):
    return functional.conv2d(x_nctv, layer.weight[..., None, None])


def neighbour(x_nctv, frame):
    """A frame, zero where there is none."""
    inside = 0 <= frame < x_nctv.shape[2]
    return x_nctv[:, :, frame] if inside else torch.zeros_like(x_nctv[:, :, 0])


def convolve(layer, x_nctv, *, channelwise=False):
    """A convolution over three frames, as a sum over them."""
    weight_dck = layer.convolution.weight[..., 0]
    frames = []
    for frame in range(x_nctv.shape[2]):
        taps = [neighbour(x_nctv, frame + tap) for tap in (-1, 0, 1)]
        if channelwise:
            frames.append(sum(weight_dck[:, 0, i, None] * tap for i, tap in enumerate(taps)))
        else:
            frames.append(sum(weight_dck[:, :, i] @ tap for i, tap in enumerate(taps)))
    return torch.stack(frames, dim=2)


def movement(layer, x_nctv):
    frames = x_nctv.shape[2]
    moved = [layer.next.weight @ x_nctv[:, :, frame + 1] - x_nctv[:, :, frame] for frame in range(frames - 1)]
    return torch.stack([*moved, torch.zeros_like(x_nctv[:, :, 0])], dim=2)


def excited(x_nctv, gate_nctv):
    return x_nctv + x_nctv * torch.sigmoid(gate_nctv)


def motion_excitation(insert, x_nctv):
    moved = movement(insert.movement, norm(insert.norm, pointwise(insert.squeeze, x_nctv)))
    return excited(x_nctv, pointwise(insert.expand, moved.mean(dim=3, keepdim=True)))


def channel_excitation(insert, x_nctv):
    squeezed = pointwise(insert.squeeze, x_nctv).mean(dim=3, keepdim=True)
    return excited(x_nctv, pointwise(insert.expand, convolve(insert.convolution, squeezed)))


def spatio_temporal_excitation(insert, x_nctv):
    joint = x_nctv.mean(dim=1, keepdim=True)
    body = x_nctv.mean(dim=(1, 3), keepdim=True).repeat(1, 1, 1, x_nctv.shape[3])
    return excited(x_nctv, convolve(insert.convolution, torch.cat([joint, body], dim=1)))


def temporal_shift(insert, x_nctv):
    moved, out = x_nctv.shape[1] // 8 or 1, torch.zeros_like(x_nctv)
    out[:, :moved, :-1] = x_nctv[:, :moved, 1:]
    out[:, moved : 2 * moved, 1:] = x_nctv[:, moved : 2 * moved, :-1]
    out[:, 2 * moved :] = x_nctv[:, 2 * moved :]
    return out


def multiple_temporal_aggregation(insert, x_nctv):
    one, two, three, four = x_nctv.unflatten(1, (4, -1)).unbind(dim=1)

    def sub_convolution(layer, x):
        convolved = pointwise(layer.spatial, convolve(layer.temporal, x, channelwise=True))
        return functional.relu(norm(layer.norm, convolved))

    two = sub_convolution(insert.convolutions[0], two)
    three = sub_convolution(insert.convolutions[1], three + two)
    four = sub_convolution(insert.convolutions[2], four + three)
    return torch.cat([one, two, three, four], dim=1)


def spatio_temporal_motion(insert, x_nctv):
    present = pointwise(insert.spatial, convolve(insert.temporal, x_nctv, channelwise=True))
    moving = pointwise(insert.expand, movement(insert.movement, pointwise(insert.squeeze, x_nctv)))
    return norm(insert.norm, present + moving) + x_nctv


def non_local(insert, x_nctv):
    theta, phi, g = (
        functional.conv2d(x_nctv, weight_ec[..., None, None]) for weight_ec in insert.embed.weight.chunk(3)
    )
    equation = {
        "both": ("netv,nesw->ntvsw", (3, 4), "ntvsw,nesw->netv"),
        "frames": ("netv,nesv->ntvs", (3,), "ntvs,nesv->netv"),
        "joints": ("netv,netw->ntvw", (3,), "ntvw,netw->netv"),
    }
    alike, heard, mean = equation[insert.over]
    weight = torch.exp(torch.einsum(alike, theta, phi))
    weight = weight / weight.sum(dim=heard, keepdim=True)
    return norm(insert.norm, pointwise(insert.project, torch.einsum(mean, weight, g))) + x_nctv


def deformable_convolution(insert, x_nctv):
    """Each tap as a sum over all frames, by how far they are from where it looks (eqs. 2 to 4)."""
    _, channels, frames, _ = x_nctv.shape
    groups, taps = insert.offset_bias_gr.shape
    offset_ngrtv = convolve(insert.offset, x_nctv).unflatten(1, (groups, taps))
    every_s = torch.arange(frames, dtype=x_nctv.dtype)
    weight_dgre = insert.product.weight.view(channels, groups, taps, -1)
    total = 0
    for group, x_netv in enumerate(x_nctv.chunk(groups, dim=1)):
        for tap in range(taps):
            offset_ntv = offset_ngrtv[:, group, tap] + insert.offset_bias_gr[group, tap]
            place_ntv = every_s[:, None] + (tap - taps // 2) + offset_ntv
            share_ntvs = (1 - (place_ntv[..., None] - every_s).abs()).clamp(min=0)
            taken_netv = torch.einsum("ntvs,nesv->netv", share_ntvs, x_netv)
            total = total + torch.einsum("de,netv->ndtv", weight_dgre[:, group, tap], taken_netv)
    return norm(insert.norm, total)


TEXTBOOK = [
    (MotionExcitationConfig(reduction=2), motion_excitation),
    (ChannelExcitationConfig(reduction=2), channel_excitation),
    (SpatioTemporalExcitationConfig(), spatio_temporal_excitation),
    (TemporalShiftConfig(), temporal_shift),
    (MultipleTemporalAggregationConfig(), multiple_temporal_aggregation),
    (SpatioTemporalMotionConfig(reduction=2), spatio_temporal_motion),
    (NonLocalConfig(over="both"), non_local),
    (NonLocalConfig(over="frames"), non_local),
    (NonLocalConfig(over="joints"), non_local),
    (DeformableConvolutionConfig(groups=2), deformable_convolution),
]


@pytest.mark.parametrize(("config", "textbook"), TEXTBOOK, ids=[config.name for config, _ in TEXTBOOK])
@pytest.mark.parametrize("channels", [4, 16])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_it_is_the_textbook_form(config, textbook, channels, frames):
    torch.manual_seed(frames)
    insert = config.build(channels).double()
    for parameter in insert.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x_nctv = torch.randn(3, channels, frames, 5, dtype=torch.float64, requires_grad=True)
    found = insert(x_nctv.permute(0, 2, 3, 1), None).permute(0, 3, 1, 2)
    expected = textbook(insert, x_nctv)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(expected)
    wanted = [x_nctv, *insert.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), wanted, materialize_grads=True),
        torch.autograd.grad((expected * weights).sum(), wanted, materialize_grads=True),
    )
