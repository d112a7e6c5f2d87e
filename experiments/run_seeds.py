"""Run recipes, and named changes of one, over several seeds; write all scores and their tables.

    python experiments/run_seeds.py experiments/nw_ucla --seeds 0 1 2 configs/crrl_nw_ucla.yaml
    python experiments/run_seeds.py experiments/queue --rows experiments/queue/plan.yaml --jobs 2

The first argument is the experiment's folder: all scores go to its results.json, their tables into README.md.
Runs that are there already are used again; scores of rows that are not named this time stay. Everything is of
the last epoch. The rows of a plan are tested on its final_split. More in docs/experiments.md.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from plans import Plan, read_plan
from scoreboard import results_of, score_tables
from trials import EVALUATORS, Entry, Trial, run_trials, scored_again

from ssl_skeleton.cli import count, run_command
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.tables import as_markdown
from ssl_skeleton.files import locked, read_json, write_json, write_text

BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, run what is missing, write the tables."""
    given = _parser().parse_intermixed_args(arguments)
    readmes = (given.experiment / "README.md", *given.also)
    for readme in readmes:
        parts_of(readme)
    plan = read_plan(given.rows) if given.rows else None
    seeds = given.seeds or (plan.seeds if plan else (0, 1, 2))
    evaluators = given.evaluators or (plan.evaluators if plan else ("linear", "knn"))
    rows = _rows(given.configs, plan, given.experiment.absolute().name)
    trials = {
        given.runs / f"{name}_seed{seed}": replace(trial, seed=seed)
        for name, trial in rows.items()
        for seed in seeds
    }
    failed = []
    with locked(given.experiment):
        results = read_results(given.experiment)
        ways = [way.row for trial in rows.values() for way in trial.ways]
        results |= {row: results.get(row, {}) for row in ways}  # in the order given

        def done(trial: Trial, entry: Entry) -> None:
            print(f"{trial.row}, seed {trial.seed}: {entry.get('error', 'done')}", flush=True)
            if "error" in entry:
                failed.append(trial)
            else:
                add(results, trial, entry)
                write_json(given.experiment / "results.json", _found(results))

        run_trials(trials, evaluators, given.jobs, done)
        tables = markdown_tables(_found(results))
        for readme in readmes:
            before, after = parts_of(readme)
            write_text(readme, f"{before}{BEGIN}\n{tables}\n{END}{after}")
    print(tables)
    if failed:
        tried = sum(len(trial.ways) for trial in trials.values())
        raise UserError(f"{len(failed)} of {tried} trials failed; started again, they are tried again")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="the experiment's folder")
    parser.add_argument("configs", type=Path, nargs="*", help="recipes to run")
    parser.add_argument("--rows", type=Path, metavar="PLAN", help="run the named rows of a plan, too")
    parser.add_argument("--seeds", type=int, nargs="+", help="those of the plan, or 0 1 2")
    parser.add_argument(
        "--evaluators", nargs="+", choices=EVALUATORS, help="those of the plan, or linear knn"
    )
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="more files with the table's marks")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=count, default=1, help="trials at once, which share the cores")
    return parser


def _rows(configs: Sequence[Path], plan: Plan | None, experiment: str) -> dict[str, Trial]:
    """What is run with every seed, by what its run folders' names begin with; no name may stand twice."""
    rows = [(config.stem, Trial(config.stem, config, (), 0)) for config in configs]
    if plan is not None:
        if not plan.rows:
            raise UserError("rows: the plan has none; a grid and random draws are for sweep.py")
        tested = (f"data.split={plan.final_split}",) if plan.final_split else ()
        named = {row: plan.trial(row, (*change, *tested), 0) for row, change in plan.rows.items()}
        rows += [(f"{experiment}_{row}", trial) for row, trial in named.items()]
    shown = [way.row for _, trial in rows for way in trial.ways]
    for names in ([folder for folder, _ in rows], shown):
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{name}: two recipes or rows have this name; rename one, or leave it out")
    return dict(rows)


def read_results(experiment: Path) -> dict[str, dict[str, Entry]]:
    """The entries of results.json by row and seed; none before there is one. UserError for anything else."""
    path = experiment / "results.json"
    results: dict[str, dict[str, Entry]] = read_json(path) if path.exists() else {}
    rows = results.values() if isinstance(results, dict) else [None]
    if not all(isinstance(row, dict) and all(map(_is_entry, row.items())) for row in rows):
        raise UserError(f"{path}: holds no scores by row and seed; mend it, or remove it and run again")
    return results


def _is_entry(item: tuple[str, Any]) -> bool:
    seed, entry = item
    known = isinstance(entry, dict) and {"minutes", "environment"} <= entry.keys()
    return known and seed.isdecimal() and bool(results_of(entry))


def _found(results: Mapping[str, Mapping[str, Entry]]) -> dict[str, dict[str, Entry]]:
    """The rows of which there is something, their seeds in order, though trials end in any."""
    in_order = {row: {seed: found[seed] for seed in sorted(found, key=int)} for row, found in results.items()}
    return {row: found for row, found in in_order.items() if found}


def add(results: dict[str, dict[str, Any]], trial: Trial, entry: Entry) -> None:
    """Keep an entry; of the very same run, scores by other evaluators stay."""
    row, seed = results.setdefault(trial.row, {}), str(trial.seed)
    row[seed] = scored_again(row.get(seed, {}), entry)


def markdown_tables(results: dict[str, dict[str, Entry]]) -> str:
    """The table of every store and split."""
    rows = {name: list(by_seed.values()) for name, by_seed in results.items()}
    return "\n\n".join(map(as_markdown, score_tables(rows)))


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
