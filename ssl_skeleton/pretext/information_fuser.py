"""INF, the information fuser of CRRL (arXiv 2111.11051, Section III-D): distil one stage into another."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.pooling import Pooling, pool_features, pooled_dim, represent
from ssl_skeleton.pretext.base import (
    INPUT,
    PoseShape,
    Pretext,
    PretextConfig,
    Teacher,
    WantedView,
    refuse_own_input,
)
from ssl_skeleton.pretext.heads import mlp
from ssl_skeleton.pretext.joint import JointConfig, Part
from ssl_skeleton.pretext.losses import distillation
from ssl_skeleton.pretext.sequence_reconstructor import SequenceReconstructorConfig

TEACHER = "teacher"
Student = Annotated[Part | JointConfig, Field(discriminator="name")]


class InformationFuserConfig(PretextConfig):
    """A fresh student learns `student`'s task on `input`, and to predict what `teacher` knows.

    `teacher` names an earlier stage; it sees the student's crop and augmentation through its own streams.
    A contrastive teacher and a reconstructing student are CRRL; the reverse is its SER -> CML fusion.
    """

    name: Literal["information_fuser"] = "information_fuser"
    teacher: str
    student: Student = SequenceReconstructorConfig()
    weight: float = Field(default=0.1, ge=0)
    pooling: Pooling = "mean"
    hidden: int = Field(default=512, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse_own_input(self.student, self.input)
        return self

    def build(
        self, encoder: Encoder, shape: PoseShape, teachers: Mapping[str, Teacher]
    ) -> "InformationFuser":
        """INF around `encoder`, the student's; the teacher's is frozen."""
        student = self.student.model_copy(update={"input": self.input}).build(encoder, shape, teachers)
        return InformationFuser(self, student, teachers[self.teacher])

    def teacher_names(self) -> tuple[str, ...]:
        """The one teacher."""
        return (self.teacher,)


class InformationFuser(Pretext):
    """loss = student's loss + weight * |TAP(teacher) - MLP(TAP(student))|^2."""

    def __init__(self, config: InformationFuserConfig, student: Pretext, teacher: Teacher) -> None:
        seen = config.input.model_copy(update={"streams": teacher.view.streams})
        super().__init__(student.encoder, student.views | {TEACHER: WantedView(seen, draw=INPUT)})
        self.config = config
        self.student = student
        self.teacher = teacher.encoder.eval().requires_grad_(False)
        self.head = mlp(
            pooled_dim(self.encoder.dim, config.pooling),
            config.hidden,
            pooled_dim(teacher.encoder.dim, config.pooling),
        )

    def train(self, mode: bool = True) -> "InformationFuser":
        """Train the student; the teacher stays in eval mode, without dropout."""
        super().train(mode)
        self.teacher.eval()
        return self

    def losses(self, features_ntd: Tensor, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        """The student's parts and `distil`; `loss` is their weighted sum."""
        parts = self.student.losses(features_ntd, views)
        with torch.no_grad():
            teacher_nd = represent(self.teacher, views[TEACHER], self.config.pooling)
        student_nd = self.head(pool_features(features_ntd, views[INPUT], self.config.pooling))
        distil = distillation(student_nd, teacher_nd)
        return {**parts, "loss": parts["loss"] + self.config.weight * distil, "distil": distil}

    def after_step(self) -> None:
        """The student's own."""
        self.student.after_step()
