"""Pretexts, one file each. A pretext is added by its config in `AnyPretext`."""

from typing import Annotated

from pydantic import Field

from ssl_skeleton.pretext.contrastive_motion import ContrastiveMotionConfig
from ssl_skeleton.pretext.information_fuser import InformationFuserConfig
from ssl_skeleton.pretext.joint import JointConfig
from ssl_skeleton.pretext.latent_reconstructor import LatentReconstructorConfig
from ssl_skeleton.pretext.sequence_reconstructor import SequenceReconstructorConfig

AnyPretext = Annotated[
    SequenceReconstructorConfig
    | ContrastiveMotionConfig
    | LatentReconstructorConfig
    | JointConfig
    | InformationFuserConfig,
    Field(discriminator="name"),
]
