"""Embeddings that no encoder made, for the tests of what keeps and searches them."""

from pathlib import Path

import numpy as np

from ssl_skeleton.data.store import COLUMNS
from ssl_skeleton.evaluation.search.embeddings import EmbeddedStore, Embeddings, EmbeddingsMeta, Origin

CLASSES = ("wave", "sit, down", 'say "hi"')


def made_up(
    names: tuple[str, ...] = ("a", "b", "c"),
    dim: int = 4,
    *,
    seed: int = 0,
    store: str = "/data/store",
    encoder_sum: str = "1",
) -> Embeddings:
    """Clips of random features and facts; the first one has no known class."""
    rng, clips = np.random.default_rng(seed), len(names)
    columns = {column: rng.integers(1, 99, clips) for column in COLUMNS[1:]}
    columns["label"] = np.arange(clips) % (len(CLASSES) + 1) - 1
    told = {"dataset": "made_up", "layout": "kinect_v1_20", "fps": 30.0, "split": "all", "part": "all"}
    meta = EmbeddingsMeta(
        origin=Origin(run="/runs/one", recipe_sum="0", encoder_sum=encoder_sum, epoch=3),
        store=EmbeddedStore(name=Path(store).name, path=store, sum="2", **told),
        seen={"normalise": "agcn", "streams": {"main": ["joint"]}},
        classes=CLASSES,
        clips=clips,
        dim=dim,
        environment={"numpy": np.__version__},
    )
    return Embeddings(meta, rng.normal(size=(clips, dim)).astype(np.float32), names, columns)
