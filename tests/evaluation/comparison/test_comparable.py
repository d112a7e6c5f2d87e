import pytest

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.comparable import (
    Line,
    column_names,
    fill,
    merged,
    places_of,
    settings,
)
from ssl_skeleton.evaluation.comparison.result_files import Result

SCORED = {"scores": {"top1": {"": 0.5}}, "predicted": [[0, 1]]}


def result(seed: int = 0, raw: float = 0.25, **facts) -> Result:
    tree = SCORED | {
        "path": f"eval/{seed}.json",
        "evaluator": "linear",
        "store": "nw_ucla",
        "store_sum": "12ab",
        "split": "cross_view",
        "protocol": {"epochs": 5},
        "streams": ["joint", "motion"],
        "epoch": 60,
        "seed": seed,
        "clips": {"train": 9, "test": 2},
        "more": {},
        "baselines": {
            name: SCORED | {"scores": {"top1": {"": raw}}} for name in ("untrained", "raw_streams")
        },
    }
    return Result.from_tree(tree | facts, "result")


def baselines(name: str, *results: Result) -> list[Line]:
    return fill(Line(name, [name], {one.seed for one in results}), results)


def seeds_of(lines: list[Line]) -> dict[str, list[int]]:
    return {line.name: sorted(line.seeds) for line in lines}


def test_baselines_are_called_as_in_every_table():
    assert [line.name for line in baselines("a", result())] == ["untrained encoder", "raw joint+motion"]


@pytest.mark.parametrize("name", ["{x}", "{0}", "{", "{streams.__class__}"])
def test_names_that_strangers_gave_baselines_stay_as_they_are(name):
    assert [line.name for line in baselines("a", result(baselines={name: SCORED}))] == [name]


def test_baselines_that_agree_in_all_that_they_share_are_one():
    one, other = baselines("a", result(0), result(1)), baselines("b", result(1), result(2))
    assert seeds_of(merged(one + other)) == {"untrained encoder": [0, 1, 2], "raw joint+motion": [0, 1, 2]}


@pytest.mark.parametrize(
    "other",
    [
        result(1, raw=0.125),
        result(1, baselines={"untrained": SCORED | {"scores": {"top1": {"": 0.25}}, "predicted": [[1, 1]]}}),
        result(2),  # nothing is known of it that would have to be the same
        result(1, protocol={"epochs": 6}),
    ],
)
def test_baselines_that_differ_are_named_after_their_runs(other):
    lines = merged(baselines("a", result(0), result(1)) + baselines("b", other))
    names = [line.name for line in lines]
    assert names[:2] == ["untrained encoder of a", "untrained encoder of b"]
    assert len(names) == 4 - (len(other.baselines) == 1)


def test_two_results_of_the_same_that_differ_are_refused():
    other = result(scores={"top1": {"": 0.75}}, path="eval/other.json")
    with pytest.raises(
        UserError, match=r"eval/other\.json: is of the same as eval/0\.json; remove the older"
    ):
        baselines("a", result(), other)
    assert baselines("a", result(0), result(1), result(split="cross_view_dev"))


def test_results_that_differ_in_what_else_was_asked_for_share_a_score():
    """As kNN with k = 1 and 5, and with 5 alone, which lie side by side."""
    several = result(evaluator="knn", scores={"k": {"1": 0.25, "5": 0.5}}, protocol={"k": [1, 5]})
    alone = result(evaluator="knn", scores={"k": {"5": 0.5}}, protocol={"k": [5]})
    for results in ([several, alone], [alone, several]):
        line = Line("a", ["a"], {0})
        fill(line, results)
        found = {place.key: line.at(place) for place in line.scored}
        assert found["1"][0] is several
        assert found["5"][0] is alone  # whose answers are those by 5


def test_parts_stand_beside_baselines_and_are_called_without_their_seed():
    parts = {"equal weights": SCORED, "joint_seed3 alone": SCORED, "bone_seed3 alone": SCORED}
    names = [line.name for line in baselines("a", result(parts=parts, baselines={"raw": SCORED}))]
    assert names == ["equal weights", "joint alone", "bone alone", "raw coordinates"]
    parts = {"joint_seed0 alone": SCORED, "joint_seed1 alone": SCORED}
    assert [line.name for line in baselines("a", result(parts=parts, baselines={}))] == list(parts)


def test_columns_come_by_evaluator_and_are_each_there_once():
    results = [result(evaluator="retrieve"), result(1), result(evaluator="knn"), result(2)]
    places = places_of(results, ())
    assert [place.evaluator for place in places] == ["linear", "knn", "retrieve"]
    assert column_names(places) == ["linear top1", "knn top1", "retrieve top1"]


def test_the_first_score_or_those_that_are_wanted():
    scores = {"k": {"5": 0.5, "1": 0.25}, "top1": {"": 0.5}, "balanced": {"": 0.4}}
    areas = {"missing": 0.4, "noise": 0.3}
    curves = result(evaluator="robustness", scores={"top1": {"": 0.5}, "area": areas})
    assert column_names(places_of([curves], ())) == ["robustness area, missing", "robustness area, noise"]
    assert column_names(places_of([curves], ["top1"])) == ["robustness top1"]
    results = [result(scores=scores)]
    assert column_names(places_of(results, ())) == ["linear k=5"]
    assert column_names(places_of(results, ["balanced", "k"])) == [
        "linear k=5",
        "linear k=1",
        "linear balanced",
    ]


def test_an_area_hangs_on_the_levels_of_its_own_curve_alone():
    def levels(noise: list[float], missing: list[float], draws: int = 3) -> Result:
        protocol = {"noise": noise, "missing": missing, "rotation": [], "draws": draws}
        areas = {"noise": 0.3} | ({"missing": 0.4} if missing else {})
        return result(evaluator="robustness", scores={"area": areas}, protocol=protocol)

    (alone,) = places_of([levels([0, 0.1], [])], ())
    assert alone in places_of([levels([0, 0.1], [0, 0.5])], ())
    assert alone not in places_of([levels([0, 0.2], [0, 0.5]), levels([0, 0.1], [], draws=4)], ())


def test_what_tells_columns_apart():
    results = [
        result(),
        result(protocol={"epochs": 7}),
        result(more={"windows": {"count": 10}}),
        result(more={"raw_protocol": {"epochs": 1}}),
    ]
    names = column_names(places_of(results, ()))
    assert len(set(names)) == 4
    assert "linear top1, epochs=5, linear.epochs=1" in names
    assert "linear top1, epochs=5, clips=10" in names


def test_how_fused_runs_were_probed_stands_once_where_it_is_the_same():
    """So fusions of two runs and of three are of one column."""
    tuned, cmd = {"name": "tuned"}, {"name": "cmd", "lr": 0.1}

    def fusion(*probes: dict) -> Result:
        return result(evaluator="fuse", more={"probe_protocol": list(probes)}, protocol={})

    assert column_names(places_of([fusion(tuned, tuned), fusion(tuned, tuned, tuned)], ())) == ["fuse top1"]
    names = column_names(places_of([fusion(tuned, tuned), fusion(tuned, cmd)], ()))
    assert sorted(names) == ["fuse top1, linear=tuned", "fuse top1, linear=tuned+cmd"]
    (place,) = places_of([fusion(tuned, cmd)], ())
    assert settings(place) == ({}, [{"linear": tuned}, {"linear": cmd}])


def test_the_store_of_most_results_comes_first():
    results = [result(store="a"), result(store="b"), result(store="b", evaluator="knn"), result(store="b")]
    found = [(place.evaluator, place.store) for place in places_of(results, ())]
    assert found == [("linear", "b"), ("linear", "a"), ("knn", "b")]


def test_what_is_unusual_is_told_even_where_all_are_alike():
    places = places_of([result(), result(1, evaluator="knn", protocol={"k": [1]})], ())
    assert column_names(places, lambda place: {"epochs"}) == ["linear top1, epochs=5", "knn top1"]


def test_a_list_of_a_protocol_is_one_value():
    results = [result(protocol={"rates": [0.1, 1e-5], "k": k}) for k in ([1, 5, 10], [3], [])]
    assert sorted(column_names(places_of(results, ()))) == [
        "linear top1, k=",
        "linear top1, k=1,5,10",
        "linear top1, k=3",
    ]


def test_columns_of_unlike_stores_are_called_after_them():
    places = places_of([result(store="a"), result(store="b", evaluator="knn")], ())
    assert column_names(places) == ["linear top1, a", "knn top1, b"]


def test_results_that_do_not_say_what_the_store_held_stand_apart():
    """Even of one path: nobody knows whether it held the same."""
    results = [result(), result(1, store_sum="", store_path="/a"), result(2, store_sum="", store_path="/b")]
    places = places_of(results, ())
    assert sorted(column_names(places)) == [
        "linear top1, content=12ab",
        "linear top1, content=unknown at /a",
        "linear top1, content=unknown at /b",
    ]


def test_other_test_clips_are_refused():
    with pytest.raises(UserError, match=r"has 3 test clips, but eval/0\.json has 2"):
        places_of([result(), result(1, clips={"test": 3})], ())
    with pytest.raises(UserError, match="has 8 train clips"):
        places_of([result(clips={"train": 9}), result(1, clips={"train": 8})], ())
    assert places_of([result(), result(1, clips={"train": 8, "test": 2}), result(clips={"train": 3})], ())
