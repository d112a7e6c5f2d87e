"""What EfficientGCN's input branches see (Song et al., TPAMI 2022, arXiv 2106.15125)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton.skeleton.layout import Layout

Branch = Literal["joint", "velocity", "bone"]
_MOST_COSINE = 1 - 1e-6  # beyond, the slope of the arc cosine grows without bounds


class BranchInputs(nn.Module):
    """Joints, velocities and bones from coordinates, 2 C channels each.

    joint     the coordinates, and the same seen from the body's centre (the layout's `center`, or its root)
    velocity  the way to the next frame, and to the one after it
    bone      the vector from the parent joint, and its angles to the axes in radians

    What needs a joint or a frame that is not there is zero, and so are the angles of a bone without length.
    A joint is not there when all its coordinates are zero. A centre of one joint is there with any other
    joint of its body, since it lies at the origin when a view has put it there.
    """

    centre_j: Tensor
    parents_v: Tensor
    origin_v1: Tensor

    def __init__(self, layout: Layout, names: Sequence[Branch]) -> None:
        super().__init__()
        self.names = tuple(names)
        centre, joints = layout.indices(layout.center or layout.root), len(layout.joints)
        origin = [[joint in centre and len(centre) == 1] for joint in range(joints)]
        self.register_buffer("centre_j", torch.tensor(centre), persistent=False)
        self.register_buffer("parents_v", torch.tensor(layout.parents), persistent=False)
        self.register_buffer("origin_v1", torch.tensor(origin), persistent=False)

    def forward(self, x_ktvc: Tensor) -> list[Tensor]:
        """The branches' inputs (K, T, V, 2 C), as they are named, of coordinates (K, T, V, C)."""
        there_ktv1 = (x_ktvc != 0).any(dim=3, keepdim=True)
        there_ktv1 = there_ktv1 | (there_ktv1.any(dim=2, keepdim=True) & self.origin_v1)
        derive = {"joint": self._joint, "velocity": _velocity, "bone": self._bone}
        return [torch.cat(derive[name](x_ktvc, there_ktv1), dim=3) for name in self.names]

    def _joint(self, x_ktvc: Tensor, there_ktv1: Tensor) -> tuple[Tensor, Tensor]:
        centre_ktjc, known_ktj1 = (part.index_select(2, self.centre_j) for part in (x_ktvc, there_ktv1))
        known_kt11 = known_ktj1.sum(dim=2, keepdim=True)
        centre_kt1c = centre_ktjc.sum(dim=2, keepdim=True) / known_kt11.clamp(min=1)
        return x_ktvc, torch.where(there_ktv1 & (known_kt11 > 0), x_ktvc - centre_kt1c, 0)

    def _bone(self, x_ktvc: Tensor, there_ktv1: Tensor) -> tuple[Tensor, Tensor]:
        both_ktv1 = there_ktv1 & there_ktv1.index_select(2, self.parents_v)
        bone_ktvc = torch.where(both_ktv1, x_ktvc - x_ktvc.index_select(2, self.parents_v), 0)
        square_ktv1 = bone_ktvc.square().sum(dim=3, keepdim=True)
        long_ktv1 = square_ktv1 > 0
        cosine_ktvc = bone_ktvc / torch.where(long_ktv1, square_ktv1, 1).sqrt()
        angle_ktvc = cosine_ktvc.clamp(-_MOST_COSINE, _MOST_COSINE).acos()
        return bone_ktvc, torch.where(long_ktv1, angle_ktvc, 0)


def _velocity(x_ktvc: Tensor, there_ktv1: Tensor) -> tuple[Tensor, Tensor]:
    return _way(x_ktvc, there_ktv1, 1), _way(x_ktvc, there_ktv1, 2)


def _way(x_ktvc: Tensor, there_ktv1: Tensor, steps: int) -> Tensor:
    """From each frame to the one `steps` later; beyond the last, nothing is there."""
    later_ktvc, later_there_ktv1 = (
        functional.pad(part, (0, 0, 0, 0, 0, steps))[:, steps:] for part in (x_ktvc, there_ktv1)
    )
    return torch.where(there_ktv1 & later_there_ktv1, later_ktvc - x_ktvc, 0)
