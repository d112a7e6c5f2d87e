import pytest
import torch
from textbook import ctr_gcn_textbook, st_gcn_textbook
from tiny import random_clips

from ssl_skeleton.encoders.ctr_gcn import CTRGCNConfig
from ssl_skeleton.encoders.st_gcn import STGCNConfig
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")
TEXTBOOKS = {
    "st_gcn": (STGCNConfig(width=0.125, dropout=0.0), st_gcn_textbook),
    "ctr_gcn": (CTRGCNConfig(width=0.125), ctr_gcn_textbook),
}


@pytest.mark.parametrize(("config", "textbook"), TEXTBOOKS.values(), ids=TEXTBOOKS)
def test_a_textbook_form_computes_and_learns_the_same(config, textbook):
    torch.manual_seed(0)
    encoder = config.build(LAYOUT, 3, 2).double()
    for values in encoder.state_dict().values():
        if values.is_floating_point():
            values.add_(0.1 * torch.rand_like(values))
    plain, clips = textbook(encoder), random_clips(LAYOUT, [13, 13], bodies=2)
    x_nctvm = clips.x.double()
    weights = torch.randn(2, 4, encoder.dim, dtype=torch.float64)
    for _ in range(2):
        found, expected = plain(x_nctvm), encoder(x_nctvm, clips.lengths)[:, ::4]
        torch.testing.assert_close(found, expected)
        for module, features_ntd in ((plain, found), (encoder, expected)):
            module.zero_grad()
            (features_ntd * weights).sum().backward()
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.sub_(1e-3 * parameter.grad)
        torch.testing.assert_close(plain.state_dict(), textbook(encoder).state_dict())
    torch.testing.assert_close(plain.eval()(x_nctvm), encoder.eval()(x_nctvm, clips.lengths)[:, ::4])
