import statistics
from pathlib import Path

import pytest
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from run_seeds import read_results
from scoreboard import score_tables

from ssl_skeleton.evaluation.comparison.tables import as_markdown

SHARES = st.floats(0, 1, allow_subnormal=False)


def result(evaluator: str, top1: float, **facts) -> dict:
    tree = {"evaluator": evaluator, "store": "s", "split": "cross_view", "protocol": {"k": 1}, "epoch": 9}
    baselines = {"raw": {"top1": top1 / 2}, "untrained": {"top1": top1 / 4}}
    return tree | {"seed": 0, "clips": {"test": 7}, "top1": top1, "baselines": baselines} | facts


def entry(*results: dict, minutes: float = 2.0, device: str = "cpu") -> dict:
    environment = {"device": device, "threads": 4, "processor": "a processor"}
    return {"minutes": minutes, "environment": environment} | {one["evaluator"]: one for one in results}


@given(st.dictionaries(st.sampled_from("abcde"), st.lists(SHARES, min_size=1, max_size=4), min_size=1))
@settings(max_examples=examples(50), deadline=None)
def test_every_row_has_the_mean_and_deviation_of_its_seeds_and_of_its_baselines(scores):
    rows = {
        name: [entry(result("linear", share, seed=seed)) for seed, share in enumerate(shares)]
        for name, shares in scores.items()
    }
    (table,) = score_tables(rows)
    assert [column.name for column in table.columns] == ["linear", "linear, untrained", "linear, raw"]
    assert [row.name for row in table.rows] == list(scores)
    for row in table.rows:
        shares = scores[row.name]
        assert list(row.seeds) == list(range(len(shares)))
        assert row.epoch == 9
        for cell, part in zip(row.cells, (1, 4, 2), strict=True):
            assert cell.mean == pytest.approx(statistics.fmean(shares) / part)
            if len(shares) == 1:
                assert cell.deviation is None
            else:
                assert cell.deviation == pytest.approx(statistics.stdev(shares) / part)


def test_a_table_is_of_one_store_and_split_and_says_which():
    places = [{}, {"split": "other"}, {"store": "t"}, {"clips": {"test": 8}}]
    rows = {str(place): [entry(result("linear", 0.5, **place))] for place in places}
    titles = [table.title for table in score_tables(rows)]
    assert titles == [
        "s, split cross_view, 7 test clips",
        "s, split other, 7 test clips",
        "t, split cross_view, 7 test clips",
        "s, split cross_view, 8 test clips",
    ]


def test_columns_are_those_that_any_row_has():
    knn = result("knn", 0.5, k={"5": 0.5, "10": 0.4})
    cluster = result("cluster", 0.5) | {"accuracy": 0.25, "baselines": {"raw": {"accuracy": 0.125}}}
    del cluster["top1"]
    (table,) = score_tables(
        {"one": [entry(knn)], "two": [entry(result("linear", 0.75)), entry(knn, cluster)]}
    )
    cells = {
        column.name: [cell and cell.values for cell in cells]
        for column, *cells in zip(table.columns, *(row.cells for row in table.rows), strict=True)
    }
    assert cells == {
        "5-NN": [(0.5,), (0.5,)],
        "5-NN, untrained": [(0.125,), (0.125,)],
        "5-NN, raw": [(0.25,), (0.25,)],
        "linear": [None, (0.75,)],
        "linear, untrained": [None, (0.1875,)],
        "linear, raw": [None, (0.375,)],
        "cluster accuracy": [None, (0.25,)],
        "cluster accuracy, untrained": [None, None],
        "cluster accuracy, raw": [None, (0.125,)],
    }


def test_notes_say_what_the_numbers_hang_on():
    one = entry(result("linear", 0.5), minutes=2.0)
    two = entry(result("linear", 0.5, seed=3, protocol={"k": 2}), minutes=3.5, device="some GPU")
    text = as_markdown(score_tables({"a": [one], "b": [two]})[0])
    assert "linear: not all by the same protocol." in text
    assert "Seeds: a 0; b 3." in text
    assert "Trained on 4 threads of a processor and some GPU, 2 to 3.5 minutes each, 5.5 in all." in text
    alone = as_markdown(score_tables({"a": [one]})[0])
    assert "protocol" not in alone
    assert "Seeds 0." in alone


def test_the_results_that_the_project_keeps_can_be_read():
    experiments = Path(__file__).parents[2] / "experiments"
    kept = [path.parent for path in experiments.glob("*/results.json")]
    assert kept
    for experiment in kept:
        results = read_results(experiment)
        tables = score_tables({row: list(by_seed.values()) for row, by_seed in results.items()})
        assert {row.name for table in tables for row in table.rows} == set(results)
