"""Writes NW-UCLA's JSON files, for the tests of readers and of preparation."""

import json
from pathlib import Path
from typing import Any

import numpy as np

NAME = "a05_s02_e03_v01"


def person(frames: int = 4, seed: int = 0) -> list[Any]:
    """The frames of somebody, frames x 20 x 3, as they stand in a file."""
    return np.random.default_rng(seed).normal(size=(frames, 20, 3)).round(4).tolist()


def clip_bytes(skeletons: Any, name: str = NAME) -> bytes:
    """The contents of a file, spread over lines."""
    tree = {"file_name": name, "skeletons": skeletons, "label": 5}
    return json.dumps(tree, indent=0).encode()


def write_clip(folder: Path, name: str = NAME, skeletons: Any = None) -> Path:
    """Write a clip to a file in `folder`."""
    path = folder / f"{name}.json"
    path.write_bytes(clip_bytes(person() if skeletons is None else skeletons, name))
    return path


def write_example(folder: Path) -> None:
    """Write a small data set below `folder`: a clip of a few frames, one of a single frame, one of nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder)
    write_clip(folder, "a12_s10_e00_v03", person(1, seed=1))
    write_clip(folder, "a01_s01_e02_v02", [])
