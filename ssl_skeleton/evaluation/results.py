"""Results: one JSON file an evaluation, and the table that a person reads."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Encode
from ssl_skeleton.evaluation.scores import Scores
from ssl_skeleton.files import read_json, write_json

ROWS = {
    "trained": "trained",
    "raw": "raw coordinates",
    "raw_streams": "raw {streams}",
    "untrained": "untrained encoder",
}
# What stands in a table, by its name among the scores; of a score with several values a column each.
COLUMNS = {
    "k": "k={}",
    "top1": "top1",
    "top5": "top5",
    "balanced": "balanced",
    "accuracy": "accuracy",
    "nmi": "NMI",
    "ari": "ARI",
    "purity": "purity",
    "area": "area",  # under a curve
    "map": "mAP",
    "recall": "recall@{}",
    "precision": "precision@{}",
    "index_recall": "index recall@{}",  # of the true neighbours
}
_PROBED = {"raw": "raw coordinates, linear", "raw_streams": "raw {streams}, linear"}
# Of evaluators whose names begin with this, the first that fits.
_OTHER_ROWS = {
    "finetune_scratch": {"trained": "from scratch", **_PROBED},
    "fuse": {"trained": "fused", "raw_streams": "raw {streams}, fused", "untrained": "untrained, fused"},
    "finetune": {"trained": "fine-tuned", "untrained": "from scratch", **_PROBED},
}


def score_with_baselines(
    representations: Mapping[str, Callable[[], Encode]], score: Callable[[Encode], Scores]
) -> Scores:
    """The scores of the representation that is `trained`, with those of all others under `baselines`.

    They are asked for one after another, so that only one set of features is in memory at a time.
    """
    scores = {name: score(encode()) for name, encode in representations.items()}
    return {**scores.pop("trained"), "baselines": scores}


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
    shown = {"trained": result} | result.get("parts", {}) | result["baselines"]
    rows = {names.get(key, key): _cells(scores) for key, scores in shown.items()}
    columns, width = list(rows[names["trained"]]), max(map(len, rows))
    wide = {place: max(len(place), *(len(cells[place]) for cells in rows.values())) + 3 for place in columns}
    lines = _heading(result)
    lines.append(" " * width + "".join(f"{name:>{wide[name]}}" for name in columns))
    for name, cells in rows.items():
        lines.append(f"{name:<{width}}" + "".join(f"{cells[place]:>{wide[place]}}" for place in columns))
    lines += unseen_line(result, classes)
    return "\n".join([*lines, *_class_lines(result, classes)])


def unseen_line(result: Mapping[str, Any], classes: tuple[str, ...]) -> list[str]:
    """The line on classes that test clips show and no training clip does, where there are any."""
    unseen = ", ".join(classes[label] for label in result.get("unseen", ()))
    return [f"no training clip shows {unseen}"] if unseen else []


def _heading(result: Mapping[str, Any]) -> list[str]:
    """What the numbers are of, and how they were found."""
    place = f"{result['evaluator']} on {result['store']}, split {result['split']}, in %"
    if "std" in result:
        place += f", mean ± deviation of {len(result['repeats']['top1'])} repeats"
    elif "interval" in result:
        place += ", with 95 % intervals"
    if "rerank" in result:
        place += f", re-ranking {'on' if result['rerank'] else 'off'}"
    how, protocol = [], result.get("protocol", {})
    if "name" in protocol:
        changed = ", ".join(f"{key}={value}" for key, value in result.get("changed", {}).items())
        how.append(f"protocol {protocol['name']}{' with ' if changed else ''}{changed}")
    if "windows" in result:
        count, share = result["windows"]["count"], result["windows"]["share"]
        how.append(f"class probabilities averaged over {count} windows of {100 * share:g} % of a clip")
    if "left_out" in result:
        others = f", {result['left_out']} left out whose class the gallery lacks"
        how.append(f"{result['queries']} queries{others if result['left_out'] else ''}")
    if "index_queries" in result:
        how.append(f"the index compared with an exact one on {result['index_queries']} clips")
    if "assigned" in result:
        how.append(f"{result['clusters']} clusters of {len(result['assigned'])} clips")
    return [place, "; ".join(how)] if how else [place]


def _cells(scores: Mapping[str, Any]) -> dict[str, str]:
    """What stands in a row, by column; where there are several k, they stand for `top1`."""
    cells: dict[str, str] = {}
    spread = {name: f" ± {100 * share:.1f}" for name, share in scores.get("std", {}).items()}
    hidden = ("top1", "top5", "balanced") if "k" in scores else ()
    for name, column in COLUMNS.items():
        if name not in scores or name in hidden:
            continue
        values = scores[name] if isinstance(scores[name], Mapping) else {"": scores[name]}
        cells |= {column.format(key): f"{100 * v:.1f}{spread.get(name, '')}" for key, v in values.items()}
        low, high = scores.get("interval", {}).get("top1" if name == "k" else name, (None, None))
        if low is not None:  # of several k, the first one gives the top1
            cells[column.format(next(iter(values)))] += f" ({100 * low:.1f}-{100 * high:.1f})"
    return cells


def _class_lines(result: Mapping[str, Any], classes: tuple[str, ...]) -> list[str]:
    """Each class's accuracy, where that is a score, and what it is most often taken for."""
    if "per_class" not in result:
        return []
    lines, width = ["", "per class"], max(map(len, classes))
    for label, (share, row) in enumerate(zip(result["per_class"], result["confusion"], strict=True)):
        if share is None:
            continue
        wrong = [count if other != label else 0 for other, count in enumerate(row)]
        worst = max(range(len(wrong)), key=wrong.__getitem__)
        taken = f"   {wrong[worst]} of {sum(row)} taken for {classes[worst]}" if wrong[worst] else ""
        lines.append(f"  {classes[label]:<{width}} {100 * share:6.1f}{taken}")
    return lines
