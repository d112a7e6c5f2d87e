"""Made-up stores of random walks, of the size and shape of real ones, for what no store is needed to show."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.recording import Facts, Recording, Track
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.data.writing import new_store
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v1_20")  # NW-UCLA's: 20 joints in space, one body
TRAINING = 1020  # clips of NW-UCLA's cross-view split that train
_BLOCK = 1 << 14  # frames of the walk of which clips are parts


def nw_ucla_lengths(clips: int) -> NDArray[np.int64]:
    """Frames of so many clips: 32 on average, and as widely spread as recordings of people are."""
    lengths = np.random.default_rng(0).lognormal(np.log(32), 0.4, clips)
    rounded: NDArray[np.int64] = np.maximum(8, lengths * 32 / lengths.mean()).round().astype(np.int64)
    return rounded


def write_walks(folder: Path, lengths: Sequence[int] | NDArray[np.int64], classes: int = 10) -> Store:
    """A store with a clip of each length: a body of a person's size whose joints walk at random.

    Clips are parts of one long walk, so that a million are written in the time that their bytes take.
    """
    rng, lengths = np.random.default_rng(0), np.asarray(lengths)
    longest = max(_BLOCK, int(lengths.max()))
    steps = rng.normal(scale=0.01, size=(longest, 20, 3)).cumsum(axis=0) + rng.normal(scale=0.4, size=(20, 3))
    block_tvc = steps.astype(np.float32)
    first = rng.integers(0, longest - lengths + 1)
    facts = Facts("walks", LAYOUT, 30.0, classes=[f"class {number}" for number in range(classes)])
    with new_store(folder, facts) as writer:
        for clip, (start, frames) in enumerate(zip(first.tolist(), lengths.tolist(), strict=True)):
            track = Track(0, block_tvc[start : start + frames])
            writer.add(Recording(f"clip{clip}", frames, [track], label=clip % classes))
        writer.finish("made up")
    return open_store(folder)


def clips_of(store: Store) -> list[NDArray[np.float32]]:
    """The frames (T, V, C) of each clip, in memory."""
    frames_rvc = np.array(store.frames_rvc)
    return [frames_rvc[row : row + frames] for _, row, _, frames in store.tracks.tolist()]
