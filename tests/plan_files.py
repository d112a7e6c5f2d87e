"""A plan on a tiny store, and what carries its trials out without a process for each."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tiny import recipe_tree, tiny_store
from trials import Entry, Trial, entries_of

from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import load_recipe
from ssl_skeleton.runs.run import Run


def write_plan(folder: Path, **parts: Any) -> Path:
    """A plan in `folder`/experiment that tunes on training clips of cross_view, and its recipe."""
    store = folder / "store"
    if not store.exists():
        tiny_store(store)
        (folder / "experiment").mkdir()
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_tree(store, epochs=1)))
    plan = {
        "recipe": str(folder / "recipe.yaml"),
        "fixed": ["data.split=cross_view_dev"],
        "evaluators": ["knn"],
        "final_split": "cross_view",
    }
    path = folder / "experiment" / "plan.yaml"
    path.write_text(yaml.safe_dump(plan | parts, sort_keys=False))
    return path


def run_here(
    trials: Mapping[Path, Trial],
    evaluators: Sequence[str],
    jobs: int,
    done: Callable[[Trial, Entry], None],
) -> None:
    """Do in this process what `run_trials` lets others do."""
    for folder, trial in trials.items():
        try:
            recipe = load_recipe(trial.recipe, [*trial.changes, f"name={folder.name}"])
            run = Run.start(recipe, folder, resume=True)
            run.pretrain()
            entries = entries_of(run, evaluators, [way for _, way in trial.scored_as])
        except UserError as error:
            entries = [{"error": str(error)} for _ in trial.ways]
        for way, entry in zip(trial.ways, entries, strict=True):
            done(way, entry)
