"""The graph encoders. One is added by its config in `AnyGraphEncoder`."""

from typing import Annotated

from pydantic import Field

from ssl_skeleton.encoders.agcn import AGCNConfig
from ssl_skeleton.encoders.ctr_gcn import CTRGCNConfig
from ssl_skeleton.encoders.efficient_gcn import EfficientGCNConfig
from ssl_skeleton.encoders.shift_gcn import ShiftGCNConfig
from ssl_skeleton.encoders.st_gcn import STGCNConfig

AnyGraphEncoder = Annotated[
    STGCNConfig | AGCNConfig | CTRGCNConfig | EfficientGCNConfig | ShiftGCNConfig, Field(discriminator="name")
]
