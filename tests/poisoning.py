"""Stores whose test clips are not what they were."""

from pathlib import Path

import numpy as np

from ssl_skeleton.data.store import open_store


def set_labels(path: Path, labels: dict[int, int]) -> None:
    """Give some clips of a store other labels."""
    lines = (path / "clips.csv").read_text().splitlines()
    for clip, label in labels.items():
        name, _, *others = lines[clip + 1].split(",")
        lines[clip + 1] = ",".join([name, str(label), *others])
    (path / "clips.csv").write_text("\n".join(lines) + "\n")


def poison_labels(path: Path, split: str) -> None:
    """Give every test clip of a split a wrong label."""
    store = open_store(path)
    test, classes = store.split(split).test.tolist(), len(store.meta.classes)
    set_labels(path, {clip: (int(store.labels[clip]) + 1 + clip % 2) % classes for clip in test})


def poison_frames(path: Path, split: str) -> None:
    """Replace every frame of the test clips of a split by noise."""
    store, rng = open_store(path), np.random.default_rng(0)
    frames_rvc = np.array(store.frames_rvc)
    for clip, row, _, frames in store.tracks:
        if clip in store.split(split).test:
            shape = frames_rvc[row : row + frames].shape
            frames_rvc[row : row + frames] = rng.normal(size=shape)
    np.save(path / "frames.npy", frames_rvc)


def without_scores(result: dict, kept: tuple[str, ...]) -> dict:
    """What a result says of each representation without asking for labels: its keys `kept`."""
    every = {"trained": result} | result.get("parts", {}) | result["baselines"]
    return {name: {key: scores[key] for key in kept if key in scores} for name, scores in every.items()}
