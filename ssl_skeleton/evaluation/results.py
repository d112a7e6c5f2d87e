"""Results: one JSON file an evaluation, and the table that a person reads."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from ssl_skeleton.config import Config
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
    "area": "area, {}",  # under a curve
    "map": "mAP",
    "recall": "recall@{}",
    "precision": "precision@{}",
    "index_recall": "index recall@{}",  # of the true neighbours
}
FUSED_ROWS = {"raw_streams": "raw {streams}, fused", "untrained": "untrained, fused"}
_PROBED = {"raw": "raw coordinates, linear", "raw_streams": "raw {streams}, linear"}
# Of evaluators whose names begin with this, the first that fits.
_OTHER_ROWS = {
    "finetune_scratch": {"trained": "from scratch", **_PROBED},
    "fuse": {"trained": "fused", **FUSED_ROWS},
    "finetune": {"trained": "fine-tuned", "untrained": "from scratch", **_PROBED},
}
# Of an evaluator: the settings below `evaluation` that it uses, and those of them that its name tells.
_SETTINGS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "linear": (("linear", "clips", "clip_share"), ("name", "clips")),
    "knn": (("knn",), ("weights", "leave_one_out", "rerank", "index.name")),
    "retrieve": (("retrieve",), ()),
    "cluster": (("cluster",), ("part", "clusters")),
    "finetune": (("finetune", "linear"), ("labels",)),
    "fuse": (("fuse", "linear", "clips", "clip_share"), ("choose", "linear.name", "clips")),
    "early": (("early", "linear", "knn"), ("probe", "train", "linear.name")),
    "robustness": (("robustness", "linear", "knn"), ("probe", "joints", "linear.name")),
}
Progress = Callable[[Iterable[str], int, str], Iterable[str]]
_LONGEST = 100  # letters of the settings in the name of a file


def settings_of(evaluator: str) -> Sequence[str]:
    """The settings below `evaluation` that an evaluator uses."""
    return _SETTINGS[evaluator.partition("_")[0]][0]


def score_with_baselines(
    representations: Mapping[str, Callable[[], Encode]],
    score: Callable[[Encode], Scores],
    progress: Progress = lambda names, total, what: names,
) -> Scores:
    """The scores of the representation that is `trained`, with those of all others under `baselines`.

    They are asked for one after another, so that only one set of features is in memory at a time. `progress`
    wraps their names.
    """
    names = progress(representations, len(representations), "representations")
    scores = {name: score(representations[name]()) for name in names}
    return {**scores.pop("trained"), "baselines": scores}


def overridden(own: Config, now: Config, evaluator: str) -> dict[str, Any]:
    """The settings of an evaluator that are not those of a run's own recipe, by key path.

    `own` and `now` are the sections `evaluation` of both. Settings of the evaluator's own section come first,
    without its name. Left out is what the evaluator's name tells, as `linear_cmd` its protocol. A section of
    another kind than the recipe's is compared with what that kind has by default.
    """
    kind = evaluator.partition("_")[0]
    used, told = settings_of(kind), _SETTINGS[kind][1]
    changed = {key: value for key, value in changes(own, now).items() if key.partition(".")[0] in used}
    first = sorted(changed, key=lambda key: not key.startswith(f"{kind}."))
    named = {key.removeprefix(f"{kind}."): changed[key] for key in first}
    return {key: value for key, value in named.items() if key not in told}


def changes(own: object, now: Config) -> dict[str, Any]:
    """The values of `now` that are others than in `own`, or if that is of another kind than by default."""
    tree, found = now.to_tree(), {}
    if type(own) is not type(now):
        own, found = type(now)(), {"name": tree["name"]}
    for key in type(now).model_fields:
        one, other = getattr(own, key), getattr(now, key)
        if isinstance(other, Config):
            found |= {f"{key}.{inner}": value for inner, value in changes(one, other).items()}
        elif one != other:
            found[key] = tree[key]
    return found


def write_result(folder: Path, result: Mapping[str, Any]) -> Path:
    """Write a result to `eval/<evaluator>-<store>-<split>.json` of a run folder; returns the path.

    Settings that are not as the run's recipe has them (`overridden`) end the name, as `-epochs=200`. Where
    that file is of another store or gallery of the same name, or of other runs, a hash of them ends it.
    """
    settings = _in_a_name(result.get("overridden", {}))
    name = "-".join([result["evaluator"], result["store"], result["split"], *settings])
    path = folder / "eval" / f"{name}.json"
    if _is_of_others(path, result):
        path = path.with_name(f"{name}-{short_hash([*chain(*_places(result))])}.json")
    write_json(path, dict(result))
    return path


def _in_a_name(settings: Mapping[str, Any]) -> list[str]:
    """What the settings add to the name of a file; where that is too long, a hash ends it."""
    words = [f"{key}={json.dumps(value, separators=(',', ':'))}" for key, value in settings.items()]
    name = re.sub(r"[^\w.,=+-]", "", "-".join(words))  # no brackets and quotes
    return [f"{name[:_LONGEST]}-{short_hash(words)}" if len(name) > _LONGEST else name] if words else []


def _is_of_others(path: Path, result: Mapping[str, Any]) -> bool:
    """Whether a result lies there that names another store, gallery or runs; an older one may name none."""
    if not path.exists():
        return False
    try:
        there = read_json(path)
    except UserError:  # damaged: nothing is lost with it
        return False
    known = _places(there) if isinstance(there, dict) else []
    return any(any(there) and there != here for there, here in zip(known, _places(result), strict=False))


def _places(result: Mapping[str, Any]) -> list[list[Any]]:
    """The paths of all that a result is of, as far as it names them: store, gallery, fused runs."""
    store, gallery, runs = result.get("store_path"), result.get("gallery"), result.get("runs")
    return [
        [store] if store else [],
        [gallery.get("store_path")] if isinstance(gallery, dict) else [],
        [run.get("folder") for run in runs if isinstance(run, dict)] if isinstance(runs, list) else [],
    ]


def short_hash(words: Sequence[str]) -> str:
    """What ends a name that cannot hold all these words, such as paths."""
    return hashlib.sha256("\0".join(words).encode(errors="surrogateescape")).hexdigest()[:8]


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


def chosen_line(result: Mapping[str, Any], name: str, chosen: Mapping[str, float]) -> str:
    """On what the probes of these rows, or runs, have chosen a rate or a strength, and which."""
    on = "the validation part" if "validation" in result["clips"] else "held-out training clips"
    return f"{name} chosen on {on}: {', '.join(f'{row} {value:g}' for row, value in chosen.items())}"


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
