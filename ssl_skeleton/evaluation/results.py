"""Results: one JSON file an evaluation, and the table that a person reads."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.files import read_json, write_json

Scores = dict[str, Any]
ROWS = {
    "trained": "trained",
    "raw": "raw coordinates",
    "raw_streams": "raw {streams}",
    "untrained": "untrained encoder",
}
_PROBED = {"raw": "raw coordinates, linear", "raw_streams": "raw {streams}, linear"}
# Of evaluators whose names begin with this, the first that fits.
_OTHER_ROWS = {
    "finetune_scratch": {"trained": "from scratch", **_PROBED},
    "finetune": {"trained": "fine-tuned", "untrained": "from scratch", **_PROBED},
}


def score_with_baselines(
    trained: Callable[[], Features],
    baselines: Mapping[str, Callable[[], Features]],
    score: Callable[[Features], Scores],
) -> Scores:
    """The scores of a representation, with those of every baseline under `baselines`.

    Features are asked for one after another, so that only one set is in memory at a time.
    """
    scores = score(trained())
    return {**scores, "baselines": {name: score(features()) for name, features in baselines.items()}}


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write a result to `eval/<evaluator>-<store>-<split>.json` of a run folder; returns the path.

    Where that file is of another store of the same name, a hash of the `store_path` ends the name.
    """
    name = f"{result['evaluator']}-{result['store']}-{result['split']}"
    path = folder / "eval" / f"{name}.json"
    if _is_of_another_store(path, result["store_path"]):
        code = hashlib.sha256(result["store_path"].encode(errors="surrogateescape")).hexdigest()[:8]
        path = path.with_name(f"{name}-{code}.json")
    write_json(path, dict(result))
    return path


def _is_of_another_store(path: Path, store_path: str) -> bool:
    """Whether a result lies there that names another store; an older one may name none."""
    if not path.exists():
        return False
    try:
        there = read_json(path)
    except UserError:  # damaged: nothing is lost with it
        return False
    return isinstance(there, dict) and there.get("store_path", store_path) != store_path


def result_table(result: Mapping[str, Any], classes: tuple[str, ...]) -> str:
    """The result as text: a row for the representation and each baseline, then the classes."""
    evaluator, streams = result["evaluator"], "+".join(result["streams"])
    other = next((rows for name, rows in _OTHER_ROWS.items() if evaluator.startswith(name)), {})
    names = {key: name.format(streams=streams) for key, name in (ROWS | other).items()}
    rows = {names[key]: _cells(scores) for key, scores in ({"trained": result} | result["baselines"]).items()}
    columns, width = list(rows[names["trained"]]), max(map(len, rows))
    repeats = f", mean ± deviation of {len(result['repeats']['top1'])} repeats" if "std" in result else ""
    lines = [f"{evaluator} on {result['store']}, split {result['split']}, top-1 in %{repeats}"]
    column = 14 if repeats else 10
    lines.append(" " * width + "".join(f"{name:>{column}}" for name in columns))
    for name, cells in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{cells[place]:>{column}}" for place in columns))
    return "\n".join([*lines, *_class_lines(result, classes)])


def _cells(scores: Mapping[str, Any]) -> dict[str, str]:
    """What stands in a row, by column."""
    if "k" in scores:
        return {f"k={k}": f"{100 * share:.1f}" for k, share in scores["k"].items()}
    names = [name for name in ("top1", "top5") if name in scores]
    spread = {name: f" ± {100 * share:.1f}" for name, share in scores.get("std", {}).items()}
    return {name: f"{100 * scores[name]:.1f}{spread.get(name, '')}" for name in names}


def _class_lines(result: Mapping[str, Any], classes: tuple[str, ...]) -> list[str]:
    """Each class's accuracy, and what it is most often taken for."""
    lines, width = ["", "per class"], max(map(len, classes))
    for label, (share, row) in enumerate(zip(result["per_class"], result["confusion"], strict=True)):
        if share is None:
            continue
        wrong = [count if other != label else 0 for other, count in enumerate(row)]
        worst = max(range(len(wrong)), key=wrong.__getitem__)
        taken = f"   {wrong[worst]} of {sum(row)} taken for {classes[worst]}" if wrong[worst] else ""
        lines.append(f"  {classes[label]:<{width}} {100 * share:6.1f}{taken}")
    return lines
