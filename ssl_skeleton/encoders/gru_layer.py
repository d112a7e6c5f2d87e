"""One layer of a GRU (Cho et al., EMNLP 2014, with torch's gates), made for CPUs: values and gradients."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ssl_skeleton.encoders.frame_rows import FrameRows
from ssl_skeleton.encoders.gru_walk import advance, each_direction, retreat


def gru_layer(x_nti: Tensor, rows: FrameRows, weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The states (N, T, D * H) of a layer with D directions; zero past a clip's length.

    Its inputs are (N, T, I), or (N, 1, I) where a clip's frames all hear the same. `weights` are four for
    each direction, as torch's GRU has them. Products are of numbers of `dtype`, and so is the result; where
    those have 16 bits, gates and states have 32 all the same.

        r = sigmoid(W_r x + U_r h + b_r), z likewise     n = tanh(W_n x + b_n + r * (U_n h + c_n))
        h' = n + z * (h - n)

    What can be done for all frames at once is: the products with the inputs, and those that give the weights'
    gradients. What is left goes frame by frame (`gru_walk.py`).
    """
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x_nti, *weights)):
        y_ntd: Tensor = _Layer.apply(x_nti, rows, dtype, *weights)  # type: ignore[no-untyped-call]
        return y_ntd
    with torch.autocast("cpu", enabled=False):
        return _features(_walk(_picked(x_nti, rows, dtype), rows, _Weights.of(weights, dtype))[0], rows)


class _Layer(Function):
    @staticmethod
    def forward(ctx: Any, x_nti: Tensor, rows: FrameRows, dtype: torch.dtype, *weights: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x_dri, cast = _picked(x_nti, rows, dtype), _Weights.of(weights, dtype)
            state_drh, gate_dkg = _walk(x_dri, rows, cast)
            ctx.save_for_backward(x_dri, state_drh, gate_dkg, cast.input_dgi, cast.hidden_dgh)
            ctx.rows, ctx.dtypes, ctx.held = rows, (x_nti.dtype, weights[0].dtype), x_nti.shape[1] == 1
            return _features(state_drh, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_ntd: Tensor) -> tuple[Tensor | None, ...]:
        rows: FrameRows = ctx.rows
        x_dri, state_drh, gate_dkg, input_dgi, hidden_dgh = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            held = x_dri.shape[1] < rows.shape[2]
            slope_dkh = _slope_rows(slope_ntd, rows)
            slopes = _walk_back(slope_dkh, rows, state_drh, gate_dkg, hidden_dgh, held=held)
            before_dkh = _rows_at(state_drh.flatten(0, 1), rows.state_rows(before=True))
            weights = _weight_slopes(slopes, x_dri, before_dkh, ctx.dtypes[1])
            x_nti = None
            if ctx.needs_input_grad[0]:
                x_nti = _spread(slopes.given_drg, input_dgi, rows, held=ctx.held).to(ctx.dtypes[0])
        return x_nti, None, None, *weights


@dataclass(frozen=True)
class _Weights:
    """The weights of all directions together, cast to what is multiplied.

    Gates lie in the order U_n h + c_n, r, z, n: what comes from U is the first three, what from W the last.
    """

    input_dgi: Tensor  # of r, z, n
    hidden_dgh: Tensor  # of n, r, z
    bias_d1g: Tensor  # of n, r, z, n: c_n, and the others' sums

    @staticmethod
    def of(weights: Sequence[Tensor], dtype: torch.dtype) -> "_Weights":
        input_dgi, hidden_dgh = (_stacked(weights[part::4], dtype) for part in (0, 1))
        bias_dg, hidden_bias_dg = (torch.stack([*weights[part::4]]) for part in (2, 3))
        size = hidden_dgh.shape[2]
        hidden_bias_dg = hidden_bias_dg.roll(size, dims=1)
        bias_dg[:, : 2 * size] += hidden_bias_dg[:, size:]
        bias_d1g = torch.cat([hidden_bias_dg[:, :size], bias_dg], dim=1)[:, None]
        return _Weights(input_dgi, hidden_dgh.roll(size, dims=1), bias_d1g.to(dtype))


def _walk(x_dri: Tensor, rows: FrameRows, weights: _Weights) -> tuple[Tensor, Tensor]:
    """The states, (D, N + K, H); and the gates (D, K, 4 H), of 16 bits before they are opened."""
    directions, clips, count = rows.shape
    size, wide = weights.hidden_dgh.shape[2], _wide(x_dri.dtype)
    gate_dkg = x_dri.new_empty(directions, x_dri.shape[1], 4 * size)
    gate_dkg[..., :size] = weights.bias_d1g[..., :size]
    torch.baddbmm(weights.bias_d1g[..., size:], x_dri, weights.input_dgi.mT, out=gate_dkg[..., size:])
    if x_dri.shape[1] < count:
        gate_dkg = gate_dkg[:, rows.place_k]
    state_drh = x_dri.new_empty(directions, clips + count, size)
    state_drh[:, :clips] = 0
    hidden_dhg = weights.hidden_dgh.mT if x_dri.dtype is not wide else weights.hidden_dgh.mT.contiguous()
    each_direction(advance, gate_dkg, state_drh, hidden_dhg, rows.sizes, wide)
    return state_drh, gate_dkg


@dataclass(frozen=True)
class _Slopes:
    """The loss's slopes by what opens the gates, in their order, in every row."""

    slope_dkg: Tensor
    given_drg: Tensor  # of those that come from W x alone; summed over frames that hear the same
    bias_dg: Tensor  # of all of them, summed over rows


def _walk_back(
    slope_dkh: Tensor, rows: FrameRows, state_drh: Tensor, gate_dkg: Tensor, hidden_dgh: Tensor, *, held: bool
) -> _Slopes:
    """From the slopes by the states, (D, K, H); where frames are `held`, they all hear the same."""
    directions, clips, _ = rows.shape
    size, wide = hidden_dgh.shape[2], _wide(state_drh.dtype)
    kept_dkg = torch.empty_like(gate_dkg)
    bias_dtg = state_drh.new_empty(directions, len(rows.sizes), 4 * size, dtype=wide)
    given_dng = state_drh.new_zeros(directions, clips if held else 0, 3 * size, dtype=wide)
    found = (kept_dkg, bias_dtg, given_dng)
    each_direction(retreat, slope_dkh, gate_dkg, state_drh, hidden_dgh, *found, rows.sizes, wide)
    given_drg = given_dng.to(state_drh.dtype) if held else kept_dkg[..., size:]
    return _Slopes(kept_dkg, given_drg, bias_dtg.sum(dim=1))


def _weight_slopes(slopes: _Slopes, x_dri: Tensor, before_dkh: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Those by the four weights of each direction, in torch's order."""
    size = before_dkh.shape[2]
    found = []
    for x_ri, before_kh, slope_kg, given_rg, bias_g in zip(
        x_dri, before_dkh, slopes.slope_dkg, slopes.given_drg, slopes.bias_dg.to(dtype), strict=True
    ):
        hidden_gh = (slope_kg[:, : 3 * size].T @ before_kh).to(dtype)
        hidden_bias_g = torch.cat([bias_g[size : 3 * size], bias_g[:size]])
        found += [(given_rg.T @ x_ri).to(dtype), hidden_gh.roll(-size, dims=0), bias_g[size:], hidden_bias_g]
    return found


def _picked(x_nti: Tensor, rows: FrameRows, dtype: torch.dtype) -> Tensor:
    """The inputs (D, R, I) of the rows, or of the clips as they come where their frames all hear the same."""
    held = x_nti.shape[1] == 1
    index_dr = rows.clip_n.expand(len(rows.frame_dk), -1) if held else rows.frame_dk
    return _rows_at(x_nti.flatten(0, 1).to(dtype), index_dr)


def _spread(given_drg: Tensor, input_dgi: Tensor, rows: FrameRows, *, held: bool) -> Tensor:
    """The slopes by the inputs, (N, T, I) or (N, 1, I); those of both directions add up."""
    index_dr = rows.clip_n.expand(len(given_drg), -1) if held else rows.frame_dk
    clips, frames = len(rows.clip_n), 1 if held else rows.frames
    x_fi = input_dgi.new_zeros(clips * frames, input_dgi.shape[2])
    for index_r, given_rg, input_gi in zip(index_dr, given_drg, input_dgi, strict=True):
        x_fi.index_add_(0, index_r, given_rg @ input_gi)
    return x_fi.view(clips, frames, -1)


def _features(state_drh: Tensor, rows: FrameRows) -> Tensor:
    """The states as features (N, T, D * H); the first row is zero, and so are frames that are not valid."""
    state_fh = _rows_at(state_drh.flatten(0, 1), rows.scattered(rows.state_rows()))
    return state_fh.view(len(rows.clip_n), rows.frames, -1)


def _slope_rows(slope_ntd: Tensor, rows: FrameRows) -> Tensor:
    """The slopes by the states of the rows, (D, K, H)."""
    directions = len(rows.frame_dk)
    slope_fh = slope_ntd.reshape(-1, slope_ntd.shape[2] // directions)
    return _rows_at(slope_fh, rows.frame_dk * directions + torch.arange(directions)[:, None])


def _rows_at(x_rf: Tensor, index_dk: Tensor) -> Tensor:
    """Rows (D, K, F) of (R, F)."""
    return x_rf.index_select(0, index_dk.flatten()).view(*index_dk.shape, -1)


def _stacked(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The parts, cast on the way."""
    stacked = parts[0].new_empty(len(parts), *parts[0].shape, dtype=dtype)
    for place, part in zip(stacked, parts, strict=True):
        place.copy_(part)
    return stacked


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What the gates and states are in when `dtype` is multiplied."""
    return torch.promote_types(dtype, torch.float32)
