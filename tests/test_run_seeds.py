import json

import pytest
import run_seeds
import yaml
from plan_files import run_here, write_plan
from tiny import CLIPS, recipe_tree, tiny_store
from trials import entries_of

from ssl_skeleton.errors import UserError
from ssl_skeleton.files import read_json
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run

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


def test_one_run_is_scored_in_several_ways(tmp_path, here):
    """Each is a row, with the minutes of the stages that it needs."""
    stages = {
        "scored_as": {"one": ["representation.stages=[one]"], "both": ["representation.stages=[one, two]"]}
    }
    plan = write_plan(tmp_path, rows={"base": []}, seeds=[0], **stages)
    write_readme(plan.parent)
    tree = recipe_tree(tmp_path / "store", epochs=1)
    (stage,) = tree["stages"]
    teacher, student = {**stage, "name": "one"}, {**stage, "name": "two"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree | {"stages": [teacher, student]}))
    run(plan, "--rows", str(plan))
    results = read_json(plan.parent / "results.json")
    assert list(results) == ["base_one", "base_both"]
    (folder,) = (tmp_path / "runs").iterdir()
    scored = {row: by_seed["0"]["knn"]["top1"] for row, by_seed in results.items()}
    for row, stages in (("base_one", "[one]"), ("base_both", "[one, two]")):
        again = evaluate(Run.open(folder, [f"representation.stages={stages}"]), "knn")
        assert again["top1"] == scored[row]
    names = {path.stem.rpartition("-")[2] for path in (folder / "eval").iterdir()}
    assert names == {"representation.stages=one", "representation.stages=one,two"}


def test_a_way_takes_the_minutes_of_its_stages_and_their_teachers(tmp_path):
    tree = recipe_tree(tiny_store(tmp_path / "store"), epochs=1)
    (stage,) = tree["stages"]
    student = {"name": "information_fuser", "teacher": "one", "hidden": 4}
    named = [{**stage, "name": name} for name in ("one", "other")]
    stages = [*named, {**stage, "name": "two", "pretext": student}]
    run = Run.start(Recipe.from_tree(tree | {"stages": stages}, "recipe"), tmp_path / "run")
    run.pretrain()
    log = [
        {"stage": name, "seconds": seconds} for name, seconds in (("one", 60), ("other", 600), ("two", 30))
    ]
    (run.folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in log))
    ways = [[], ["representation.stages=[one]"], ["representation.stages=[other, two]"]]
    assert [entry["minutes"] for entry in entries_of(run, ["knn"], ways)] == [1.5, 1.0, 11.5]


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
