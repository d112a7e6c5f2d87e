import json
import os
from contextlib import suppress

import pytest
from builders import damages, examples, one_line
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.result_files import read_results

RESULT = {
    "evaluator": "knn",
    "store": "nw_ucla",
    "store_path": "/data/nw_ucla",
    "store_sum": "12ab",
    "split": "cross_view",
    "layout": "kinect_v1_20",
    "protocol": {"k": [1, 5]},
    "raw_protocol": {"epochs": 5},
    "windows": {"count": 3},
    "streams": ["joint", "motion"],
    "epoch": 60,
    "seed": 3,
    "clips": {"train": 9, "test": 4},
    "top1": 0.75,
    "k": {"1": 0.75, "5": 0.5},
    "interval": {"top1": [0.5, 1.0]},
    "predicted": [0, 1, 2, 0],
    "baselines": {
        "raw": {"top1": 0.5, "k": {"1": 0.5, "5": 0.25}, "predicted": [[0, 1, 2, 1], [1, 1, 2, 0]]}
    },
}


def write(folder, tree, name="knn-nw_ucla-cross_view.json"):
    path = folder / "eval" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(tree) if not isinstance(tree, str) else tree)
    return path


def test_what_is_read(tmp_path):
    path = write(tmp_path, RESULT)
    (result,) = read_results(tmp_path)
    assert (result.path, result.evaluator, result.seed, result.epoch) == (str(path), "knn", 3, 60)
    assert (result.clips, result.part) == ({"train": 9, "test": 4}, "test")
    assert result.more == {"raw_protocol": {"epochs": 5}, "windows": {"count": 3}}
    assert result.scores == {"k": {"1": 0.75, "5": 0.5}, "top1": {"": 0.75}}
    assert result.predicted == ((0, 1, 2, 0),)
    assert result.baselines["raw"].predicted == ((0, 1, 2, 1), (1, 1, 2, 0))


def test_the_area_under_every_curve_is_a_score(tmp_path):
    curves = {"noise": {"area": 0.5, "top1": [0.75, 0.25]}, "missing": {"area": 0.25}}
    raw = {"top1": 0.5, "area": 0.125, "curves": {"noise": {"area": 0.125}}}
    write(tmp_path, RESULT | {"curves": curves, "baselines": {"raw": raw}})
    (result,) = read_results(tmp_path)
    assert result.scores["area"] == {"noise": 0.5, "missing": 0.25}
    assert result.baselines["raw"].scores == {"top1": {"": 0.5}, "area": {"noise": 0.125}}


def test_of_a_fusion_the_recipes_and_the_parts_are_read(tmp_path):
    runs = [{"name": name, "recipe": {"name": name}} for name in "ab"]
    write(tmp_path, RESULT | {"runs": runs, "parts": {"a alone": {"top1": 0.5, "predicted": [0, 1, 2, 1]}}})
    (result,) = read_results(tmp_path)
    assert result.recipes == ({"name": "a"}, {"name": "b"})
    assert result.parts["a alone"].scores == {"top1": {"": 0.5}}
    write(tmp_path, RESULT | {"runs": [{"name": "a"}]})
    with pytest.raises(
        UserError, match="does not hold the recipes of the runs that were fused; fuse them again"
    ):
        read_results(tmp_path)


def test_older_results_lack_a_lot(tmp_path):
    lacking = ("store_path", "store_sum", "streams", "interval", "predicted", "layout")
    tree = {name: value for name, value in RESULT.items() if name not in lacking}
    tree["baselines"] = {"raw": {"top1": 0.5}}
    write(tmp_path, tree)
    (result,) = read_results(tmp_path)
    assert (result.predicted, result.store_sum, result.streams) == ((), "", ())
    assert result.baselines["raw"].scores == {"top1": {"": 0.5}}


def test_only_json_files_are_results(tmp_path):
    assert read_results(tmp_path) == []
    write(tmp_path, RESULT)
    write(tmp_path, "x", "curve.png")
    (tmp_path / "eval" / "folder.json").mkdir()
    os.mkfifo(tmp_path / "eval" / "pipe.json")
    assert len(read_results(tmp_path)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluator": None}, "evaluator: input should be a valid string"),
        ({"evaluator": ""}, "evaluator: "),
        ({"seed": "3"}, "seed: input should be a valid integer, not '3'"),
        ({"seed": True}, "seed: "),
        ({"top1": "0.75"}, "scores.top1"),
        ({"top1": 75.0}, "scores.top1"),
        ({"top1": float("nan")}, "scores.top1"),
        ({"k": {}}, "scores.k"),
        ({"k": {"1": None}}, "scores.k.1"),
        ({"k": [0.75]}, "scores.k"),
        ({"predicted": [0, 1, "2", 0]}, "predicted.0.2"),
        ({"predicted": [0, 1, 2, -1]}, "predicted.0.3"),
        ({"predicted": [0, 1, 2, 2**70]}, "predicted.0.3"),
        ({"predicted": [[0, 1], [0]]}, "1 answers of one repeat, 2 of another"),
        ({"predicted": None}, "predicted: "),
        ({"protocol": [1]}, "protocol: "),
        ({"clips": 4}, "clips: "),
        ({"clips": {"test": "4"}}, "clips.test: "),
        ({"clips": {"test": -1}}, "clips.test: "),
        ({"streams": "joint"}, "streams: "),
        ({"curves": {"noise": 0.5}}, "scores.area.noise"),
        ({"curves": {"noise": {"top1": [0.5]}}}, "scores.area.noise"),
        ({"curves": {}}, "scores.area"),
        ({"runs": [{"recipe": 3}]}, "recipes.0: "),
        ({"parts": {"a": 0.5}}, "parts.a: "),
        ({"baselines": []}, "baselines: "),
        ({"baselines": {"raw": 0.5}}, "baselines.raw: "),
        ({"baselines": {"raw": {"top1": []}}}, "baselines.raw.scores.top1"),
    ],
)
def test_what_is_wrong_is_named(change, message, tmp_path):
    path = write(tmp_path, RESULT | change)
    with pytest.raises(UserError) as caught:
        read_results(tmp_path)
    assert one_line(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["evaluator", "store", "split", "protocol", "epoch", "seed", "clips"])
def test_what_is_missing_is_named(name, tmp_path):
    path = write(tmp_path, {key: value for key, value in RESULT.items() if key != name})
    with pytest.raises(UserError, match=f"{name}: this key is missing") as caught:
        read_results(tmp_path)
    assert str(path) in one_line(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "[" * 100_000, '{"protocol": ' + '{"a":' * 900 + "1" + "}" * 901]
)
def test_what_is_no_result(text, tmp_path):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        read_results(tmp_path)
    assert one_line(caught.value).startswith(f"{path}: ")


def test_a_huge_file_is_not_read(tmp_path):
    path = write(tmp_path, RESULT)
    os.truncate(path, 1 << 29)
    with pytest.raises(UserError, match="too many for a result"):
        read_results(tmp_path)


@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(data, tmp_path):
    path = write(tmp_path, RESULT)
    path.write_bytes(data.draw(damages(path.read_bytes())))
    with suppress(UserError):
        read_results(tmp_path)


def test_where_training_clips_were_scored(tmp_path):
    write(tmp_path, RESULT | {"clips": {"train": 4}})
    assert [result.part for result in read_results(tmp_path)] == ["train"]
