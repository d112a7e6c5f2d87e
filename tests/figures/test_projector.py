from pathlib import Path

import numpy as np
import pytest
from builders import FACTS, LAYOUT, write_store
from google.protobuf import text_format
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from ssl_skeleton.data.recording import Recording, Track
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.figures.projector import add_points, clip_facts


def config(folder: Path) -> list:
    text = (folder / "projector_config.pbtxt").read_text()
    return list(text_format.Parse(text, ProjectorConfig()).embeddings)


def test_what_is_written_is_what_the_projector_reads(tmp_path):
    rows = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32) * 1e3
    facts = {"clip": ["a", "b\tc\nd", "\u20ac"], "class": ["-", "wave", ""]}
    for name in ("epoch-0010", "epoch-0002"):
        add_points(tmp_path, name, rows, facts)
    add_points(tmp_path, "epoch-0010", rows + 1, facts)
    found = config(tmp_path)
    assert [one.tensor_name for one in found] == ["epoch-0002", "epoch-0010"]
    for one, expected in zip(found, (rows, rows + 1), strict=True):
        points = np.loadtxt(tmp_path / one.tensor_path, delimiter="\t", ndmin=2)
        assert points == pytest.approx(expected, rel=1e-5)
        lines = (tmp_path / one.metadata_path).read_text(encoding="utf-8").split("\n")
        assert lines == ["clip\tclass", "a\t-", "b c d\twave", "\u20ac\t", ""]


def store_of(path: Path, *labels: int) -> Store:
    x_tvc = np.ones((2, len(LAYOUT.joints), 3), np.float32)
    clips = [
        Recording(f"{path.name}{number}", 2, [Track(0, x_tvc)], label=label, subject=label + 5, camera=-1)
        for number, label in enumerate(labels)
    ]
    write_store(path, clips, facts=FACTS)
    return open_store(path)


def test_facts_of_clips_of_several_stores(tmp_path):
    stores = [store_of(tmp_path / "one", 0, -1), store_of(tmp_path / "two", 2, 1, 0)]
    assert clip_facts(stores, np.array([4, 1, 2, 0])) == {
        "clip": ["two2", "one1", "two0", "one0"],
        "class": ["wave", "-", "sit", "wave"],
        "subject": ["5", "4", "7", "5"],
        "camera": ["-"] * 4,
        "store": ["two", "one", "two", "one"],
    }
