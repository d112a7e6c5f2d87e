import json

import pytest
import run_seeds
from plan_files import run_here, write_plan
from tiny import CLIPS

from ssl_skeleton.errors import UserError
from ssl_skeleton.files import read_json

MARKS = "<!-- table: begin -->", "<!-- table: end -->"


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(run_seeds, "run_trials", run_here)


def write_readme(folder) -> None:
    (folder / "README.md").write_text("before\n{}\nold\n{}\nafter\n".format(*MARKS))


def run(plan, *options: str) -> None:
    run_seeds.main([str(plan.parent), "--runs", str(plan.parents[1] / "runs"), *options])


@pytest.mark.parametrize("text", ["", MARKS[0], MARKS[1] + MARKS[0], "".join(MARKS) * 2])
def test_a_place_for_the_table_is_looked_for_before_anything_runs(text, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(text)
    monkeypatch.setattr(run_seeds, "run_trials", None)
    with pytest.raises(UserError, match=r"README\.md: has no place for the table"):
        run_seeds.main([str(tmp_path), "recipe.yaml"])


def test_rows_and_recipes_come_into_one_table_of_the_published_split(tmp_path, here, capsys):
    plan = write_plan(tmp_path, rows={"base": [], "narrow": ["encoder.hidden=4"]}, seeds=[0, 1])
    write_readme(plan.parent)
    other = tmp_path / "other.md"
    other.write_text("".join(MARKS))
    run(plan, str(tmp_path / "recipe.yaml"), "--rows", str(plan), "--also", str(other), "--evaluators", "knn")
    results = read_json(plan.parent / "results.json")
    assert {row: list(by_seed) for row, by_seed in results.items()} == {
        row: ["0", "1"] for row in ("recipe", "base", "narrow")
    }
    for row in results.values():
        for seed, entry in row.items():
            assert (entry["knn"]["split"], entry["knn"]["seed"]) == ("cross_view", int(seed))
            assert entry["minutes"] >= 0
    text = (plan.parent / "README.md").read_text()
    table = text.removeprefix(f"before\n{MARKS[0]}\n").removesuffix(f"\n{MARKS[1]}\nafter\n")
    assert table in other.read_text()
    assert table in capsys.readouterr().out
    for named in (
        f"split cross\\_view, {CLIPS // 3} test clips",
        "Seeds 0, 1.",
        "(1)",
        "thread",
        "minutes",
    ):
        assert named in table
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == ["| recipe", "| base", "| narrow"]
    assert all(cell.count("±") == 1 for row in rows for cell in row[1:])
    assert rows[0][1:] == rows[1][1:]  # the same recipe, under two names

    run_seeds.main([str(plan.parent)])
    assert (plan.parent / "README.md").read_text() == text


def test_scores_of_other_rows_and_of_the_same_run_stay(tmp_path, here):
    plan = write_plan(tmp_path, rows={"base": []})
    write_readme(plan.parent)
    run(plan, "--rows", str(plan), "--seeds", "0", "--evaluators", "knn")
    run(plan, "--rows", str(plan), "--seeds", "0", "1", "--evaluators", "cluster")
    path = plan.parent / "results.json"
    results = read_json(path)
    assert [set(entry) for entry in results["base"].values()] == [
        {"minutes", "environment", "knn", "cluster"},
        {"minutes", "environment", "cluster"},
    ]
    assert "cluster accuracy" in (plan.parent / "README.md").read_text()
    results["base"]["0"]["environment"]["torch"] = "older"  # another run than the one that is there
    path.write_text(json.dumps(results))
    run(plan, "--rows", str(plan), "--seeds", "0", "--evaluators", "cluster")
    assert "knn" not in read_json(path)["base"]["0"]


def test_a_row_that_fails_keeps_no_other_from_the_table(tmp_path, here):
    plan = write_plan(tmp_path, rows={"wrong": ["encoder.hidden=0"], "base": []})
    write_readme(plan.parent)
    with pytest.raises(UserError, match="1 of 2 trials failed"):
        run(plan, "--rows", str(plan))
    assert list(read_json(plan.parent / "results.json")) == ["base"]
    assert "base" in (plan.parent / "README.md").read_text()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "3", '{"a": 3}', '{"a": {"x": {}}}', '{"a": {"0": {"minutes": 1, "environment": {}}}}'],
)
def test_damaged_results_are_told_and_left(text, tmp_path):
    write_readme(tmp_path)
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json: "):
        run_seeds.main([str(tmp_path)])
    assert (tmp_path / "results.json").read_text() == text


@pytest.mark.parametrize(
    ("row", "config", "name"),
    [
        ("recipe", "recipe.yaml", "recipe"),
        ("base", "experiment_base.yaml", "experiment_base"),
        ("base", "more/recipe.yaml", "recipe"),
    ],
)
def test_two_of_one_name_would_take_each_other_s_place(row, config, name, tmp_path, monkeypatch):
    monkeypatch.setattr(run_seeds, "run_trials", None)
    plan = write_plan(tmp_path, rows={row: []})
    write_readme(plan.parent)
    with pytest.raises(UserError, match=f"^{name}: two recipes or rows have this name; rename one"):
        run(plan, str(tmp_path / config), str(tmp_path / "recipe.yaml"), "--rows", str(plan))


def test_a_plan_without_rows_is_for_a_sweep(tmp_path):
    plan = write_plan(tmp_path, grid={"encoder.hidden": [4]})
    write_readme(plan.parent)
    with pytest.raises(UserError, match=r"for sweep\.py"):
        run(plan, "--rows", str(plan))
