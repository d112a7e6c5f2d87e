"""A small YAML file in which people say what recordings of their own are (docs/own_data.md)."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from ssl_skeleton.config import Config, read_yaml
from ssl_skeleton.data.readers.labels import (
    MOST_LETTERS,
    Labels,
    name_pattern,
    read_labels,
    resolve,
    shortened,
    take_apart,
)
from ssl_skeleton.data.splits import SplitName, SplitRule
from ssl_skeleton.data.store import EVERYTHING
from ssl_skeleton.errors import UserError, nearest
from ssl_skeleton.skeleton.layout import Layout, find_layout, layout_names

Axes = tuple[str, str, str]
Kind = Literal["world", "image"]
RECORDED_AXES: Axes = ("x", "y", "z")


def _check_dataset(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", value):
        raise ValueError("should be a name of letters, digits, - and _")
    return value


def _check_unit(value: Any) -> Any:
    if type(value) not in (int, float):
        raise ValueError("should be the metres per unit, such as 0.001 for millimetres")
    return value


def _check_axes(value: Any) -> Any:
    """Say what is wanted in one sentence, where a plain tuple names a fault for each of its items."""
    texts = value if isinstance(value, tuple) and len(value) == 3 else ()
    if any(re.fullmatch("-?[xyz]", str(axis)) is None for axis in texts) or sorted(
        str(axis)[-1:] for axis in texts
    ) != ["x", "y", "z"]:
        raise ValueError("should name each of x, y and z once, with or without a minus, such as [-x, z, y]")
    return value


class AboutConfig(Config):
    """The contents of the file.

    dataset  what the store calls them
    fps      frames per second of the recordings
    layout   a layout that comes with the package, or the path of a layout file, seen from this file
    coordinates  `world` (x, y, z in space) or `image` (x, y, and if known a confidence, y down); each
             format has its own usual one
    unit     metres per unit of world coordinates: 0.001 for millimetres
    axes     which axes of world coordinates point to the right hand of somebody who faces the camera, up, and
             away from the camera
    classes  class names in label order; without it, the labels that are found, sorted
    labels   a CSV file, seen from this file: a column `clip`, and any of label (a class name), subject,
             camera, setup, repetition (whole numbers)
    names    how a clip's name tells these: "{label}_s{subject}_c{camera}"; {} stands for any text,
             and not beside another {} or {label}; of these two there are at most three
    splits   by name: a column, and its values that `train`, `test`, and if wanted `validation`
    note     anything worth knowing, kept in the store
    """

    dataset: Annotated[str, BeforeValidator(_check_dataset)]
    fps: Annotated[float, Field(gt=0, le=10_000)]
    layout: str | None = None
    coordinates: Kind | None = None
    unit: Annotated[float, BeforeValidator(_check_unit), Field(gt=0)] = 1.0
    axes: Annotated[Axes | None, BeforeValidator(_check_axes)] = None
    classes: tuple[str, ...] = ()
    labels: str | None = None
    names: str | None = None
    splits: dict[SplitName, SplitRule] = Field(default_factory=dict)
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: a name stands twice")
        if EVERYTHING in self.splits:
            raise ValueError(f"splits: '{EVERYTHING}' is the split of all clips; choose another name")
        if self.labels is not None and self.names is not None:
            raise ValueError("labels and names: give one of them")
        if self.names is not None:
            name_pattern(self.names)
        return self


@dataclass(frozen=True)
class About:
    """An AboutConfig and the file that it was read from, from which its paths are seen."""

    path: Path
    config: AboutConfig

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file; UserError when anything in it is wrong."""
        tree = read_yaml(path)
        if tree is None:
            raise UserError(f"{path}: is empty; it should say dataset, fps and layout (docs/own_data.md)")
        return cls(path, AboutConfig.from_tree(tree, str(path)))

    def layout(self, default: str | None = None) -> Layout:
        """The layout that is named, or else the `default`."""
        named = self.config.layout or default
        if named is None:
            raise UserError(f"{self.path}: layout: this key is missing; {nearest('', layout_names())}")
        try:
            return find_layout(named, self.path.parent)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        except OSError:  # a name that is too long
            raise UserError(f"{self.path}: layout: no file '{shortened(named)}'") from None

    def is_image(self, usual: Kind) -> bool:
        """Whether the coordinates are those of an image; `usual` holds when the file does not say.

        Raises UserError when `unit` or `axes`, which only a world has, are given for an image.
        """
        image = (self.config.coordinates or usual) == "image"
        if image:
            self._check_no_unit("leave it out, or say 'coordinates: world' when they are x, y and z in space")
        return image

    def check_is_image(self, whose: str) -> None:
        """Raise UserError when the file speaks of a world, though the format knows images alone."""
        if self.config.coordinates == "world":
            raise UserError(f"{self.path}: coordinates: {whose} are those of an image; leave this key out")
        self._check_no_unit("leave it out")

    def _check_no_unit(self, mend: str) -> None:
        for key in ("unit", "axes"):
            if key in self.config.model_fields_set:
                raise UserError(f"{self.path}: {key}: image coordinates have none; {mend}")

    @property
    def labels_file(self) -> Path | None:
        """The path of the labels file, if one is named."""
        return None if self.config.labels is None else self.path.parent / self.config.labels

    def stamp(self) -> str:
        """What changes when the file says something else, or the list of labels that it names."""
        told = [repr(self.config)]
        if self.labels_file is not None and _is_file(self.labels_file):
            told.append(hashlib.sha256(self.labels_file.read_bytes()).hexdigest())
        return " ".join(told)

    def labels(self, clips: Iterable[str]) -> Labels:
        """What the labels file or the clips' own names say.

        `clips` are the names of the clips. A labels file that names none of them is a UserError, and so is a
        name that does not fit the pattern of `names`.
        """
        config, clips = self.config, list(clips)
        if self.labels_file is not None:
            found = read_labels(self.labels_file, self.path)
            if clips and not any(clip in found for clip in clips):
                clip = next(iter(found), "")
                raise UserError(
                    f"{self.labels_file}: names no clip that is there; its first is '{shortened(clip)}', "
                    f"{nearest(clip[:MOST_LETTERS], [there[:MOST_LETTERS] for there in clips[:100]])}"
                )
            return resolve(found, config.classes, f"{self.path}: {self.labels_file.name}")
        if config.names is not None:
            found = take_apart(clips, config.names, self.path)
            return resolve(found, config.classes, f"{self.path}: names")
        return Labels(config.classes)

    def to_metres(self, x_tvc: NDArray[np.float32], usual: Axes = RECORDED_AXES) -> NDArray[np.float32]:
        """Recorded coordinates (..., 3) in metres: x to the right, y up, z away from the camera.

        `usual` are the axes when the file does not say.
        """
        axes = self.config.axes or usual
        order = ["xyz".index(axis[-1]) for axis in axes]
        sign = np.array([-1.0 if axis.startswith("-") else 1.0 for axis in axes])
        with np.errstate(over="ignore", invalid="ignore"):  # for others to check
            moved: NDArray[np.float32] = x_tvc[..., order] * (sign * self.config.unit).astype(np.float32)
        return moved + np.float32(0)  # a missing joint is 0, not -0


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
