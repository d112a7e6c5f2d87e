import itertools
import math
import re
from pathlib import Path

import pytest
import yaml
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import Plan, read_plan

from ssl_skeleton.config import apply_overrides
from ssl_skeleton.errors import UserError

TEXTS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=5)
VALUES = st.lists(
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS | st.booleans(),
    min_size=1,
    max_size=3,
    unique_by=lambda value: (type(value), value),
)
GRIDS = st.dictionaries(st.sampled_from(["a", "b.c", "b.d"]), VALUES, min_size=1, max_size=3)


def plan(**parts) -> Plan:
    return Plan.from_tree({"recipe": "recipe.yaml"} | parts, "plan")


@given(GRIDS, st.lists(st.integers(0, 9), min_size=1, max_size=2, unique=True))
@settings(max_examples=examples(50), deadline=None)
def test_a_grid_has_every_combination_with_every_seed_once(grid, seeds):
    trials = plan(grid=grid, seeds=seeds).trials()
    wanted = [(seed, values) for seed in seeds for values in itertools.product(*grid.values())]
    assert len({(trial.overrides, trial.seed) for trial in trials}) == len(trials) == len(wanted)
    for trial, (seed, values) in zip(trials, wanted, strict=True):
        assert trial.seed == seed
        tree = apply_overrides({}, trial.overrides)
        for key, value in zip(grid, values, strict=True):
            found = tree
            for part in key.split("."):
                found = found[part]
            assert (type(found), found) == (type(value), value)


DRAWS = {
    "a": {"log_uniform": [1e-4, 1e-1]},
    "b": {"uniform": [-1, 1]},
    "c": {"choice": [16, "name", {"x": 1}]},
}


@given(st.integers(1, 20), st.integers(0, 20), st.integers(0, 1000))
@settings(max_examples=examples(30), deadline=None)
def test_random_draws_are_distinct_reproducible_and_only_added_to(count, more, seed):
    few = plan(random={"count": count, "seed": seed, **DRAWS}).trials()
    many = plan(random={"count": count + more, "seed": seed, **DRAWS}).trials()
    assert len(set(many)) == len(many) == count + more
    assert many[:count] == few
    for a, b, c in (trial.overrides for trial in many):
        assert 1e-4 <= float(a.removeprefix("a=")) <= 1e-1
        assert -1 <= float(b.removeprefix("b=")) <= 1
        assert apply_overrides({}, [c])["c"] in DRAWS["c"]["choice"]


def test_another_seed_draws_others():
    one, other = (plan(random={"count": 5, "seed": seed, **DRAWS}).trials() for seed in (0, 1))
    assert not set(one) & set(other)


def test_logarithms_are_drawn_evenly():
    drawn = plan(random={"count": 300, "a": {"log_uniform": [1e-4, 1.0]}}).trials()
    logs = [math.log10(float(trial.overrides[0].removeprefix("a="))) for trial in drawn]
    for low in range(-4, 0):
        assert 45 <= sum(low <= log < low + 1 for log in logs) <= 105


def test_what_a_choice_can_give_is_all_found_and_no_more_asked_for():
    grid = {"a": {"choice": [1, 2, 3]}, "b": {"choice": [True, False]}}
    assert len(plan(random={"count": 6, **grid}).trials()) == 6
    with pytest.raises(UserError, match=r"random\.count: 7, but only 6 different"):
        plan(random={"count": 7, **grid}).trials()


def test_rows_come_first_with_what_is_fixed():
    trials = plan(fixed=["x=1"], rows={"base": [], "wide": ["y=2"]}, grid={"z": [3]}, seeds=[4, 5]).trials()
    assert [(trial.row, trial.changes) for trial in trials] == [
        (row, ("x=1", *change, f"seed={seed}"))
        for seed in (4, 5)
        for row, change in [("base", ()), ("wide", ("y=2",)), ("", ("z=3",))]
    ]


def test_a_change_may_undo_what_is_fixed():
    fixed, row = ["a.b=1", "a.c=2", "ab=3", "d=4"], ["d=5", "a={c: 6}"]
    (trial,) = plan(fixed=fixed, rows={"row": row}).trials()
    assert trial.overrides == ("ab=3", *row)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({}, "nothing to try"),
        ({"rows": {"a b": []}}, "the name 'a b'"),
        ({"grid": {"a": []}}, r"grid\.a"),
        ({"grid": {"seed": [1]}}, "seeds stand under seeds"),
        ({"rows": {"a": ["name=b"]}}, "a name of its own"),
        ({"grid": {"a": [1]}, "evaluators": ["liner"]}, "did you mean 'linear'"),
        ({"grid": {"a": [1]}, "seeds": []}, "seeds"),
        ({"gird": {"a": [1]}}, "did you mean 'grid'"),
        ({"random": {"a": {"choice": [1]}}}, r"random\.count: this key is missing"),
        ({"random": {"count": 3}}, "random"),
        ({"random": {"count": 3, "a": 5}}, r"random\.a"),
        ({"random": {"count": 3, "a": {"log_uniform": [0, 1]}}}, "nothing can be drawn"),
        ({"random": {"count": 3, "a": {"uniform": [1, 1]}}}, "nothing can be drawn"),
        ({"random": {"count": 3, "a": {"uniform": [0, 1], "choice": [1]}}}, "say one of"),
    ],
)
def test_what_is_no_plan_is_refused_in_one_line(parts, line, tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump({"recipe": "recipe.yaml"} | parts))
    with pytest.raises(UserError, match=line) as error:
        read_plan(path)
    assert str(error.value).startswith(str(path))


def test_the_plan_in_the_docs_is_one(monkeypatch, tmp_path):
    root = Path(__file__).parents[2]
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (root / "docs" / "experiments.md").read_text(), re.M | re.S)
    (tmp_path / "plan.yaml").write_text(text)
    monkeypatch.chdir(root)
    trials = read_plan(tmp_path / "plan.yaml").trials()
    assert len(trials) == 2 + 3 + 20
    assert {trial.resolved().data.split for trial in trials} == {"cross_view_dev"}
