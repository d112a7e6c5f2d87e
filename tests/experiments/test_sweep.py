import json
import multiprocessing
import time

import pytest
import sweep
from plan_files import run_here, write_plan
from plans import read_plan
from trials import entry_of

from ssl_skeleton.errors import UserError
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint

EPOCHS = 60
PROMPT = 150  # seconds in which what should come at once has come


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(sweep, "run_trials", run_here)


def lines_of(plan) -> list[dict]:
    return [json.loads(line) for line in plan.with_name("trials.jsonl").read_text().splitlines()]


def run(plan, *options: str) -> None:
    sweep.main([str(plan), "--runs", str(plan.parents[1] / "runs"), *options])


def wait_for(condition) -> None:
    end = time.monotonic() + PROMPT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path):
    rows = {"slow": [f"stages.main.training.epochs={EPOCHS}"], "wrong": ["data.bodies=3"]}
    plan = write_plan(tmp_path, rows=rows)
    names = {trial.row: name for name, trial in sweep.named_trials(read_plan(plan)).items()}
    folder = tmp_path / "runs" / names["slow"]
    checkpoint = folder / "checkpoints" / "main.pt"
    killed = multiprocessing.get_context("fork").Process(target=run, args=(plan,))
    killed.start()
    try:
        wait_for(checkpoint.exists)
    finally:
        killed.kill()
        killed.join()
    wait_for(lambda: not (folder / ".lock").exists())  # its trial saves and ends with it
    assert 0 < load_checkpoint(checkpoint, "main").epoch < EPOCHS
    assert not plan.with_name("trials.jsonl").exists()

    with pytest.raises(UserError, match="1 of 2 trials failed"):
        run(plan, "--jobs", "2")
    lines = {line["row"]: line for line in lines_of(plan)}
    slow, wrong = lines["slow"], lines["wrong"]
    assert (wrong["status"], slow["status"], slow["knn"]["epoch"]) == ("failed", "done", EPOCHS)
    assert wrong["error"].startswith("data.bodies: 3, but no clip of")
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [*range(1, EPOCHS + 1)]
    whole = Run.start(Run.open(folder).recipe.model_copy(update={"name": "whole"}), tmp_path / "whole")
    whole.pretrain()
    assert slow["knn"] == json.loads(json.dumps(entry_of(whole, ["knn"])))["knn"]


def test_what_is_tried_is_kept_with_all_that_tells_it(tmp_path, here, capsys):
    plan = write_plan(
        tmp_path,
        rows={"wrong": ["encoder.hidden=-1"]},
        grid={"encoder.hidden": [4, 8]},
        seeds=[0, 1],
        evaluators=["linear", "knn"],
    )
    with pytest.raises(UserError, match="2 of 6 trials failed"):
        run(plan)
    lines = lines_of(plan)
    assert [(line["status"], line["seed"]) for line in lines] == [
        (status, seed) for seed in (0, 1) for status in ("failed", "done", "done")
    ]
    for line in (line for line in lines if line["status"] == "done"):
        assert line["overrides"][0] == "data.split=cross_view_dev"
        assert line["unseen"] == "cross_view"
        assert line["minutes"] >= 0
        assert {"revision", "device", "threads"} <= set(line["environment"])
        for evaluator in ("linear", "knn"):
            result = line[evaluator]
            assert (result["split"], result["epoch"], result["seed"]) == ("cross_view_dev", 1, line["seed"])
            assert {"raw", "untrained"} <= set(result["baselines"])
            assert "confusion" not in result
    assert "left to do" in capsys.readouterr().out

    before = plan.with_name("trials.jsonl").read_text()
    write_plan(tmp_path, grid={"encoder.hidden": [4, 8, 6]}, seeds=[0], evaluators=["knn"])
    run(plan)  # two of the three are there
    after = plan.with_name("trials.jsonl").read_text()
    assert after.startswith(before)
    assert [line["overrides"][-1] for line in lines_of(plan)[len(lines) :]] == ["encoder.hidden=6"]
    assert "1 of 3 trials are left" in capsys.readouterr().out


def test_a_trial_that_is_scored_in_several_ways_has_a_line_for_each(tmp_path, here, capsys):
    ways = {"max": ["representation.pooling=max"], "mean": ["representation.pooling=mean"]}
    plan = write_plan(tmp_path, rows={"base": []}, grid={"encoder.hidden": [4]}, scored_as=ways)
    run(plan)
    lines = lines_of(plan)
    assert [line["row"] for line in lines] == ["base_max", "base_mean", "max", "mean"]
    assert [line["overrides"][-1] for line in lines] == [change for (change,) in ways.values()] * 2
    assert len({line["name"] for line in lines}) == 4
    assert len([*(tmp_path / "runs").iterdir()]) == 2
    ways["mean"] = ["representation.pooling=mean_max"]
    run(write_plan(tmp_path, rows={"base": []}, scored_as=ways))
    assert "1 of 1 trials are left" in capsys.readouterr().out
    assert [line["overrides"][-1] for line in lines_of(plan)[4:]] == [
        "representation.pooling=max",
        *ways["mean"],
    ]
    run(write_plan(tmp_path, rows={"base": []}, scored_as=ways))
    assert "0 of 1 trials are left" in capsys.readouterr().out


def test_another_recipe_or_evaluator_is_another_trial(tmp_path, here, capsys):
    plan = write_plan(tmp_path, rows={"base": []})
    run(plan)
    run(plan)
    assert len(lines_of(plan)) == 1
    write_plan(tmp_path, rows={"base": []}, evaluators=["knn", "cluster"])
    run(plan)
    assert lines_of(plan)[1]["name"] == lines_of(plan)[0]["name"]  # the same run, scored once more
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("hidden: 8", "hidden: 6"))
    run(plan)
    assert len({line["name"] for line in lines_of(plan)}) == 2


def test_the_log_has_the_best_row_first_and_every_failure(tmp_path):
    def line(row: str, seed: int, top1: float, **more) -> dict:
        knn = {"evaluator": "knn", "store": "s", "split": "dev", "epoch": 3, "seed": seed, "k": {"1": top1}}
        scores = {"top1": top1, "clips": {"test": 9}, "baselines": {"raw": {"top1": 0.1}}}
        facts = {"name": f"{row}{seed}", "row": row, "recipe": "r.yaml", "overrides": ["a=1", f"b={row}"]}
        facts |= {"seed": seed, "unseen": "published", "status": "done", "minutes": 2.0}
        return facts | {"environment": {"device": "cpu", "threads": 2}, "knn": knn | scores} | more

    failed = {"name": "x", "status": "failed", "error": "out of memory"}
    lines = [line("low", 0, 0.2), line("high", 0, 0.7), line("high", 1, 0.9), line("low", 1, 0.3)]
    page = sweep.log_page(
        [*lines, line("x", 0, 0.0) | failed, line("low", 0, 0.4), line("seen", 0, 1.0, unseen=None)]
    )
    chosen, seen = page.split("## On test clips: nothing may be chosen by these")
    assert "no test clip of published was seen" in chosen
    assert "All with `a=1`, `cfg=r.yaml`." in chosen
    rows = [row for row in chosen.splitlines() if row.startswith(("| high", "| low"))]
    assert [row.split("(")[0] for row in rows] == ["| high ", "| low "]
    assert "80.0 ± 14.1" in rows[0]
    assert "35.0 ± 7.1" in rows[1]  # of the last line of each trial
    assert "split dev, 9 test clips" in chosen
    assert "2 threads of a cpu" in chosen
    assert "100.0" in seen
    assert "- x (b=x), seed 0: out of memory" in seen


def test_scores_by_other_evaluators_and_before_a_failure_stay_in_the_log(tmp_path, here, capsys):
    plan = write_plan(tmp_path, rows={"base": []})
    page = plan.with_name("log.md")
    run(plan)
    write_plan(tmp_path, rows={"base": []}, evaluators=["cluster"])
    run(plan)
    head = next(line for line in page.read_text().splitlines() if line.startswith("|  |"))
    assert "1-NN" in head
    assert "cluster accuracy" in head
    write_plan(tmp_path, rows={"base": []}, evaluators=["cluster", "knn"])
    run(plan)
    assert "0 of 1 trials are left" in capsys.readouterr().out
    lines = lines_of(plan)
    failed = {name: lines[0][name] for name in lines[0] if name not in ("knn", "minutes")}
    again = sweep.log_page([*lines, failed | {"status": "failed", "error": "no room"}])
    assert head in again
    assert again.endswith(", seed 0: no room\n")
    lines[1]["environment"] = {"revision": "another"}  # trained anew
    assert "1-NN" not in sweep.log_page(lines)


@pytest.mark.parametrize(
    ("parts", "line"),
    [
        ({"fixed": []}, "9 clips of split 'cross_view' are no training clips of 'cross_view'"),
        ({"rows": {"sly": ["data.split=all"]}}, "9 clips of split 'all' are no training clips"),
        ({"final_split": None}, "final_split: name the published split"),
        ({"final_split": "all"}, "'all' of .* has no test clips"),
        ({"final_split": "cross_veiw"}, "did you mean 'cross_view'"),
        ({"rows": {"a": ["encoder.hiden=4"]}}, "did you mean 'hidden'"),
    ],
)
def test_clips_that_must_stay_unseen_are_not_scored(parts, line, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "run_trials", None)
    plan = write_plan(tmp_path, **{"rows": {"base": []}} | parts)
    with pytest.raises(UserError, match=line):
        run(plan)
    assert not plan.with_name("trials.jsonl").exists()


def test_with_final_test_clips_are_scored_and_the_log_says_so(tmp_path, here):
    plan = write_plan(tmp_path, rows={"base": []}, fixed=[], final_split=None)
    run(plan, "--final")
    assert lines_of(plan)[0]["unseen"] is None
    assert "nothing may be chosen by these" in plan.with_name("log.md").read_text()


@pytest.mark.parametrize("text", ["{", "{}", "3", "[]"])
def test_a_damaged_log_is_told_and_left(text, tmp_path, here):
    plan = write_plan(tmp_path, rows={"base": []})
    plan.with_name("trials.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"trials\.jsonl: a line is no trial"):
        run(plan)
    assert plan.with_name("trials.jsonl").read_text() == text
