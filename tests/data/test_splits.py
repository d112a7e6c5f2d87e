from pathlib import Path

import numpy as np
import pytest

from ssl_skeleton.data.preparation import prepare_store
from ssl_skeleton.data.readers import READERS
from ssl_skeleton.data.splits import split_clips, split_names
from ssl_skeleton.data.store import COLUMNS, Store, StoreMeta, open_store
from ssl_skeleton.errors import UserError

NTU60 = [1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38]
NTU120 = [
    *NTU60,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86),
    *(89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
]


def table(dataset: str, **columns) -> Store:
    """A store of nothing but its table of clips."""
    clips = len(next(iter(columns.values())))
    every = {name: np.zeros(clips, np.int64) for name in COLUMNS[1:]}
    every |= {name: np.asarray(values, np.int64) for name, values in columns.items()}
    facts = {
        "format": 1,
        "layout": "kinect_v2_25",
        "fps": 30.0,
        "classes": ("a",),
        "source": "",
        "sha256": {},
    }
    meta = StoreMeta(dataset=dataset, clips=clips, tracks=1, rows=1, bodies=1, **facts)
    frames = np.zeros((1, 25, 3), np.float32)
    return Store(Path("store"), meta, ("",) * clips, every, frames, np.zeros((1, 4), np.int64))


@pytest.mark.parametrize(
    ("dataset", "split", "column", "values", "train"),
    [
        ("ntu60", "xsub", "subject", range(1, 41), NTU60),
        ("synthetic", "xsub", "subject", range(1, 41), NTU60),
        ("ntu120", "xsub", "subject", range(1, 107), NTU120),
        ("ntu120", "xset", "setup", range(1, 33), range(2, 33, 2)),
        ("ntu60", "xview", "camera", range(1, 4), [2, 3]),
        ("synthetic", "xview", "camera", range(1, 4), [2, 3]),
        ("nw_ucla", "cross_view", "camera", range(1, 4), [1, 2]),
    ],
)
def test_the_published_parts(dataset, split, column, values, train):
    rng = np.random.default_rng(0)
    column_of = rng.permutation([*values, *values, -1, 0, max(values) + 1])  # the last three are in no part
    found = split_clips(table(dataset, **{column: column_of}), split)
    assert found.name == split
    assert sorted(column_of[found.train]) == sorted([*train, *train])
    assert sorted({*column_of[found.train], *column_of[found.test]}) == list(values)
    assert len(found.train) + len(found.test) == 2 * len(values)
    assert not set(found.train) & set(found.test)
    for part in (found.train, found.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def test_every_data_set_has_splits():
    assert {name for name in READERS if split_names(name)} == set(READERS)
    assert split_names("own_recordings") == ()
    assert (len(NTU60), len(NTU120)) == (20, 53)


def test_mistakes_are_named():
    store = table("ntu60", subject=[1, 2, 4], camera=[1, 2, 3])
    with pytest.raises(UserError, match="ntu60 has no split 'x_sub'; did you mean 'xsub'"):
        split_clips(store, "x_sub")
    with pytest.raises(UserError, match="ntu60 has no split 'xset'"):
        split_clips(store, "xset")
    with pytest.raises(
        UserError, match="no clip for the test part of split 'xsub', which takes subject 3, 6"
    ):
        split_clips(store, "xsub")
    with pytest.raises(UserError, match="has no split 'xsub'; there is none to choose"):
        split_clips(table("own_recordings", camera=[1]), "xsub")


def test_nw_ucla_as_published(recordings, tmp_path):
    prepare_store(READERS["nw_ucla"], recordings("nw_ucla"), tmp_path / "store")
    split = split_clips(open_store(tmp_path / "store"), "cross_view")
    assert (len(split.train), len(split.test)) == (1020, 464)
