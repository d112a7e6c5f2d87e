"""Run recipes over several seeds; write every score to results.json and their table into README.md.

    python experiments/run_seeds.py experiments/nw_ucla --seeds 0 1 2 configs/crrl_nw_ucla.yaml

The first argument is the experiment's folder. Runs that are there already are used again; scores of recipes
that are not named this time stay in results.json. Everything is of the last epoch.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_skeleton.cli import run_command
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.tables import Cell, Grid, markdown_grid, percent
from ssl_skeleton.files import read_json, write_json, write_text
from ssl_skeleton.recipe import load_recipe
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run

EVALUATORS: tuple[str, ...] = ("linear", "knn")
KEPT = ("evaluator", "store", "split", "protocol", "epoch", "seed", "top1", "top5", "k", "per_class")
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, run what is missing, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="the experiment's folder")
    parser.add_argument("configs", type=Path, nargs="*", help="recipes to run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="more files with the table's marks")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    given = parser.parse_intermixed_args(arguments)
    path = given.experiment / "results.json"
    results: dict[str, Any] = read_json(path) if path.exists() else {}
    readmes = (given.experiment / "README.md", *given.also)
    for readme in readmes:
        parts_of(readme)
    for config in given.configs:
        for seed in given.seeds:
            results.setdefault(config.stem, {})[str(seed)] = run_once(config, seed, given.runs)
            write_json(path, results)
    table = markdown_table(results)
    for readme in readmes:
        before, after = parts_of(readme)
        write_text(readme, f"{before}{BEGIN}\n{table}\n{END}{after}")
    print(table)


def run_once(config: Path, seed: int, runs: Path) -> dict[str, Any]:
    """Train and score one recipe with one seed."""
    name = f"{config.stem}_seed{seed}"
    recipe = load_recipe(config, [f"name={name}", f"seed={seed}"])
    run = Run.start(recipe, runs / name, resume=True)
    print(f"{name} ...", flush=True)
    run.pretrain()
    minutes = sum(json.loads(line)["seconds"] for line in (run.folder / "log.jsonl").open()) / 60
    scores = {evaluator: kept(evaluate(run, evaluator)) for evaluator in EVALUATORS}
    return {"minutes": round(minutes, 1), "environment": read_json(run.folder / "environment.json"), **scores}


def kept(result: dict[str, Any]) -> dict[str, Any]:
    """A result without its confusion matrices, which stay in the run folder."""
    baselines = {name: {"top1": scores["top1"]} for name, scores in result["baselines"].items()}
    return {name: result[name] for name in KEPT if name in result} | {"baselines": baselines}


def markdown_table(results: dict[str, Any]) -> str:
    """A row a recipe: top-1 in % of the representation and its baselines, mean and deviation over seeds."""
    head = ["recipe", "seeds"]
    head += [f"{score}{of}" for score in ("linear", "1-NN") for of in ("", ", untrained", ", raw")]
    rows = []
    for name, by_seed in sorted(results.items()):
        row = [name, ", ".join(sorted(by_seed, key=int))]
        for evaluator in EVALUATORS:
            found = [scores[evaluator] for scores in by_seed.values()]
            beside = [[scores["baselines"][what] for scores in found] for what in ("untrained", "raw")]
            row += [percent(Cell(tuple(scores["top1"] for scores in each))) for each in (found, *beside)]
        rows.append(row)
    return markdown_grid(Grid(head, rows))


def parts_of(readme: Path) -> tuple[str, str]:
    """What stands before and after the table in README.md; UserError unless it has both marks, once each."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in before + after:
        raise UserError(f"{readme}: has no place for the table; add the lines {BEGIN} and {END}")
    return before, after


if __name__ == "__main__":
    sys.exit(run_command(main))
