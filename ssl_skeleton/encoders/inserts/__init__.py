"""What may be inserted into graph encoders. An insert is added by its config in `AnyInsert`."""

from typing import Annotated

from pydantic import Field

from ssl_skeleton.encoders.inserts.excitation import MotionExcitationConfig

AnyInsert = Annotated[MotionExcitationConfig, Field(discriminator="name")]
