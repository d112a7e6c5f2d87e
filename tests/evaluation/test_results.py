import json
from functools import partial
from typing import Literal

import pytest
from pydantic import create_model

from ssl_skeleton.config import Config
from ssl_skeleton.evaluation.clustering import ClusterConfig
from ssl_skeleton.evaluation.fusion import FusionConfig
from ssl_skeleton.evaluation.knn import KnnConfig
from ssl_skeleton.evaluation.results import overridden, result_table, score_with_baselines, write_result
from ssl_skeleton.evaluation.shown import EarlyConfig, RobustnessConfig

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


def test_settings_that_are_not_the_recipes_are_in_the_name(tmp_path):
    settings = {
        (): {},
        ("-epochs=200",): {"epochs": 200},
        ("-k=1,5",): {"k": [1, 5]},
        ("-k=1,51",): {"k": [1, 51]},
        ("-optimiser.name=sgd-optimiser.lr=0.1",): {"optimiser.name": "sgd", "optimiser.lr": 0.1},
        ("-weights=null-rerank=true",): {"weights": None, "rerank": True},
        ("-noise=",): {"noise": []},
    }
    for (ending,), given in ((ending or ("",), given) for ending, given in settings.items()):
        path = write_result(tmp_path, RESULT | {"overridden": given})
        assert path.name == f"linear-nw_ucla-cross_view{ending}.json"
        assert json.loads(path.read_text())["overridden"] == given
    assert len(list((tmp_path / "eval").iterdir())) == len(settings)


def test_many_settings_are_cut_short_and_told_apart_all_the_same(tmp_path):
    levels = [[place / 100 for place in range(count)] for count in (60, 61, 62)]
    paths = {
        write_result(tmp_path, RESULT | {"overridden": {"noise": some}}) for some in levels for _ in "ab"
    }
    assert len(paths) == len(list((tmp_path / "eval").iterdir())) == 3
    assert all(len(path.name) < 150 for path in paths)


@pytest.mark.parametrize(
    "of",
    [
        [{"gallery": {"store_path": f"/{place}/nw_ucla"}} for place in "abc"],
        [{"runs": [{"folder": f"/{place}/joint"}, {"folder": "/bone"}]} for place in "abc"],
        [{"runs": [{"folder": f"/{run}"} for run in runs]} for runs in ("ab", "abc", "ba")],
    ],
)
def test_nor_do_galleries_and_runs_of_one_name(of, tmp_path):
    for _ in "ab":
        paths = [write_result(tmp_path, RESULT | facts) for facts in of]
        assert len(set(paths)) == len(list((tmp_path / "eval").iterdir())) == 3
        assert [json.loads(path.read_text()) for path in paths] == [RESULT | facts for facts in of]


class Kind(Config):
    name: Literal["kind"] = "kind"
    lr: float = 0.1


class OtherKind(Config):
    name: Literal["other"] = "other"
    lr: float = 0.5
    betas: tuple[float, float] = (0.9, 0.999)


class Section(Config):
    epochs: int = 5
    weights: tuple[float, ...] | None = None
    optimiser: Kind | OtherKind = Kind()


class Sections(Config):
    linear: Section = Section()
    fuse: Section = Section()
    knn: Section = Section()
    clips: int = 1


@pytest.mark.parametrize(
    ("own", "now", "evaluator", "found"),
    [
        ({}, {}, "linear", {}),
        ({"linear": {"epochs": 9}}, {"linear": {"epochs": 9}}, "linear", {}),
        ({"linear": {"epochs": 9}}, {}, "linear_cmd", {"epochs": 5}),
        ({}, {"knn": {"epochs": 6}}, "linear", {}),  # it uses none of these
        (
            {},
            {"linear": {"epochs": 6}, "fuse": {"weights": (0.6, 0.4)}},
            "fuse_weighted",
            {"weights": [0.6, 0.4], "linear.epochs": 6},
        ),
        ({}, {"clips": 3}, "linear_3_clips", {}),  # its name tells that
        ({}, {"linear": {"optimiser": {"name": "other"}}}, "linear", {"optimiser.name": "other"}),
        (
            {},
            {"linear": {"optimiser": {"name": "other", "lr": 0.1}}},
            "linear",
            {"optimiser.name": "other", "optimiser.lr": 0.1},
        ),
        ({"linear": {"optimiser": {"name": "other", "lr": 1.0}}}, {}, "linear", {"optimiser.name": "kind"}),
    ],
)
def test_what_is_overridden(own, now, evaluator, found):
    sections = [Sections.from_tree(tree, "evaluation") for tree in (own, now)]
    assert overridden(*sections, evaluator) == found


@pytest.mark.parametrize(
    ("config", "ways"),
    [
        (
            KnnConfig,
            [{"weights": "distance"}, {"leave_one_out": True}, {"rerank": True}, {"index": {"name": "ivf"}}],
        ),
        (ClusterConfig, [{"part": "all"}, {"clusters": 4}]),
        (FusionConfig, [{"choose": "log_likelihood"}, {"choose": "accuracy"}]),
        (EarlyConfig, [{"probe": "knn"}, {"train": "cut"}]),
        (RobustnessConfig, [{"probe": "knn"}, {"joints": "frame"}]),
    ],
)
def test_what_is_left_out_is_told_by_the_name_of_the_evaluator(config, ways):
    """Or else results that differ in it would lie in one file."""
    kind = config().evaluator
    section = create_model("Section", __base__=Config, **{kind: (config, config())})
    changed = [section.from_tree({kind: way}, "evaluation") for way in ways]
    assert [overridden(section(), one, kind) for one in changed] == [{}] * len(ways)
    assert len({kind, *(getattr(one, kind).evaluator for one in changed)}) == len(ways) + 1


@pytest.mark.parametrize("there", ["{", "[]", json.dumps({"top1": 0.5}), '{"gallery": 3, "runs": [4, {}]}'])
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
