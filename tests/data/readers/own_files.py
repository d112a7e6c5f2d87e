"""Writes recordings of people's own: arrays and tables, with an about file."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v1_20")


def about_file(folder: Path, **keys: Any) -> Path:
    """Write an about file: a name, 30 frames a second, 20 joints, and what else is given (None: left out)."""
    tree = {"dataset": "mine", "fps": 30, "layout": LAYOUT.name} | keys
    path = folder / "about.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in tree.items() if value is not None}))
    return path


def about(folder: Path, **keys: Any) -> About:
    """The same, read."""
    return About.read(about_file(folder, **keys))


def walker(frames: int = 6, seed: int = 0, coordinates: int = 3) -> NDArray[np.float32]:
    """Somebody's joints on a random walk, (T, 20, C); nothing is zero."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(scale=0.02, size=(frames, 20, coordinates)).cumsum(0)
    return (1 + rng.random((20, coordinates)) + steps).astype(np.float32)


def table_lines(clip: str, x_mtvc: Sequence[NDArray[np.float32]], first: int = 0) -> list[list[str]]:
    """The lines of a clip: clip, frame, body, joint, x, y, z."""
    return [
        [
            clip,
            str(first + frame),
            str(body),
            LAYOUT.joints[joint],
            *(repr(float(x)) for x in x_tvc[frame, joint]),
        ]
        for body, x_tvc in enumerate(x_mtvc)
        for frame in range(len(x_tvc))
        for joint in range(x_tvc.shape[1])
    ]


def write_table(
    path: Path, lines: Sequence[Sequence[str]], header: str = "clip,frame,body,joint,x,y,z"
) -> Path:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *lines])
    return path


def write_example(folder: Path) -> Path:
    """A small data set with every kind of file, labels among them; gives the path of its about file."""
    (folder / "walk").mkdir(parents=True)
    np.save(folder / "walk" / "01.npy", walker(6, 1))
    np.save(folder / "pair.npy", np.stack([walker(5, 2), walker(5, 3)]).astype(">f8"))
    np.savez(folder / "one.npz", x=walker(4, 4))
    np.savez_compressed(folder / "many.npz", sit=walker(3, 5), stand=np.asfortranarray(walker(4, 6)))
    lines = table_lines("jump", [walker(3, 7), walker(3, 8)], 10) + table_lines("fall", [walker(2, 9)])
    write_table(folder / "long.csv", lines)
    clips = ["walk/01", "pair", "one", "sit", "stand", "jump", "fall"]
    labels = [[clip, clip.partition("/")[0], str(subject)] for subject, clip in enumerate(clips, 1)]
    write_table(folder / "labels.csv", labels, "clip,label,subject")
    return about_file(
        folder.parent,
        labels=f"{folder.name}/labels.csv",
        splits={"xsub": {"column": "subject", "train": [1, 2, 3, 4], "test": [5, 6, 7]}},
    )
