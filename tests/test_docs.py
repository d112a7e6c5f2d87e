"""What docs/own_data.md tells people to type, typed."""

import importlib
import json
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import openpose_files
import pytest
import yaml
from mediapipe_files import image_landmarks, world_landmarks

from ssl_skeleton.cli import run_command
from ssl_skeleton.data.readers.about import AboutConfig
from ssl_skeleton.data.store import open_store
from ssl_skeleton.recipe import load_recipe

DOC = Path(__file__).parents[1] / "docs" / "own_data.md"
# So that a test takes seconds: a small encoder, one epoch.
SMALL = ["encoder.hidden=8", "encoder.layers=1", "stages.0.training.epochs=1", "stages.1.training.epochs=1"]


class Block(NamedTuple):
    """A block of code: its language, the file that it is, if any, and what stands in it."""

    language: str
    file: str
    text: str


def sections() -> dict[str, list[Block]]:
    """The blocks of code of every section that has some."""
    parts = re.split(r"^## (.+)$", DOC.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    found = {
        title: [
            Block(*match.groups())
            for match in re.finditer(r"^```(\w+) ?(\S*)\n(.*?)^```$", text, re.M | re.S)
        ]
        for title, text in zip(parts[::2], parts[1::2], strict=True)
    }
    return {title: blocks for title, blocks in found.items() if blocks}


CLIPS = [(subject, label) for subject in (1, 2, 3) for label in ("wave", "sit")]


def write_openpose(folder: Path) -> None:
    for subject, label in CLIPS:
        frames = [[pose] for pose in openpose_files.person(12, seed=subject)]
        openpose_files.write_clip(folder / "recordings" / f"{label}_s{subject}", frames)


def write_mediapipe(folder: Path) -> None:
    """Use what the section's own landmarks.py writes, on results such as MediaPipe gives."""
    (folder / "recordings").mkdir()
    write_landmarks = runpy.run_path("landmarks.py")["write_landmarks"]
    for subject, label in CLIPS:
        poses = zip(image_landmarks(9, subject), world_landmarks(9, subject), strict=True)
        results = [
            SimpleNamespace(pose_landmarks=[as_marks(image)], pose_world_landmarks=[as_marks(world)])
            for image, world in poses
        ]
        nobody = SimpleNamespace(pose_landmarks=[], pose_world_landmarks=[])
        write_landmarks([*results, nobody], f"recordings/{label}_s{subject}.json")


def as_marks(pose):
    return [
        SimpleNamespace(**dict(zip(("x", "y", "z", "visibility"), mark, strict=True)))
        for mark in pose.tolist()
    ]


RECORDINGS: dict[str, Callable[[Path], None]] = {
    "MediaPipe": write_mediapipe,
    "OpenPose, and COCO keypoints": write_openpose,
}


def type_in(line: str) -> None:
    """Carry out a line of shell, in this process."""
    words = shlex.split(line)
    if words[:2] == ["python", "-m"]:
        verb = words[2].removeprefix("ssl_skeleton.")
        more = SMALL if verb == "pretrain" else []
        assert run_command(importlib.import_module(words[2]).main, [*words[3:], *more]) == 0, line
    else:
        assert (words[0], len(words)) == ("python", 2), line
        runpy.run_path(words[1], run_name="__main__")


@pytest.mark.parametrize("title", sections())
def test_everything_in_the_guide_works(title, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = sections()[title]
    for block in blocks:
        assert block.language in ("sh", "python", "yaml", "csv")
        assert bool(block.file) == (block.language != "sh")
        if block.file:
            Path(block.file).parent.mkdir(exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
    RECORDINGS.get(title, lambda folder: None)(tmp_path)
    for block in blocks:
        for line in block.text.splitlines() if block.language == "sh" else ():
            type_in(line)
    printed = capsys.readouterr()
    assert "skipped none of" in printed.out
    assert "damaged" not in printed.out
    (path,) = Path("data").iterdir()
    about = yaml.safe_load(Path("about.yaml").read_text(encoding="utf-8"))
    store = open_store(path)
    assert (store.meta.dataset, store.meta.fps) == (about["dataset"], about["fps"])
    assert (store.labels >= 0).all() == any(key in about for key in ("names", "labels"))


def test_the_first_try_is_a_recipe():
    text = DOC.read_text(encoding="utf-8")
    (words,) = re.findall(r"^(stages\.reconstruct\.training\S+ .*)$", text, re.MULTILINE)
    path = DOC.parents[1] / "configs" / "crrl_own.yaml"
    recipe = load_recipe(path, ["name=a", "data.store=a", *words.split()])
    assert [(stage.training.epochs, stage.training.batch) for stage in recipe.stages] == [(10, 16), (10, 16)]


def test_the_guide_names_every_key_of_an_about_file():
    text = DOC.read_text(encoding="utf-8").partition("## What about.yaml can say")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(AboutConfig.model_fields)


def test_axes_in_the_guide_are_axes(tmp_path):
    text = DOC.read_text(encoding="utf-8").partition("| recorded | `axes` |")[2]
    found = re.findall(r"`(\[.*?\])`", text)
    assert len(found) >= 5
    for axes in found:
        config = AboutConfig.from_tree({"dataset": "a", "fps": 1, "axes": yaml.safe_load(axes)}, "here")
        assert json.loads(json.dumps(config.axes)) == yaml.safe_load(axes)
