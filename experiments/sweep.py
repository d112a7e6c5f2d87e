"""Try what a plan says, a process a trial, and keep a log of everything that was tried.

    python experiments/sweep.py experiments/queue/plan.yaml --jobs 2

Beside the plan it writes trials.jsonl, a line a trial, and log.md, their tables with the best row first.
Started again, it keeps what is done, goes on with what is half trained, and tries again what failed. More in
docs/experiments.md.
"""

import argparse
import hashlib
import itertools
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from plans import Plan, read_plan
from scoreboard import headline, results_of, score_tables
from trials import Entry, Trial, run_trials, scored_again

from ssl_skeleton.cli import count, run_command
from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.tables import Table, as_markdown
from ssl_skeleton.files import locked, write_text
from ssl_skeleton.recipe import Recipe, load_recipe

_NOTED = ("revision", "device", "threads", "processor", "torch")  # of an environment
Line = dict[str, Any]
"""A line of trials.jsonl: a trial, its `status`, and its entry."""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, carry out the trials that are not done yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path, help="the plan, a YAML file")
    parser.add_argument("--jobs", type=count, default=1, help="trials at once, which share the cores")
    parser.add_argument("--runs", type=Path, default=Path("runs/trials"), help="the runs (%(default)s)")
    parser.add_argument(
        "--final", action="store_true", help="score test clips of a published split; choose nothing by that"
    )
    given = parser.parse_args(arguments)
    plan, path = read_plan(given.plan), given.plan.with_name("trials.jsonl")
    trials, unseen = named_trials(plan), None if given.final else plan.final_split
    if not given.final:
        check_unseen(_recipes(trials.values()), plan.final_split)
    with locked(path.parent):
        lines = _read(path)
        there = {line["name"] for line in _scored(lines) if set(plan.evaluators) <= set(line)}
        left = {name: trial for name, trial in trials.items() if not there.issuperset(_lines_of(name, trial))}
        pairs = [zip(trial.ways, _lines_of(name, trial), strict=True) for name, trial in left.items()]
        names, failed = dict(itertools.chain(*pairs)), list[Line]()
        print(f"{len(left)} of {len(trials)} trials are left to do", flush=True)

        def done(trial: Trial, entry: Entry) -> None:
            line = _line(names[trial], trial, entry, unseen)
            lines.append(line)
            write_text(path, "".join(f"{json.dumps(line)}\n" for line in lines))
            write_text(path.with_name("log.md"), log_page(lines))
            failed.extend([line] if "error" in line else [])
            print(
                f"{_label(line, [f'cfg={plan.recipe}', *plan.fixed])}, seed {trial.seed}: {_told(line)}",
                flush=True,
            )

        run_trials(
            {given.runs / name: trial for name, trial in left.items()}, plan.evaluators, given.jobs, done
        )
    if failed:
        raise UserError(f"{len(failed)} of {len(names)} trials failed; started again, they are tried again")


def named_trials(plan: Plan) -> dict[str, Trial]:
    """The trials of a plan by names that tell everything that can change them; each one is there once."""
    recipe = load_recipe(Path(plan.recipe), plan.fixed).to_tree() | {"name": ""}
    names: dict[str, Trial] = {}
    for trial in plan.trials():
        names.setdefault(f"trial_{_sum_of([recipe, sorted(trial.changes)])[:12]}", trial)
    return names


def _sum_of(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _lines_of(name: str, trial: Trial) -> list[str]:
    """The names of a trial's lines, one for each way in which it is scored."""
    return [f"{name}_{_sum_of(way)[:8]}" for way in trial.scored_as] or [name]


def check_unseen(recipes: Iterable[Recipe], final: str | None) -> None:
    """Raise UserError unless all clips that the recipes use are training clips of the split `final`."""
    if final is None:
        raise UserError(
            "final_split: name the published split whose test clips must stay unseen; to score them all the "
            "same, and choose nothing by it, add --final"
        )
    pairs = {pair for recipe in recipes for pair in zip(recipe.data.stores, recipe.data.splits, strict=True)}
    for path, name in sorted(pairs):
        store = open_store(Path(path))
        split, published = store.split(name), store.split(final)
        if not len(published.test):
            raise UserError(f"final_split: '{final}' of {path} has no test clips; name the published split")
        used = np.concatenate([split.train, split.validation, split.test])
        strange = np.setdiff1d(used, np.concatenate([published.train, published.validation]))
        if len(strange):
            raise UserError(
                f"{path}: {len(strange)} clips of split '{name}' are no training clips of '{final}'; tune on "
                f"training clips, as with data.split={final}_dev, or add --final and choose nothing by it"
            )


def _recipes(trials: Iterable[Trial]) -> list[Recipe]:
    """The recipes of all trials but those that will fail for want of one; UserError where all would."""
    recipes, errors = [], []
    for trial in trials:
        try:
            recipes.append(trial.resolved())
        except UserError as error:
            errors.append(error)
    if not recipes:
        raise errors[0]
    return recipes


def _read(path: Path) -> list[Line]:
    texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    try:
        lines = [json.loads(text) for text in texts]
        return [line | {"name": line["name"], "status": line["status"]} for line in lines]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: a line is no trial ({error}); mend it, or remove the line") from None


def _line(name: str, trial: Trial, entry: Entry, unseen: str | None) -> Line:
    """What is kept of a trial; `unseen` is the split of which no test clip was made use of."""
    facts = {"name": name, "row": trial.row, "recipe": str(trial.recipe), "overrides": list(trial.overrides)}
    status = {"seed": trial.seed, "unseen": unseen, "status": "failed" if "error" in entry else "done"}
    environment = {key: value for key, value in entry.get("environment", {}).items() if key in _NOTED}
    return facts | status | entry | {"environment": environment}


def log_page(lines: Sequence[Line]) -> str:
    """All trials as Markdown: tables with the best row first, and what failed the last time."""
    latest, done = {line["name"]: line for line in lines}.values(), _scored(lines)
    blocks = ["# Everything that was tried"]
    for unseen in dict.fromkeys(line["unseen"] for line in done):
        blocks += _section(unseen, [line for line in done if line["unseen"] == unseen])
    failed = [line for line in latest if line["status"] == "failed"]
    common = _common(latest)
    told = [f"- {_label(line, common)}, seed {line['seed']}: {line['error']}" for line in failed]
    return "\n\n".join([*blocks, *(["## Failed", "\n".join(told)] if failed else [])]) + "\n"


def _scored(lines: Iterable[Line]) -> list[Line]:
    """A line for each trial that is done, with its last score by every evaluator."""
    found: dict[str, Line] = {}
    for line in lines:
        if line["status"] == "done":
            found[line["name"]] = scored_again(found.get(line["name"], {}), line)
    return list(found.values())


def _section(unseen: str | None, lines: Sequence[Line]) -> list[str]:
    """The trials that saw no test clip of a split, or those that saw all."""
    common, rows = _common(lines), dict[str, list[Entry]]()
    for line in lines:
        rows.setdefault(_label(line, common), []).append(line)
    title = f"## On training clips alone: no test clip of {unseen} was seen"
    title = title if unseen else "## On test clips: nothing may be chosen by these"
    fixed = [f"All with {', '.join(f'`{change}`' for change in sorted(common))}."] if common else []
    return [title, *fixed, *(as_markdown(_sorted(table)) for table in score_tables(rows))]


def _changes(line: Line) -> list[str]:
    """What a trial is made of, whatever its seed."""
    return [f"cfg={line['recipe']}", *line["overrides"]]


def _common(lines: Iterable[Line]) -> set[str]:
    """What goes without saying where trials are told from each other."""
    kinds = {frozenset(_changes(line)) for line in lines}
    return set(frozenset.intersection(*kinds)) if len(kinds) > 1 else set()


def _sorted(table: Table) -> Table:
    """The best row by the first column on top; those without it last."""
    return replace(table, rows=sorted(table.rows, key=lambda row: -row.cells[0].mean if row.cells[0] else 1))


def _label(line: Line, common: Iterable[str]) -> str:
    changes = ", ".join(change for change in _changes(line) if change not in common)
    changes = changes or "nothing else"
    return f"{line['row']} ({changes})" if line["row"] else changes


def _told(line: Line) -> str:
    if "error" in line:
        return f"failed: {line['error']}"
    scores = [f"{name} {100 * result[headline(result)]:.1f}" for name, result in results_of(line).items()]
    return ", ".join([*scores, f"{line['minutes']} minutes"])


if __name__ == "__main__":
    sys.exit(run_command(main))
