"""A layout is data: one YAML file in `layouts/` names the joints and bones of a body."""

from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ssl_skeleton.config import Config, read_yaml
from ssl_skeleton.errors import UserError, nearest

_MOST_JOINTS = 1000  # bounds what a foreign file can ask for
_SIDED = ("shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle", "foot")
# The names under which layouts share their joints: those of Kinect v1, in the words of anatomy.
COMMON_NAMES = (
    "pelvis",
    "torso",
    "neck",
    "head",
    *(f"{side}_{joint}" for side in ("left", "right") for joint in _SIDED),
)


def _check_name(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError("should be printable, without spaces at its ends")
    return name


def _check_spot(value: Any) -> Any:
    """Say what is wanted in one sentence, where a plain union names a fault for each of its kinds."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
        raise ValueError("should be a joint or a list of joints")
    if len(set(names)) != len(names):
        raise ValueError("a joint stands twice in the list")
    return value


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_name)]
Spot = Annotated[str | tuple[str, ...], BeforeValidator(_check_spot)]


class Facing(Config):
    """The places that tell where a body looks: hips and shoulders give left, the spine gives up.

    Each is a joint, or several joints whose mean is meant.
    """

    left_hip: Spot
    right_hip: Spot
    left_shoulder: Spot
    right_shoulder: Spot
    lower_spine: Spot
    upper_spine: Spot


class Layout(Config):
    """One kind of skeleton. Joints are named; their order is the order of the stored coordinates.

    bones   every joint but the root has one parent, so that the bones form a tree
    mirror  the pairs that change places in a mirror; without any, a view cannot be flipped
    center  what `data.normalise.center` moves to the origin: a joint, or several whose mean is meant;
            null is the root
    facing  without it, a view cannot be turned to face the camera, nor scaled by its spine
    common  where the joints that most bodies share lie, by their names in `COMMON_NAMES`, when the joint
            of that name is absent here or lies elsewhere (`skeleton/remap.py`)
    """

    name: Name
    joints: tuple[Name, ...]
    bones: dict[Name, Name]  # child: parent
    mirror: dict[Name, Name] = Field(default_factory=dict)  # left: right
    root: Name
    center: Spot | None = None
    facing: Facing | None = None
    common: dict[Name, Spot] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 1 <= len(self.joints) <= _MOST_JOINTS:
            raise ValueError(f"joints: there should be 1 to {_MOST_JOINTS}, not {len(self.joints)}")
        joints: set[str] = set()
        for joint in self.joints:
            if joint in joints:
                raise ValueError(f"joints: '{joint}' stands twice")
            joints.add(joint)
        for key, joint in self._named():
            if joint not in joints:
                raise ValueError(f"{key}: '{joint}' is not among the joints; {nearest(joint, joints)}")
        for name in self.common:
            if name not in COMMON_NAMES:
                raise ValueError(f"common: '{name}' is no common name; {nearest(name, COMMON_NAMES)}")
        self._check_tree()
        mirrored: set[str] = set()
        for joint in (*self.mirror, *self.mirror.values()):
            if joint in mirrored:
                raise ValueError(f"mirror: '{joint}' stands in two pairs; a joint stands in one at most")
            mirrored.add(joint)
        return self

    def _named(self) -> Iterator[tuple[str, str]]:
        """Every joint that is named somewhere, with the key that names it."""
        yield "root", self.root
        for key in ("bones", "mirror"):
            for pair in getattr(self, key).items():
                yield from ((key, joint) for joint in pair)
        spots = {f"common.{name}": spot for name, spot in self.common.items()}
        if self.center is not None:
            spots["center"] = self.center
        for part in Facing.model_fields if self.facing else ():
            spots[f"facing.{part}"] = getattr(self.facing, part)
        for key, spot in spots.items():
            yield from ((key, joint) for joint in names_of(spot))

    def _check_tree(self) -> None:
        if self.root in self.bones:
            raise ValueError(f"bones: '{self.root}' has a parent, but it is the root")
        connected = {self.root}
        for start in self.joints:
            path: list[str] = []
            joint = start
            while joint not in connected and len(path) < len(self.joints):
                if joint not in self.bones:
                    raise ValueError(f"bones: '{joint}' has no parent; every joint but the root needs one")
                path.append(joint)
                joint = self.bones[joint]
            if joint not in connected:
                raise ValueError(f"bones: '{start}' does not lead to the root")
            connected.update(path)

    def index(self, joint: str) -> int:
        """The position of a joint on the V axis."""
        return self.joints.index(joint)

    def indices(self, spot: Spot) -> tuple[int, ...]:
        """The positions on the V axis of the joints whose mean is the spot."""
        return tuple(self.index(joint) for joint in names_of(spot))

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


def names_of(spot: Spot) -> tuple[str, ...]:
    """The joints whose mean is the spot."""
    return (spot,) if isinstance(spot, str) else spot


def layout_names() -> tuple[str, ...]:
    """The names of all layouts that come with the package."""
    return tuple(sorted(path.stem for path in _folder().glob("*.yaml")))


@cache
def load_layout(name: str) -> Layout:
    """Load a layout by name."""
    if name not in layout_names():
        raise UserError(f"layout '{name}' is unknown; {nearest(name, layout_names())}")
    return read_layout(_folder() / f"{name}.yaml")


def read_layout(path: Path) -> Layout:
    """Read a layout file; UserError, naming the file and the fault, when anything in it is wrong."""
    return Layout.from_tree(read_yaml(path), str(path))


def find_layout(named: str, beside: Path = Path()) -> Layout:
    """The layout of that name, or else the one in that file, seen from the folder `beside`.

    Raises UserError when there is neither, with the layout whose name is nearest to the file's.
    """
    if named in layout_names():
        return load_layout(named)
    if not (beside / named).is_file():
        raise UserError(
            f"layout: no layout and no file '{named}'; {nearest(Path(named).name, layout_names())}"
        )
    return read_layout(beside / named)


def _folder() -> Path:
    return Path(str(resources.files("ssl_skeleton") / "skeleton" / "layouts"))
