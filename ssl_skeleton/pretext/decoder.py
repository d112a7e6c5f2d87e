"""A decoder between the encoder and a head: what is compared then are sequences, not codes."""

from pydantic import Field
from torch import Tensor, nn

from ssl_skeleton.config import Config
from ssl_skeleton.data.clips import Clips
from ssl_skeleton.encoders.pooling import Pooling, pool, pooled_dim
from ssl_skeleton.encoders.recurrence import recur


class DecoderConfig(Config):
    """A GRU such as SER decodes with; `hidden` null gives it the pose's size, as in CRRL."""

    layers: int = Field(default=2, ge=1)
    hidden: int | None = Field(default=None, ge=1)


class PooledDecoder(nn.Module):
    """From the encoder's pooled features to the decoder's, of size `dim`.

    A clip's features are the GRU's input at every valid frame, as in SER; its states are pooled over time.
    """

    def __init__(self, config: DecoderConfig, inputs: int, pose: int, pooling: Pooling) -> None:
        super().__init__()
        self.pooling: Pooling = pooling
        self.gru = nn.GRU(inputs, config.hidden or pose, config.layers, batch_first=True)
        self.dim = pooled_dim(self.gru.hidden_size, pooling)

    def forward(self, pooled_nd: Tensor, clips: Clips) -> Tensor:
        """Pooled states (N, `dim`) from the pooled features (N, D) of `clips`."""
        states_ntd = recur(self.gru, pooled_nd[:, None], clips.lengths, clips.x.shape[2])
        return pool(states_ntd, clips.lengths, self.pooling)
