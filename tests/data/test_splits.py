from pathlib import Path

import numpy as np
import pytest
from builders import LAYOUT, examples, one_line
from examples import facts_of
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.preparation.preparation import prepare_store
from ssl_skeleton.data.readers import FORMATS, open_reader
from ssl_skeleton.data.readers.about import About, AboutConfig
from ssl_skeleton.data.splits import SplitRule, one_against_the_rest
from ssl_skeleton.data.store import COLUMNS, EVERYTHING, FORMAT, Store, StoreMeta, open_store
from ssl_skeleton.errors import UserError

NTU60 = [1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38]
NTU120 = [
    *NTU60,
    *(45, 46, 47, 49, 50, 52, 53, 54, 55, 56, 57, 58, 59, 70, 74, 78, 80, 81, 82, 83, 84, 85, 86),
    *(89, 91, 92, 93, 94, 95, 97, 98, 100, 103),
]


def table(dataset: str, splits: dict[str, SplitRule] | None = None, **columns) -> Store:
    """A store of nothing but its table of clips, with the splits of its format."""
    clips = len(next(iter(columns.values())))
    every = {name: np.zeros(clips, np.int64) for name in COLUMNS[1:]}
    every |= {name: np.asarray(values, np.int64) for name, values in columns.items()}
    meta = StoreMeta(
        format=FORMAT,
        dataset=dataset,
        layout=LAYOUT,
        fps=30.0,
        classes=("a",),
        coordinates=("x", "y", "z"),
        splits=dict(facts_of(dataset).splits) if splits is None else splits,
        note="",
        clips=clips,
        tracks=1,
        rows=1,
        bodies=1,
        source="",
        sha256={},
    )
    frames = np.zeros((1, len(LAYOUT.joints), 3), np.float32)
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
    found = table(dataset, **{column: column_of}).split(split)
    assert found.name == split
    assert sorted(column_of[found.train]) == sorted([*train, *train])
    assert sorted({*column_of[found.train], *column_of[found.test]}) == list(values)
    assert len(found.train) + len(found.test) == 2 * len(values)
    assert not set(found.train) & set(found.test)
    assert len(found.validation) == 0
    for part in (found.train, found.test):
        assert part.dtype == np.int64
        assert (np.diff(part) > 0).all()


def test_every_published_data_set_has_splits():
    assert {
        name for name, kind in FORMATS.items() if kind.about == "none" and not facts_of(name).splits
    } == set()
    assert table("ntu60", camera=[1]).split_names == ("xsub", "xview", EVERYTHING)
    assert (len(NTU60), len(NTU120)) == (20, 53)


def test_mistakes_are_named():
    store = table("ntu60", subject=[1, 2, 4], camera=[1, 2, 3])
    with pytest.raises(UserError, match="ntu60 has no split 'x_sub'; did you mean 'xsub'"):
        store.split("x_sub")
    with pytest.raises(UserError, match="ntu60 has no split 'xset'"):
        store.split("xset")
    with pytest.raises(
        UserError,
        match=r"no clip for the test part of split 'xsub', which takes subject 3, 6, 7, 10, 11, \.\.\.",
    ):
        store.split("xsub")
    with pytest.raises(UserError, match="has no split 'xsub'; choose one of all"):
        table("own", {}, camera=[1]).split("xsub")


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_part_without_clips_is_named(part):
    rule = SplitRule(column="setup", train=(1,), validation=(2,), test=(3,))
    values = {"train": 1, "validation": 2, "test": 3}
    store = table("own", {"mine": rule}, setup=[value for key, value in values.items() if key != part])
    with pytest.raises(UserError) as caught:
        store.split("mine")
    message = one_line(caught.value)
    assert f"no clip for the {part} part of split 'mine', which takes setup {values[part]};" in message


def test_a_split_of_all_clips():
    split = table("own", {}, camera=[-1, 5, 7]).split(EVERYTHING)
    assert (split.train.tolist(), len(split.test), len(split.validation)) == ([0, 1, 2], 0, 0)


def test_no_split_of_ones_own_is_called_all(tmp_path):
    about = tmp_path / "about.yaml"
    about.write_text("dataset: a\nfps: 30\nsplits:\n  all: {column: camera, train: [1], test: [2]}\n")
    with pytest.raises(UserError, match="splits: 'all' is the split of all clips; choose another name"):
        About.read(about)


values = st.integers(-1, 6)


@given(
    st.sampled_from(["subject", "camera", "setup", "repetition"]),
    st.lists(st.sets(values), min_size=3, max_size=3),
    st.lists(values, min_size=1, max_size=12),
)
@settings(max_examples=examples(100), deadline=None)
def test_parts_are_what_the_rule_says_and_have_no_clip_in_common(column, parts, found):
    train, validation, test = (tuple(part) for part in parts)
    tree = {"column": column, "train": train, "validation": validation, "test": test}
    if len({*train, *validation, *test}) < len(train) + len(validation) + len(test):
        with pytest.raises(UserError, match=f"a {column} stands twice"):
            SplitRule.from_tree(tree, "splits")
        return
    rule = SplitRule.from_tree(tree, "splits")
    divided = rule.divide({column: np.array(found), "frames": np.zeros(len(found))})
    assert list(divided) == ["train", "validation", "test"]
    for part, wanted in (("train", train), ("validation", validation), ("test", test)):
        assert divided[part].dtype == np.int64
        assert divided[part].tolist() == [clip for clip, value in enumerate(found) if value in wanted]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"column": "label", "train": [1], "test": [2]}, "column: "),
        ({"column": "camera", "train": [1, 1], "test": [2]}, "a camera stands twice"),
        ({"column": "camera", "train": [1], "test": [2], "validation": [2]}, "a camera stands twice"),
        ({"column": "camera", "train": ["1"], "test": [2]}, "train.0: "),
        ({"column": "camera", "train": [1.0], "test": [2]}, "train.0: "),
        ({"column": "camera", "train": [1]}, "test: "),
        (
            {"column": "camera", "train": [1], "test": [2], "tset": [3]},
            "unknown key 'tset'; did you mean 'test'?",
        ),
    ],
)
def test_a_rule_that_is_none(tree, message):
    with pytest.raises(UserError) as caught:
        SplitRule.from_tree(tree, "about.yaml")
    assert one_line(caught.value).startswith("about.yaml: ")
    assert message in str(caught.value)


def test_one_against_the_rest():
    rule = one_against_the_rest("subject", (2, 4), largest=5)
    assert (rule.train, rule.test, rule.validation) == ((2, 4), (1, 3, 5), ())


def test_nw_ucla_as_published(recordings, tmp_path):
    prepare_store(open_reader("nw_ucla", [recordings("nw_ucla")]), tmp_path / "store")
    store = open_store(tmp_path / "store")
    split = store.split("cross_view")
    assert (len(split.train), len(split.test)) == (1020, 464)
    split = store.split("cross_view_dev")
    assert (len(split.train), len(split.test)) == (516, 504)


@pytest.mark.parametrize("name", ["../../out", "by/subject", "", "a b", ".hidden"])
def test_a_name_that_could_leave_its_folder_is_refused(name):
    rule = {"column": "subject", "train": [1], "test": [2]}
    with pytest.raises(UserError, match=r"about: splits: the name .* should have letters") as caught:
        AboutConfig.from_tree({"dataset": "mine", "fps": 30, "splits": {name: rule}}, "about")
    one_line(caught.value)
