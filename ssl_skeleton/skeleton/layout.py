"""A layout is data: one YAML file in `layouts/` names the joints and bones of a body."""

from collections.abc import Sequence
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ssl_skeleton.config import Config, read_yaml
from ssl_skeleton.errors import UserError, nearest


class Facing(Config):
    """The joints that tell where a body looks: hips and shoulders give left, the spine gives up."""

    left_hip: str
    right_hip: str
    left_shoulder: str
    right_shoulder: str
    lower_spine: str
    upper_spine: str


class Layout(Config):
    """One kind of skeleton. Joints are named; their order is the order of the stored coordinates."""

    name: str
    joints: tuple[str, ...] = Field(min_length=1)
    bones: dict[str, str]  # child: parent
    mirror: dict[str, str]  # left: right
    root: str
    facing: Facing

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.joints)) != len(self.joints):
            raise ValueError("joints: a name stands twice")
        named = [*self.bones, *self.bones.values(), *self.mirror, *self.mirror.values()]
        for joint in [*named, self.root, *self.facing.to_tree().values()]:
            if joint not in self.joints:
                raise ValueError(f"'{joint}' is not among the joints; {nearest(joint, self.joints)}")
        if self.root in self.bones or set(self.bones) | {self.root} != set(self.joints):
            raise ValueError("bones: every joint but the root needs exactly one parent")
        for joint in self.joints:
            self._check_reaches_root(joint)
        mirrored = [*self.mirror, *self.mirror.values()]
        if len(set(mirrored)) != len(mirrored):
            raise ValueError("mirror: a joint stands in two pairs")
        return self

    def _check_reaches_root(self, joint: str) -> None:
        start = joint
        for _ in self.joints:
            if joint == self.root:
                return
            joint = self.bones[joint]
        raise ValueError(f"bones: '{start}' does not lead to the root")

    def index(self, joint: str) -> int:
        """The position of a joint on the V axis."""
        return self.joints.index(joint)

    @cached_property
    def parents(self) -> tuple[int, ...]:
        """The parent of every joint, (V,); the root is its own parent."""
        return tuple(self.index(self.bones.get(joint, joint)) for joint in self.joints)

    @cached_property
    def mirror_order(self) -> tuple[int, ...]:
        """The joint that takes each joint's place in a mirror, (V,)."""
        partner = self.mirror | {right: left for left, right in self.mirror.items()}
        return tuple(self.index(partner.get(joint, joint)) for joint in self.joints)

    def order_from(self, names: Sequence[str]) -> tuple[int, ...]:
        """Where each joint of this layout stands in `names`: `x[..., order, :]` maps by name.

        Raises UserError when a joint of this layout is not in `names`.
        """
        for joint in self.joints:
            if joint not in names:
                raise UserError(f"joint '{joint}' of {self.name} is missing; {nearest(joint, names)}")
        return tuple(list(names).index(joint) for joint in self.joints)


def layout_names() -> tuple[str, ...]:
    """The names of all layouts that come with the package."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


@cache
def load_layout(name: str) -> Layout:
    """Load a layout by name."""
    if name not in layout_names():
        raise UserError(f"layout '{name}' is unknown; {nearest(name, layout_names())}")
    path = _folder() / f"{name}.yaml"
    return Layout.from_tree(read_yaml(path), str(path))


def _folder() -> Path:
    return Path(str(resources.files("ssl_skeleton") / "skeleton" / "layouts"))
