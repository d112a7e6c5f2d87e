"""What recipes cost on a data set that is not at hand, by the pace of their training on one that is.

    python benchmarks/cost.py configs/crrl_ntu60.yaml --store data/synthetic --clips 40091

Every stage of each recipe is trained for two epochs on the store, by the command `pretrain` itself. The
second epoch tells the pace, since in the first one memory and threads are still being found. A stage costs
its epochs times the clips of the data set at that pace, which holds where clips are resampled to a number of
frames. The memory is the most that the process held, frames of the store included.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from measuring import write_results

from ssl_skeleton.cli import count, run_command
from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import Recipe, load_recipe


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, train each recipe for a moment, print what all of it would cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", type=Path, nargs="+", help="recipes whose cost is asked")
    parser.add_argument("--store", type=Path, required=True, help="a store that they can be trained on")
    parser.add_argument("--clips", type=count, required=True, help="training clips of the data set")
    parser.add_argument("--threads", type=count, default=torch.get_num_threads(), help="%(default)s here")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON")
    given = parser.parse_args(arguments)
    costs = {}
    for path in given.recipes:
        cost = costs[path.stem] = cost_of(path, given.store, given.clips, given.threads)
        for stage in cost["stages"]:
            line = "{clips_per_second:.0f} clips/s, {hours:.1f} hours for {epochs} epochs".format(**stage)
            print(f"{path.stem} {stage['name']}: {line}")
        total = sum(stage["hours"] for stage in cost["stages"])
        print(f"{path.stem}: {total:.1f} hours in all, {cost['gigabytes']:.1f} GB", flush=True)
    store = open_store(given.store)
    facts = {"store": str(given.store), "store_clips": len(store), "store_frames": int(store.lengths.sum())}
    write_results(given.out, {**facts, "clips": given.clips, "recipes": costs})


def cost_of(path: Path, store: Path, clips: int, threads: int) -> dict[str, Any]:
    """The pace and the hours of every stage of a recipe, and the gigabytes of its training."""
    recipe = _short(path, store)
    with tempfile.TemporaryDirectory() as folder:
        held = _pretrain(recipe, Path(folder), threads)
        lines = (Path(folder) / recipe.name / "log.jsonl").read_text(encoding="utf-8").splitlines()
    second = {line["stage"]: line for line in map(json.loads, lines) if line["epoch"] == 2}
    stages = []
    for stage in load_recipe(path).stages:
        pace, epochs = second[stage.name]["clips_per_second"], stage.training.epochs
        told = {"name": stage.name, "epochs": epochs, "clips_per_second": pace}
        stages.append(told | {"hours": epochs * clips / pace / 3600})
    return {"stages": stages, "gigabytes": held, "bodies": recipe.data.bodies, "frames": recipe.data.frames}


def _short(path: Path, store: Path) -> Recipe:
    """The recipe for two epochs a stage, on the first split of the store."""
    overrides = [f"data.store={store.resolve()}", f"data.split={next(iter(open_store(store).meta.splits))}"]
    overrides += [f"stages.{stage.name}.training.epochs=2" for stage in load_recipe(path).stages]
    recipe = load_recipe(path, [*overrides, "watch={}"])
    if recipe.data.frames is None:
        raise UserError(f"{path}: data.frames is null, so that what a clip costs depends on the data set")
    return recipe


def _pretrain(recipe: Recipe, folder: Path, threads: int) -> float:
    """Train it in a process of its own, its run in `folder`; returns the gigabytes that this held at most."""
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe.to_tree()), encoding="utf-8")
    words = [sys.executable, "-m", "ssl_skeleton.pretrain", "--cfg", str(path), "--runs", str(folder)]
    process = os.posix_spawn(sys.executable, words, os.environ | {"OMP_NUM_THREADS": str(threads)})
    _, status, usage = os.wait4(process, 0)
    if status:
        raise UserError(f"{recipe.name}: pretrain ended with exit code {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss * 1024 / 1e9  # kilobytes, on Linux


if __name__ == "__main__":
    sys.exit(run_command(main))
