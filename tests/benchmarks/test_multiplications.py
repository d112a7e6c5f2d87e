import multiplications
import pytest
from tiny import random_clips
from torch.utils.flop_counter import FlopCounterMode
from usual import JOINTS, SPACE, usual_form, usual_views
from usual_clips import padded

from ssl_skeleton.data.views.streams import streams
from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.pretext.base import PretextConfig
from ssl_skeleton.pretext.contrastive_motion import ContrastiveMotionConfig
from ssl_skeleton.pretext.decoder import DecoderConfig
from ssl_skeleton.pretext.information_fuser import InformationFuserConfig
from ssl_skeleton.pretext.joint import JointConfig
from ssl_skeleton.pretext.sequence_reconstructor import SequenceReconstructorConfig
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v1_20")
BOTH = ViewConfig(streams=("joint", "motion"))
SER = SequenceReconstructorConfig(input=BOTH)
READOUT = SequenceReconstructorConfig(layers=1, hidden=7)
CLIPS, FRAMES = 3, 5


@pytest.mark.parametrize(("norm", "layers", "both_ways"), [("batch", 2, True), ("none", 1, False)])
@pytest.mark.parametrize(
    "config",
    [
        ContrastiveMotionConfig(key=BOTH, input=BOTH, pooling="mean_max", hidden=6, outputs=4, queue=7),
        SER,
        READOUT,
        InformationFuserConfig(input=BOTH, student=SER, teacher="contrast", hidden=6),
    ],
    ids=["cml", "ser", "ser_readout", "inf"],
)
def test_as_many_as_torch_counts_in_the_usual_form(config, norm, layers, both_ways):
    encoder = GRUConfig(hidden=8, layers=layers, bidirectional=both_ways, dropout=0.0, input_norm=norm)
    names = [names for draw in usual_views(config) for names in draw]
    batch = [streams(random_clips(LAYOUT, [FRAMES] * CLIPS), LAYOUT, wanted) for wanted in names]
    usual = usual_form(config, encoder).train()
    with FlopCounterMode(display=False) as counter:
        usual(padded(batch)).backward()
    expected = multiplications.of_step(config, encoder, JOINTS * SPACE, FRAMES)
    expected -= before_the_first_frame(8, layers * (2 if both_ways else 1))
    decoder: PretextConfig = config.student if isinstance(config, InformationFuserConfig) else config
    if isinstance(decoder, SequenceReconstructorConfig):  # it multiplies the same input in every frame
        hidden = decoder.hidden or JOINTS * SPACE * len(config.input.streams)
        again = 2 * 3 * hidden * multiplications.dim(encoder) * (FRAMES - 1)
        expected += multiplications.TRAINED * again - 2 * before_the_first_frame(hidden, decoder.layers)
    assert counter.get_total_flops() == 2 * CLIPS * expected


def before_the_first_frame(hidden: int, layers: int) -> int:
    """The states before it are zero, and torch leaves out their gradients."""
    return layers * 3 * hidden * hidden


@pytest.mark.parametrize(
    "config",
    [
        JointConfig(parts=(READOUT, ContrastiveMotionConfig()), weights=(1.0, 1.0)),
        ContrastiveMotionConfig(symmetric=True),
        ContrastiveMotionConfig(in_batch=True),
        ContrastiveMotionConfig(decoder=DecoderConfig()),
        ContrastiveMotionConfig(positives=1),
    ],
)
def test_a_pretext_that_nobody_counted(config):
    with pytest.raises(TypeError, match=f"{config.name}: is not counted with these options"):
        multiplications.of_step(config, GRUConfig(), 60, 32)
    with pytest.raises(TypeError, match=f"{config.name}: has no usual form here with these options"):
        usual_form(config, GRUConfig())


def test_a_head_that_stays_costs_the_same_and_has_no_usual_form():
    frozen = ContrastiveMotionConfig(key_head="frozen")
    counts = {
        multiplications.of_step(one, GRUConfig(), 60, 32) for one in (frozen, ContrastiveMotionConfig())
    }
    assert len(counts) == 1
    with pytest.raises(TypeError, match="contrastive_motion: has no usual form"):
        usual_form(frozen, GRUConfig())
