import json

import numpy as np
import pytest

from ssl_skeleton.evaluation.features import Features
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
    parts = {
        name: Features(*(np.full(1, place) for _ in range(4)))
        for place, name in enumerate(("trained", "raw", "untrained"))
    }
    done = []

    def ask(name: str):
        def features() -> Features:
            done.append(f"{name} asked")
            return parts[name]

        return features

    def score(features: Features) -> dict[str, int]:
        done.append("scored")
        return {"top1": int(features.test[0])}

    baselines = {name: ask(name) for name in ("raw", "untrained")}
    found = score_with_baselines(ask("trained"), baselines, score)
    # One after another: features wait for nobody in memory.
    assert done == ["trained asked", "scored", "raw asked", "scored", "untrained asked", "scored"]
    assert found == {"top1": 0, "baselines": {"raw": {"top1": 1}, "untrained": {"top1": 2}}}


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
        "finetune_0.05 on nw_ucla, split cross_view, top-1 in %, mean ± deviation of 3 repeats"
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
