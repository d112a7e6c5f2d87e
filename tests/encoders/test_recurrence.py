import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.recurrence import scanned


@pytest.mark.parametrize(("layers", "bidirectional"), [(1, False), (1, True), (3, True)])
def test_a_scan_gives_what_torch_s_gru_gives(layers, bidirectional):
    torch.manual_seed(0)
    gru = nn.GRU(5, 4, layers, batch_first=True, bidirectional=bidirectional).double()
    lengths, x_nti = torch.tensor([3, 7, 1]), torch.randn(3, 8, 5, dtype=torch.float64)
    valid_nt = frame_mask(lengths, 8)
    packed = pack_padded_sequence(x_nti, lengths, batch_first=True, enforce_sorted=False)
    expected = pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=8)[0]
    with torch.no_grad():
        found = scanned(gru, x_nti, valid_nt)
    torch.testing.assert_close(found[valid_nt], expected[valid_nt])
