"""Encoders, one file each. An encoder is added by its config in `AnyEncoder`."""

from typing import Annotated

from pydantic import Field

from ssl_skeleton.encoders.agcn import AGCNConfig
from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.encoders.st_gcn import STGCNConfig

AnyEncoder = Annotated[GRUConfig | STGCNConfig | AGCNConfig, Field(discriminator="name")]
