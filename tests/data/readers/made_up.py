"""A made-up format of several clips a file, for the tests of preparation; other processes can load it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_skeleton.data.readers.base import Outcome, Reader
from ssl_skeleton.data.recording import Facts, Recording, Track
from ssl_skeleton.data.source import Entry, Source
from ssl_skeleton.data.splits import SplitRule
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import load_layout

FACTS = Facts(
    "made_up",
    load_layout("kinect_v1_20"),
    30.0,
    ("wave", "kick"),
    splits={"cross_view": SplitRule(column="camera", train=(1,), test=(2,))},
)


class MadeUp(Reader):
    """A file is a JSON list of clips: {"name", "frames", "first", "x", "bodies", and columns of clips.csv}.

    Of no frames: nobody is seen. {"damaged": why} is damage to one clip, {"raise": kind} an end of all.
    """

    def __init__(self, *roots: Path, facts: Facts = FACTS) -> None:
        source = Source(*roots)
        super().__init__(source, facts, source.find("*.json", "made-up clips"))

    def read(self, entry: Entry) -> Sequence[Outcome]:
        """The clips of a file."""
        try:
            clips = json.loads(self.source.read(entry, 1 << 20))
        except ValueError:
            raise DamagedClip("not valid JSON") from None
        return [_outcome(clip) for clip in clips]


def _outcome(clip: dict[str, Any]) -> Outcome:
    if "damaged" in clip:
        return DamagedClip(clip["damaged"])
    if "raise" in clip:
        if clip["raise"] == "death":
            os._exit(1)
        raise {"interrupt": KeyboardInterrupt, "user": UserError, "exit": SystemExit}[clip["raise"]](
            "told to"
        )
    columns = {key: clip[key] for key in ("label", "subject", "camera", "setup", "repetition") if key in clip}
    seen, first = clip["frames"], clip.get("first", 0)
    x_tvc = np.random.default_rng(seen).normal(size=(seen, 20, 3)).astype(np.float32)
    if "x" in clip:
        x_tvc[0, 0, 0] = clip["x"]
    tracks = [Track(first, x_tvc), *[Track(first, x_tvc[: (seen + 1) // 2])] * (clip.get("bodies", 2) - 1)]
    if not seen:
        tracks = []
    return Recording(clip["name"], first + seen, tracks, **columns)


def write_file(folder: Path, name: str, *clips: dict[str, Any]) -> Path:
    """Write a file of clips."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(clips))
    return path


def write_files(folder: Path, files: int) -> Path:
    """Write so many files of no, one or more clips; some show nobody, one of a hundred is damaged."""
    for number in range(files):
        clips = [
            {
                "name": f"clip {number} {part}",
                "frames": (number + 2 * part) % 7,
                "first": part,
                "camera": part,
            }
            for part in range(number % 3 + (number % 10 > 0))
        ]
        if number % 100 == 3:
            clips.append({"damaged": "made so"})
        write_file(folder, f"{number:04}", *clips)
    return folder
