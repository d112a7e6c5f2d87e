"""A GRU in a form that can be exported for any number of frames."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def scanned(gru: nn.GRU, x_nti: Tensor, valid_nt: Tensor) -> Tensor:
    """What `gru` gives in eval mode, (N, T, D), for inputs (N, T, I) with valid frames (N, T), by a scan.

    Torch would export its own operation for the T of the example alone, and packed sequences not at all.
    Other frames are passed over, so a backward direction begins at a clip's own end; what stands there in the
    output means nothing.
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
