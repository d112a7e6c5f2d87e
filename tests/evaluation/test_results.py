import json
from functools import partial

import pytest

from ssl_skeleton.evaluation.results import result_table, score_with_baselines, write_result

SCORES = {"top1": 0.75, "per_class": [1.0, 0.5, None], "confusion": [[2, 0, 0], [0, 1, 1], [0, 0, 0]]}
RESULT = SCORES | {
    "evaluator": "linear",
    "store": "nw_ucla",
    "store_path": "/data/nw_ucla",
    "split": "cross_view",
    "streams": ["joint"],
    "baselines": {"raw": SCORES | {"top1": 0.5}, "untrained": SCORES | {"top1": 0.25}},
}


def test_every_baseline_gets_the_same_scores():
    done = []

    def made(name: str) -> str:
        done.append(f"{name} made")
        return name

    def score(name: str) -> dict[str, str]:
        done.append("scored")
        return {"of": name}

    names = ("trained", "raw", "untrained")
    found = score_with_baselines({name: partial(made, name) for name in names}, score)
    # One after another: features wait for nobody in memory.
    assert done == ["trained made", "scored", "raw made", "scored", "untrained made", "scored"]
    assert found == {"of": "trained", "baselines": {"raw": {"of": "raw"}, "untrained": {"of": "untrained"}}}


def test_the_file_and_its_name(tmp_path):
    path = write_result(tmp_path, RESULT)
    assert path == tmp_path / "eval" / "linear-nw_ucla-cross_view.json"
    assert json.loads(path.read_text()) == RESULT


def test_stores_of_one_name_do_not_overwrite_each_other(tmp_path):
    results = [RESULT | {"store_path": f"/data/{place}/nw_ucla"} for place in "abc"]
    paths = [write_result(tmp_path, result) for result in results]
    assert paths[0].name == "linear-nw_ucla-cross_view.json"
    assert len(set(paths)) == len(list((tmp_path / "eval").iterdir())) == 3
    again = [write_result(tmp_path, result | {"top1": 0.5}) for result in results]
    assert again == paths
    assert [json.loads(path.read_text()) for path in paths] == [result | {"top1": 0.5} for result in results]


@pytest.mark.parametrize("there", ["{", "[]", json.dumps({"top1": 0.5})])
def test_a_result_that_names_no_store_is_replaced(there, tmp_path):
    path = write_result(tmp_path, RESULT)
    path.write_text(there)
    assert write_result(tmp_path, RESULT) == path
    assert json.loads(path.read_text()) == RESULT


def test_a_number_that_is_none_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path, RESULT | {"top1": float("nan")})
    assert not list(tmp_path.rglob("*.json"))


def test_the_table():
    lines = [line.split() for line in result_table(RESULT, ("sit", "walk", "throw")).splitlines()]
    assert lines[1:5] == [
        ["top1"],
        ["trained", "75.0"],
        ["raw", "coordinates", "50.0"],
        ["untrained", "encoder", "25.0"],
    ]
    assert lines[7:] == [["sit", "100.0"], ["walk", "50.0", "1", "of", "2", "taken", "for", "throw"]]


def test_the_table_of_several_k():
    result = RESULT | {"k": {"1": 0.75, "5": 0.5}}
    result["baselines"] = {"raw": SCORES | {"k": {"1": 0.5, "5": 0.25}}}
    lines = [line.split() for line in result_table(result, ("sit", "walk", "throw")).splitlines()]
    assert lines[1:4] == [["k=1", "k=5"], ["trained", "75.0", "50.0"], ["raw", "coordinates", "50.0", "25.0"]]


def test_the_table_names_the_streams_of_the_raw_baseline():
    result = RESULT | {"streams": ["joint", "bone_motion"]}
    result["baselines"] = {"raw": SCORES, "raw_streams": SCORES | {"top1": 0.125}}
    lines = [line.split() for line in result_table(result, ("sit", "walk", "throw")).splitlines()]
    assert lines[2:5] == [
        ["trained", "75.0"],
        ["raw", "coordinates", "75.0"],
        ["raw", "joint+bone_motion", "12.5"],
    ]


def test_the_table_of_several_repeats():
    spread = {"std": {"top1": 0.0125}, "repeats": {"top1": [0.5, 0.75, 1.0]}}
    result = RESULT | spread | {"evaluator": "finetune_0.05"}
    result["baselines"] = dict.fromkeys(("raw", "raw_streams", "untrained"), SCORES | spread)
    lines = result_table(result, ("sit", "walk", "throw")).splitlines()
    assert lines[0].endswith(
        "finetune_0.05 on nw_ucla, split cross_view, in %, mean ± deviation of 3 repeats"
    )
    assert [line.split() for line in lines[2:6]] == [
        ["fine-tuned", "75.0", "±", "1.2"],
        ["raw", "coordinates,", "linear", "75.0", "±", "1.2"],
        ["raw", "joint,", "linear", "75.0", "±", "1.2"],
        ["from", "scratch", "75.0", "±", "1.2"],
    ]
    assert len({len(line) for line in lines[1:6]}) == 1


def test_the_table_of_a_training_from_scratch():
    result = RESULT | {"evaluator": "finetune_scratch", "repeats": {"top1": [0.75]}}
    result["baselines"] = {"raw": SCORES}
    lines = [line.split() for line in result_table(result, ("sit", "walk", "throw")).splitlines()]
    assert lines[1:4] == [["top1"], ["from", "scratch", "75.0"], ["raw", "coordinates,", "linear", "75.0"]]


CLASSES = ("sit", "walk", "throw")


def test_scores_stand_beside_their_intervals():
    one = SCORES | {"balanced": 0.5, "interval": {"top1": [0.625, 0.875], "balanced": [0.25, 1.0]}}
    other = SCORES | {"balanced": 0.5, "interval": {"top1": [0.0, 1.0], "balanced": [0.5, 0.5]}}
    lines = result_table(RESULT | one | {"baselines": {"raw": other}}, CLASSES).splitlines()
    assert lines[0].endswith(", in %, with 95 % intervals")
    assert [line.split() for line in lines[1:4]] == [
        ["top1", "balanced"],
        ["trained", "75.0", "(62.5-87.5)", "50.0", "(25.0-100.0)"],
        ["raw", "coordinates", "75.0", "(0.0-100.0)", "50.0", "(50.0-50.0)"],
    ]
    assert len({len(line) for line in lines[1:4]}) == 1


def test_of_several_k_the_first_has_the_interval():
    scores = SCORES | {"k": {"1": 0.75, "5": 0.5}, "balanced": 0.5}
    scores |= {"interval": {"top1": [0.625, 0.875], "balanced": [0.25, 1.0]}}
    lines = result_table(RESULT | scores | {"baselines": {"raw": scores}}, CLASSES).splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["k=1", "k=5"],
        ["trained", "75.0", "(62.5-87.5)", "50.0"],
    ]


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ({"protocol": {"name": "crrl"}}, "protocol crrl"),
        (
            {"protocol": {"name": "cmd"}, "changed": {"epochs": 5, "lr": 0.2}},
            "protocol cmd with epochs=5, lr=0.2",
        ),
        (
            {"windows": {"count": 3, "share": 0.5}},
            "class probabilities averaged over 3 windows of 50 % of a clip",
        ),
        ({"protocol": {"k": [1]}, "changed": {"k": [1]}}, None),
    ],
)
def test_the_table_says_how_numbers_were_found(told, line):
    lines = result_table(RESULT | told, CLASSES).splitlines()
    assert lines[1:2] == ([line] if line else [lines[1]])
    assert lines[2 if line else 1].split() == ["top1"]


def test_the_table_names_classes_that_no_training_clip_shows():
    lines = result_table(RESULT | {"unseen": [0, 2]}, CLASSES).splitlines()
    assert lines[5] == "no training clip shows sit, throw"
