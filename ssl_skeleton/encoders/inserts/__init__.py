"""What may be inserted into graph encoders. An insert is added by its config in `AnyInsert`."""

from typing import Annotated

from pydantic import Field

from ssl_skeleton.encoders.inserts.aggregation import MultipleTemporalAggregationConfig
from ssl_skeleton.encoders.inserts.deformable import DeformableConvolutionConfig
from ssl_skeleton.encoders.inserts.excitation import (
    ChannelExcitationConfig,
    MotionExcitationConfig,
    SpatioTemporalExcitationConfig,
)
from ssl_skeleton.encoders.inserts.non_local import NonLocalConfig
from ssl_skeleton.encoders.inserts.spatio_temporal_motion import SpatioTemporalMotionConfig
from ssl_skeleton.encoders.inserts.temporal_shift import TemporalShiftConfig

AnyInsert = Annotated[
    MotionExcitationConfig
    | ChannelExcitationConfig
    | SpatioTemporalExcitationConfig
    | MultipleTemporalAggregationConfig
    | TemporalShiftConfig
    | NonLocalConfig
    | SpatioTemporalMotionConfig
    | DeformableConvolutionConfig,
    Field(discriminator="name"),
]
