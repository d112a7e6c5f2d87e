"""How many multiply-adds a training step of a pretext must do: what the share of a machine's rate counts.

Counted are matrix products alone: those of GRUs for every frame, of heads, and of queries with keys. One that
is trained through counts three times: itself, and its gradients by weights and by inputs. What a decoder is
given is the same in every frame, so it is multiplied once a clip, however often an implementation does
it. Norms, gates, pooling, optimisers and views count nothing.
"""

from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.encoders.pooling import Pooling, pooled_dim
from ssl_skeleton.pretext.base import PretextConfig
from ssl_skeleton.pretext.contrastive_motion import ContrastiveMotionConfig
from ssl_skeleton.pretext.information_fuser import InformationFuserConfig
from ssl_skeleton.pretext.sequence_reconstructor import SequenceReconstructorConfig

TRAINED = 3


def of_step(
    config: PretextConfig, encoder: GRUConfig, joint_numbers: int, frames: int, teacher_streams: int = 1
) -> int:
    """The multiply-adds of a training step for each clip of `frames`; `joint_numbers` are V * C of a stream.

    Raises TypeError for a pretext that is none of CRRL's three, as they were published.
    """
    pose = joint_numbers * len(config.input.streams)
    found = TRAINED * of_encoder(encoder, pose, frames)
    if encoder.input_norm == "none":  # the coordinates need no gradient
        found -= _directions(encoder) * 3 * encoder.hidden * pose * frames
    match config:
        case SequenceReconstructorConfig():
            return found + _reconstruction(config, encoder, pose, frames)
        case ContrastiveMotionConfig(decoder=None, symmetric=False, in_batch=False, positives=0):
            keys = of_encoder(encoder, joint_numbers * len(config.key.streams), frames)
            head = _head(encoder, config.pooling, config.hidden, config.outputs)
            logits = config.outputs * (config.queue + 1)
            return found + keys + (TRAINED + 1) * head + 2 * logits  # keys get no gradient
        case InformationFuserConfig(student=SequenceReconstructorConfig() as student):
            taught = _reconstruction(student, encoder, pose, frames)
            outputs = pooled_dim(dim(encoder), config.pooling)
            head = _head(encoder, config.pooling, config.hidden, outputs)
            return (
                found + taught + of_encoder(encoder, joint_numbers * teacher_streams, frames) + TRAINED * head
            )
    raise TypeError(f"{config.name}: is not counted with these options")


def of_encoder(config: GRUConfig, inputs: int, frames: int) -> int:
    """Those of the GRU for a clip, forward."""
    layers = [inputs, *[dim(config)] * (config.layers - 1)]
    return sum(_directions(config) * 3 * config.hidden * (size + config.hidden) * frames for size in layers)


def dim(config: GRUConfig) -> int:
    """The size of the GRU's features."""
    return config.hidden * _directions(config)


def _directions(config: GRUConfig) -> int:
    return 2 if config.bidirectional else 1


def _head(encoder: GRUConfig, pooling: Pooling, hidden: int, outputs: int) -> int:
    return pooled_dim(dim(encoder), pooling) * hidden + hidden * outputs


def _reconstruction(config: SequenceReconstructorConfig, encoder: GRUConfig, pose: int, frames: int) -> int:
    """Both decodings of a clip, forward and backward."""
    hidden = config.hidden or pose
    first = 3 * hidden * (dim(encoder) + hidden * frames)
    later = (config.layers - 1) * 3 * hidden * 2 * hidden * frames
    readout = hidden * pose * frames if config.hidden else 0
    return TRAINED * 2 * (first + later + readout)
