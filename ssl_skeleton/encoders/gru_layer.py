"""One layer of a GRU (Cho et al., EMNLP 2014, with torch's gates), made for CPUs: values and gradients."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ssl_skeleton.encoders.frame_rows import FrameRows


def gru_layer(x_nti: Tensor, rows: FrameRows, weights: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The states (N, T, D * H) of a layer with D directions; zero past a clip's length.

    Its inputs are (N, T, I), or (N, 1, I) where a clip's frames all hear the same. `weights` are four for
    each direction, as torch's GRU has them. Products are of numbers of `dtype`, and so is the result; where
    those have 16 bits, gates and states have 32 all the same.

        r = sigmoid(W_r x + U_r h + b_r), z likewise     n = tanh(W_n x + b_n + r * (U_n h + c_n))
        h' = n + z * (h - n)

    A frame takes a few small operations, whose calls take as long as their work. So both directions share
    each of them, and whatever can be done for all frames at once is: the products with the inputs, and those
    that give the weights' gradients.
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
            state_rh, gate_dkg = _walk(x_dri, rows, cast)
            ctx.save_for_backward(x_dri, state_rh, gate_dkg, cast.input_dgi, cast.hidden_dgh)
            ctx.rows, ctx.dtypes, ctx.held = rows, (x_nti.dtype, weights[0].dtype), x_nti.shape[1] == 1
            return _features(state_rh, rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_ntd: Tensor) -> tuple[Tensor | None, ...]:
        rows: FrameRows = ctx.rows
        x_dri, state_rh, gate_dkg, input_dgi, hidden_dgh = ctx.saved_tensors
        with torch.autocast("cpu", enabled=False):
            held = x_dri.shape[1] < rows.shape[2]
            slopes = _walk_back(_slope_rows(slope_ntd, rows), rows, state_rh, gate_dkg, hidden_dgh, held=held)
            before_dkh = _rows_at(state_rh, rows.state_rows(before=True))
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


class _Gates:
    """U_n h + c_n, r, z and n of a frame's clips, (D, n, 4 H); or the loss's slopes by what opens them."""

    def __init__(self, all_dng: Tensor) -> None:
        self.all = all_dng
        self.heard, self.reset, self.update, self.new = all_dng.chunk(4, dim=2)

    def filled(self, all_dng: Tensor) -> "_Gates":
        """With other numbers, of fewer bits."""
        self.all.copy_(all_dng)
        return self

    def open(self) -> "_Gates":
        """From what the products gave."""
        size = self.new.shape[2]
        self.all[..., size : 3 * size].sigmoid_()
        new = torch.addcmul(self.new, self.reset, self.heard)
        self.new.copy_(new.tanh_())
        return self


def _walk(x_dri: Tensor, rows: FrameRows, weights: _Weights) -> tuple[Tensor, Tensor]:
    """The states, (R, H) in their rows; and the gates (D, K, 4 H), of 16 bits before they are opened."""
    directions, clips, count = rows.shape
    size, wide = weights.hidden_dgh.shape[2], _wide(x_dri.dtype)
    gate_dkg = x_dri.new_empty(directions, x_dri.shape[1], 4 * size)
    gate_dkg[..., :size] = weights.bias_d1g[..., :size]
    torch.baddbmm(weights.bias_d1g[..., size:], x_dri, weights.input_dgi.mT, out=gate_dkg[..., size:])
    if x_dri.shape[1] < count:
        gate_dkg = gate_dkg[:, rows.place_k]
    state_rh = x_dri.new_empty(directions * (clips + count), size)
    state_rh[: directions * clips] = 0
    states = _frames(state_rh, directions, [clips, *rows.sizes])
    gates = torch.split(gate_dkg, rows.sizes, dim=1)
    hidden_dhg = weights.hidden_dgh.mT if x_dri.dtype is not wide else weights.hidden_dgh.mT.contiguous()
    h_dnh, room_dng = (x_dri.new_zeros(directions, clips, width * size, dtype=wide) for width in (1, 4))
    for clips, frames in _runs(rows.sizes):
        h, room = h_dnh[:, :clips], _Gates(room_dng[:, :clips])
        for frame in frames:
            part = gates[frame][..., : 3 * size]
            torch.baddbmm(part, states[frame][:, :clips], hidden_dhg, out=part)
            gate = (_Gates(gates[frame]) if x_dri.dtype is wide else room.filled(gates[frame])).open()
            torch.lerp(gate.new, h, gate.update, out=h)
            states[frame + 1].copy_(h)
    return state_rh, gate_dkg


@dataclass(frozen=True)
class _Slopes:
    """The loss's slopes by what opens the gates, in their order, in every row."""

    slope_dkg: Tensor
    given_drg: Tensor  # of those that come from W x alone; summed over frames that hear the same
    bias_dg: Tensor  # of all of them, summed over rows


def _walk_back(
    slope_dkh: Tensor, rows: FrameRows, state_rh: Tensor, gate_dkg: Tensor, hidden_dgh: Tensor, *, held: bool
) -> _Slopes:
    """From the slopes by the states, (D, K, H); where frames are `held`, they all hear the same."""
    directions, clips, _ = rows.shape
    sizes, size, dtype, wide = rows.sizes, hidden_dgh.shape[2], state_rh.dtype, _wide(state_rh.dtype)
    states, kept_dkg = _frames(state_rh, directions, [clips, *sizes])[1:], torch.empty_like(gate_dkg)
    slopes, gates, kept = (torch.split(x, sizes, dim=1) for x in (slope_dkh, gate_dkg, kept_dkg))
    bias_tdg = state_rh.new_empty(len(sizes), directions, 4 * size, dtype=wide)
    given_dng = state_rh.new_zeros(directions, clips, 3 * size, dtype=wide)
    widths = (4, wide), (4, wide), (1, wide), (1, wide), (1, wide), (1, wide), (3, dtype), (1, dtype)
    rooms = [state_rh.new_zeros(directions, clips, width * size, dtype=kind) for width, kind in widths]
    for clips, frames in _runs(sizes, backwards=True):
        gate_room, by_room = (_Gates(room[:, :clips]) for room in rooms[:2])
        d, less, some, room, factor, product = (room[:, :clips] for room in rooms[2:])
        for frame in frames:
            gate = _Gates(gates[frame]) if dtype is wide else gate_room.filled(gates[frame]).open()
            by = _Gates(kept[frame]) if dtype is wide else by_room
            d.add_(_cast(slopes[frame], room))
            torch.addcmul(d, d, gate.update, value=-1, out=less)  # d (1 - z)
            torch.mul(less, gate.new, out=some)
            torch.addcmul(less, some, gate.new, value=-1, out=by.new)  # d (1 - z) (1 - n^2)
            torch.mul(by.new, gate.reset, out=by.heard)
            torch.mul(by.heard, gate.heard, out=some)
            torch.addcmul(some, some, gate.reset, value=-1, out=by.reset)
            torch.sub(_cast(states[frame], room), gate.new, out=some)  # z (h - n)
            torch.mul(some, less, out=by.update)
            torch.sum(by.all, dim=1, out=bias_tdg[frame])
            if held:
                given_dng[:, :clips].add_(by.all[..., size:])
            if dtype is not wide:
                kept[frame].copy_(by.all)
            torch.bmm(_cast(by.all[..., : 3 * size], factor), hidden_dgh, out=product)
            torch.addcmul(_cast(product, room), d, gate.update, out=d)
    given_drg = given_dng.to(dtype) if held else kept_dkg[..., size:]
    return _Slopes(kept_dkg, given_drg, bias_tdg.sum(dim=0))


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


def _features(state_rh: Tensor, rows: FrameRows) -> Tensor:
    """The states as features (N, T, D * H); the first row is zero, and so are frames that are not valid."""
    return _rows_at(state_rh, rows.scattered(rows.state_rows())).view(len(rows.clip_n), rows.frames, -1)


def _slope_rows(slope_ntd: Tensor, rows: FrameRows) -> Tensor:
    """The slopes by the states of the rows, (D, K, H)."""
    directions = len(rows.frame_dk)
    slope_fh = slope_ntd.reshape(-1, slope_ntd.shape[2] // directions)
    return _rows_at(slope_fh, rows.frame_dk * directions + torch.arange(directions)[:, None])


def _rows_at(x_rf: Tensor, index_dk: Tensor) -> Tensor:
    """Rows (D, K, F) of (R, F)."""
    return x_rf.index_select(0, index_dk.flatten()).view(*index_dk.shape, -1)


def _frames(rows_rf: Tensor, directions: int, sizes: Sequence[int]) -> list[Tensor]:
    """Rows (R, F) as frames (D, n, F) of so many clips."""
    parts = torch.split(rows_rf, [directions * size for size in sizes])
    return [part.view(directions, size, -1) for part, size in zip(parts, sizes, strict=True)]


def _runs(sizes: Sequence[int], *, backwards: bool = False) -> Iterator[tuple[int, Iterator[int]]]:
    """The frames, those next to each other that have as many clips together."""
    frames = range(len(sizes))
    return groupby(reversed(frames) if backwards else frames, key=sizes.__getitem__)


def _stacked(parts: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """The parts, cast on the way."""
    stacked = parts[0].new_empty(len(parts), *parts[0].shape, dtype=dtype)
    for place, part in zip(stacked, parts, strict=True):
        place.copy_(part)
    return stacked


def _cast(x: Tensor, room: Tensor) -> Tensor:
    """The same numbers as those of `room` are: in it, unless they are so already."""
    return x if x.dtype == room.dtype else room.copy_(x)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What the gates and states are in when `dtype` is multiplied."""
    return torch.promote_types(dtype, torch.float32)
