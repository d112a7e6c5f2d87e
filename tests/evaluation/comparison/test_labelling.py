import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_skeleton.evaluation.comparison.labelling import common_name, telling_labels, without_seed

keys = st.sampled_from(["a", "a.b", "b", "c.d.lr", "e.lr", "stages.0.lr", "stages.1.lr"])
facts = st.dictionaries(keys, st.integers(0, 2), min_size=7, max_size=7)


def test_what_differs_is_told_as_shortly_as_it_can_be():
    one = {"data.bodies": 1, "encoder.hidden": 8, "stages.0.training.optimiser.lr": 0.1}
    other = one | {"encoder.hidden": 16}
    assert telling_labels([one, other]) == ["hidden=8", "hidden=16"]
    third = other | {"stages.0.training.optimiser.lr": 1e-4}
    assert telling_labels([one, third]) == ["hidden=8, lr=0.1", "hidden=16, lr=0.0001"]


def test_paths_that_end_alike_are_told_as_far_as_they_differ():
    one = {"stages.0.training.lr": 0.1, "stages.1.training.lr": 0.1, "data.rotate.0": 10}
    other = {"stages.0.training.lr": 0.2, "stages.1.training.lr": 0.3, "data.rotate.0": 20}
    names = ["stages.0.training.lr", "stages.1.training.lr", "rotate.0"]
    assert [part.split("=")[0] for part in telling_labels([one, other])[0].split(", ")] == names


def test_of_another_kind_the_kind_is_told():
    gru = {"encoder.name": "gru", "encoder.hidden": 8, "encoder.layers": 2}
    graph = {"encoder.name": "st_gcn", "encoder.width": 0.25}
    assert telling_labels([gru, graph]) == ["encoder=gru", "encoder=st_gcn"]
    larger = gru | {"encoder.hidden": 16}
    labels = telling_labels([gru, larger, graph])
    assert labels == ["encoder=gru, hidden=8", "encoder=gru, hidden=16", "encoder=st_gcn"]


def test_some_keys_are_always_told():
    one, other = {"a.lr": 1.0, "epochs": 5}, {"a.lr": 1.0, "epochs": 6}
    assert telling_labels([one], [{"a.lr"}]) == ["lr=1"]
    assert telling_labels([one, other], [{"a.lr"}, {"epochs"}]) == ["lr=1, epochs=5", "epochs=6"]
    assert telling_labels([one], [{"elsewhere"}]) == [""]


def test_values_are_short():
    one = {"store": "/data/nw_ucla", "compile": True, "split": None, "name": ""}
    other = {"store": "/data/utd", "compile": False, "split": "all", "name": "/"}
    assert telling_labels([one, other]) == [
        "store=nw_ucla, compile=true, split=None, name=",
        "store=utd, compile=false, split=all, name=/",
    ]


def test_where_nothing_differs_nothing_is_told():
    assert telling_labels([]) == []
    assert telling_labels([{"a": 1}]) == [""]
    assert telling_labels([{"a": 1}, {"a": 1}]) == ["", ""]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("crrl_nw_ucla_seed0", "crrl_nw_ucla"),
        ("crrl-seed12-long", "crrl-long"),
        ("joint_seed0+bone_seed0", "joint+bone"),
        ("seed=3_crrl", "crrl"),
        ("joint_seed2 alone", "joint alone"),
        ("seed7", "seed7"),
        ("seedless", "seedless"),
        ("crrl_2", "crrl_2"),
        ("small_seed0+small_seed1", "small_seed0+small_seed1"),
        ("a_seed0+b_seed0+a_seed1", "a_seed0+b_seed0+a_seed1"),
        ("a+a", "a+a"),
    ],
)
def test_names_without_their_seed(name, plain):
    assert without_seed(name) == plain


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (["crrl_seed0"], "crrl"),
        (["crrl_seed0", "crrl_seed1"], "crrl"),
        (["joint_seed0+bone_seed0", "joint_seed1+bone_seed1"], "joint+bone"),
        (["crrl0", "crrl1"], "crrl"),
        (["run_10", "run_11"], "run"),
        (["a", "b"], "a"),
    ],
)
def test_what_runs_of_a_row_are_called(names, common):
    assert common_name(names) == common


@given(st.lists(facts, max_size=4))
def test_labels_are_as_different_as_the_facts(found):
    labels = telling_labels(found)
    for one, label in zip(found, labels, strict=True):
        for other, its_label in zip(found, labels, strict=True):
            assert (label == its_label) == (one == other)
