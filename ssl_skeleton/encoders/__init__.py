"""Encoders, one file each.

An encoder is added by its config: that of a graph encoder in `graph_encoders.AnyGraphEncoder`, others in
`AnyEncoder`.
"""

from typing import Annotated

from pydantic import Field

from ssl_skeleton.encoders.graph_encoders import AnyGraphEncoder
from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.encoders.two_rate import TwoRateConfig

AnyEncoder = Annotated[GRUConfig | AnyGraphEncoder | TwoRateConfig, Field(discriminator="name")]
