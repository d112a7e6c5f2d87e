"""How a GRU goes over clips of any lengths: on CPUs, on GPUs, and in graphs that are exported."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.blocks.dropout import Dropout
from ssl_skeleton.encoders.frame_rows import FrameRows
from ssl_skeleton.encoders.gru_layer import gru_layer
from ssl_skeleton.encoders.tracing import exporting


def recur(gru: nn.GRU, x_nti: Tensor, lengths: Tensor, frames: int | None = None) -> Tensor:
    """The states (N, T, D) of the last layer of a `batch_first` GRU, zero past a clip's length.

    The inputs are (N, T, I), or (N, 1, I) of clips whose T = `frames` frames all hear the same. What lies in
    frames that are not valid is not looked at. In training, the GRU's own dropout lies between its layers.
    """
    frames = frames or x_nti.shape[1]
    if x_nti.device.type == "cpu" and not exporting():
        layers = _layer_by_layer
        if torch.compiler.is_compiling():
            layers = torch.compiler.disable(layers)  # type: ignore[no-untyped-call]
        return layers(gru, x_nti, lengths, frames)
    x_nti = x_nti.expand(-1, frames, -1)
    if exporting() and not gru.training:
        valid_nt = frame_mask(lengths, frames)
        x_nti = torch.where(valid_nt[..., None], x_nti, 0)
        return torch.where(valid_nt[..., None], scanned(gru, x_nti, valid_nt), 0)
    return _by_library(gru, x_nti, lengths)


def _layer_by_layer(gru: nn.GRU, x_nti: Tensor, lengths: Tensor, frames: int) -> Tensor:
    """By the layers made for CPUs, which no graph holds: it would be as long as a clip."""
    directions = 2 if gru.bidirectional else 1
    rows = FrameRows.of(lengths, frames, directions)
    dropout = Dropout(gru.dropout).train(gru.training)
    dtype = gru.all_weights[0][0].dtype
    if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
    for layer in range(gru.num_layers):
        weights = chain(*gru.all_weights[layer * directions : (layer + 1) * directions])
        x_nti = gru_layer(dropout(x_nti) if layer else x_nti, rows, [*weights], dtype)
    return x_nti


def _by_library(gru: nn.GRU, x_nti: Tensor, lengths: Tensor) -> Tensor:
    """By torch's own operation, which is a library's kernel on GPUs."""
    if bool((lengths == x_nti.shape[1]).all()):
        states_ntd: Tensor = gru(x_nti)[0]
        return states_ntd
    packed = pack_padded_sequence(x_nti, lengths.cpu(), batch_first=True, enforce_sorted=False)
    return pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=x_nti.shape[1])[0]


def scanned(gru: nn.GRU, x_nti: Tensor, valid_nt: Tensor) -> Tensor:
    """What `gru` gives in eval mode, (N, T, D), for inputs (N, T, I) with valid frames (N, T), by a scan.

    It can be exported for any number of frames: torch would export its own operation for the T of the example
    alone, and packed sequences not at all. Other frames are passed over, so a backward direction begins at a
    clip's own end; what stands there in the output means nothing.
    """
    directions = 2 if gru.bidirectional else 1
    for layer in range(gru.num_layers):
        weights = gru.all_weights[layer * directions : (layer + 1) * directions]
        ways = [_direction(x_nti, valid_nt, way, reverse=bool(back)) for back, way in enumerate(weights)]
        x_nti = torch.cat(ways, dim=2)
    return x_nti


def _direction(x_nti: Tensor, valid_nt: Tensor, weights: Sequence[Tensor], *, reverse: bool) -> Tensor:
    """One direction of one layer (Cho et al., EMNLP 2014), with the gates in torch's order."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    from torch._higher_order_ops.scan import scan  # noqa: PLC0415 - no public name: only exports rely on it

    def step(state_nh: Tensor, frame: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        gates_ng, valid_n1 = frame
        reset, update, new = gates_ng.chunk(3, dim=1)
        state_reset, state_update, state_new = functional.linear(state_nh, weight_hh, bias_hh).chunk(3, dim=1)
        update_nh = (update + state_update).sigmoid()
        new_nh = (new + (reset + state_reset).sigmoid() * state_new).tanh()
        next_nh = torch.where(valid_n1, new_nh + update_nh * (state_nh - new_nh), state_nh)
        return next_nh, next_nh.clone()

    gates_tng = functional.linear(x_nti, weight_ih, bias_ih).transpose(0, 1)
    start_nh = x_nti.new_zeros(x_nti.shape[0], weight_hh.shape[1])
    _, states_tnh = scan(step, start_nh, (gates_tng, valid_nt.T[..., None]), reverse=reverse)
    states_nth: Tensor = states_tnh.transpose(0, 1)
    return states_nth
