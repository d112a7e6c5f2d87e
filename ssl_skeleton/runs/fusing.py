"""Runs fused: the class probabilities of their linear probes on the same clips, weighted and added."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import Encode, split_features
from ssl_skeleton.evaluation.fusion import (
    FusionConfig,
    Weights,
    choose_weights,
    choosing_clips,
    equal,
    fusion_scorer,
    held_apart,
)
from ssl_skeleton.evaluation.linear import learn_linear
from ssl_skeleton.evaluation.results import (
    ROWS,
    Progress,
    chosen_line,
    result_table,
    short_hash,
    write_result,
)
from ssl_skeleton.evaluation.scores import Labels, Scorer
from ssl_skeleton.runs.probing import (
    about,
    about_windows,
    check_probe,
    check_probing,
    linear_ending,
    representations,
    windows,
    written_line,
)
from ssl_skeleton.runs.run import Run, Tell
from ssl_skeleton.runs.tried import FUSED

_LONGEST = 100  # letters of the runs' names in the name of a folder
_FILES = ("clips.csv", "frames.npy", "tracks.npy")
_OF_RUNS = ("stages", "streams", "epoch", "seed")  # what a result says of each, as of one alone


@dataclass(frozen=True)
class Answer:
    """The class probabilities (N, C) of test clips, and of those that choose weights, with their labels.

    `taken` is the rate or strength of the probe that gave the former.
    """

    test: NDArray[np.float64]
    taken: Mapping[str, float]
    held: NDArray[np.float64] | None = None
    held_labels: Labels | None = None


def check_fusable(runs: Sequence[Run]) -> None:
    """Raise UserError when runs cannot be fused; what is asked takes no frames to tell."""
    if len(runs) < 2:
        raise UserError(
            "a fusion takes two runs or more, as in: python -m ssl_skeleton.fuse runs/joint runs/bone"
        )
    places = Counter(run.folder.resolve() for run in runs)
    twice = [run.folder for run in runs if places[run.folder.resolve()] > 1]
    if twice:
        raise UserError(f"{twice[0]}: stands twice; name every run once, and weigh it with --weights")
    first, *others = runs
    first.recipe.evaluation.fuse.check_runs(len(runs))
    for run in runs:
        check_probing(run)
        check_probe(run, "linear")
    config, split = first.recipe.evaluation.fuse, first.splits[0]
    if config.choose and not len(split.validation):
        choosing_clips(first.store.labels[split.train], config.held_out, first.recipe.seed)
    for run in others:
        wanted = _facts(first)
        for what, (fact, shown) in _facts(run).items():
            if fact != wanted[what][0]:
                raise UserError(
                    f"{first.folder} and {run.folder} have different {what} ({wanted[what][1]}; {shown}); "
                    "name one store and split for all: data.store=STORE data.split=SPLIT"
                )


def _facts(run: Run) -> dict[str, tuple[object, str]]:
    """What must be the same of all runs, and how to say it."""
    store, split = run.store, run.splits[0]
    parts = [part.tolist() for part in (split.train, split.validation, split.test)]
    return {
        "stores": ([store.meta.sha256.get(name) for name in _FILES], str(store.path)),
        "classes": (store.meta.classes, ", ".join(store.meta.classes)),
        "splits": (split.name, split.name),
        "clips": (parts, f"{len(parts[0])} train, {len(parts[2])} test"),
    }


def fuse(
    runs: Sequence[Run],
    out: Path | None = None,
    tell: Tell = lambda line: None,
    progress: Progress = lambda names, total, what: names,
) -> dict[str, Any]:
    """Score the fusion of runs, and each alone; the result is written to `out`, or to the `fusion_folder`.

    It holds the recipes of the runs, by which fusions are told apart when they are compared. Its baselines
    are fusions as well: of the encoders without training, and of the coordinates that they see. Where weights
    are chosen, they are chosen for each of these by itself. `tell` gets lines on
    what probes chose and on where the result lies, and `progress` wraps the names of the runs.
    """
    check_fusable(runs)
    out = out or fusion_folder(runs)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is no folder; name another one with --out")
    first, config, names = runs[0], runs[0].recipe.evaluation.fuse, run_names(runs)
    known: dict[str, Answer] = {}
    by_name = dict(zip(names, runs, strict=True))
    answers = [
        _answers(by_name[name], config, first.recipe.seed, known)
        for name in progress(names, len(names), config.evaluator)
    ]
    kinds = [kind for kind in ROWS if any(kind in found for found in answers)]
    together = {kind: [found.get(kind, found["raw"]) for found in answers] for kind in kinds}
    weights = {kind: _weights(some, config) for kind, some in together.items()}
    scorers = {kind: _fusion(some, weights[kind]) for kind, some in together.items()}
    parts = {} if weights["trained"] == equal(len(runs)) else {"equal weights": equal(len(runs))}
    alone = {f"{name} alone": tuple(float(other == name) for other in names) for name in names}
    taken = {f"{name} alone": found["trained"].taken for name, found in zip(names, answers, strict=True)}
    part_scorers = {name: _fusion(together["trained"], some) for name, some in (parts | alone).items()}
    labels = first.store.labels[first.splits[0].test]  # for all answers are given
    scores = {kind: score(labels) for kind, score in scorers.items()}
    result = {
        **_about(runs, config),
        **scores.pop("trained"),
        "parts": {name: {**score(labels), **taken.get(name, {})} for name, score in part_scorers.items()},
        "baselines": scores,
    }
    unseen = np.setdiff1d(labels, first.store.labels[first.splits[0].train]).tolist()
    if unseen:
        result["unseen"] = unseen
    if (held_labels := answers[0]["trained"].held_labels) is not None:
        result["clips"]["choosing"] = len(held_labels)
    for line in _taken_lines(result):
        tell(line)
    tell(written_line(write_result(out, result)))
    return result


def _taken_lines(result: Mapping[str, Any]) -> list[str]:
    """Which rate or strength each run's probe has taken, where there were several."""
    lines = []
    for name, values in (("rate", "rates"), ("strength", "strengths")):
        pairs = zip(result["runs"], result["probe_protocol"], strict=True)
        names = [run["name"] for run, protocol in pairs if len(protocol.get(values, ())) > 1]
        if names:
            taken = {run: result["parts"][f"{run} alone"][name] for run in names}
            lines.append(chosen_line(result, name, taken))
    return lines


def _about(runs: Sequence[Run], config: FusionConfig) -> dict[str, Any]:
    """What a result says beside its scores: of the first run, and of all."""
    first = runs[0]
    facts = [about(run, f"{config.evaluator}{linear_ending(first)}", config) for run in runs]
    return {
        **facts[0],
        **about_windows(first),
        "overridden": {key: value for fact in facts for key, value in fact["overridden"].items()},
        "probe_protocol": [run.recipe.evaluation.linear.to_tree() for run in runs],
        "streams": list(dict.fromkeys(stream for fact in facts for stream in fact["streams"])),
        "runs": [
            {
                "name": name,
                "folder": str(run.folder.resolve()),
                **{key: fact[key] for key in _OF_RUNS},
                **about_windows(run),
                "recipe": Run.open(run.folder).recipe.to_tree(),
            }
            for name, run, fact in zip(run_names(runs), runs, facts, strict=True)
        ],
    }


def fusion_table(result: Mapping[str, Any], classes: tuple[str, ...]) -> str:
    """The result as text: its title, how each run was probed and how much it counts, then the rows."""
    title, *rows = result_table(result, classes).split("\n")
    shares = zip((run["name"] for run in result["runs"]), result["weights"], strict=True)
    chosen = result["protocol"]["choose"]
    how = f", chosen by {chosen} on {result['clips']['choosing']} clips held out" if chosen else ""
    weights = ", ".join(f"{name} {weight:.3g}" for name, weight in shares)
    return "\n".join([title, _protocol_line(result), f"weights: {weights}{how}", *rows])


def _protocol_line(result: Mapping[str, Any]) -> str:
    """The protocol of the linear probes, or of each run's where they differ."""
    each = [protocol["name"] for protocol in result["probe_protocol"]]
    told = {key: value for key, value in result["overridden"].items() if key.startswith("linear.")}
    changed = ", ".join(f"{key.removeprefix('linear.')}={value}" for key, value in told.items())
    name = each[0] if len(set(each)) == 1 else "+".join(each)
    return f"protocol {name}{' with ' if changed else ''}{changed}"


def fusion_folder(runs: Sequence[Run]) -> Path:
    """Where a fusion is kept unless it is said: `fused/` beside the first run, under the names of all.

    Where names are too long for that or stand twice, a hash of the runs' paths ends it.
    """
    names = [run.folder.resolve().name for run in runs]
    name = "+".join(names)
    if len(name) > _LONGEST or len(set(names)) < len(names):
        name = f"{name[:_LONGEST]}-{short_hash([str(run.folder.resolve()) for run in runs])}"
    return _beside(runs[0].folder) / FUSED / name


def _beside(folder: Path) -> Path:
    """The folder in which one lies, as it was typed unless that names another one, as of `.` and links."""
    parent = folder.resolve().parent
    return folder.parent if folder.parent.resolve() == parent else parent


def run_names(runs: Sequence[Run]) -> list[str]:
    """What to call each run: its folder's name, or its path where two have the same name."""
    names = [run.folder.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder.resolve()) for run in runs]


def _answers(run: Run, config: FusionConfig, seed: int, known: dict[str, Answer]) -> dict[str, Answer]:
    """What a run and its baselines answer; `known` are those that another run may share, and its own."""
    fresh, found = replace(run), {}  # without frames, so that those of one run alone are in memory
    for kind, encode in representations(fresh).items():
        key = _key(fresh, kind)
        if key not in known:
            known[key] = _answer(fresh, encode(), config, seed)
        found[kind] = known[key]
    return found


def _key(run: Run, kind: str) -> str:
    """What an answer hangs on: coordinates are the same in all runs that see them in the same way."""
    recipe, streams = run.recipe, run.evaluated_stages[-1].pretext.input.streams
    whose = {"raw": ViewConfig().streams, "raw_streams": streams}.get(kind, (str(run.folder), kind))
    how = [recipe.data.to_tree(), run.body.to_tree(), recipe.evaluation.linear.to_tree(), windows(run)]
    return json.dumps([whose, recipe.seed, *how])


def _answer(run: Run, encode: Encode, config: FusionConfig, seed: int) -> Answer:
    features = split_features(run.packed, run.splits[0], encode, windows(run))
    classes = len(run.store.meta.classes)
    linear, own_seed = run.recipe.evaluation.linear, run.recipe.seed
    held, held_labels = None, None
    if config.choose is not None:
        learn, held_labels = held_apart(features, config.held_out, seed)
        held = learn_linear(learn, classes, linear, own_seed).probabilities(learn)
    probe = learn_linear(features, classes, linear, own_seed)
    return Answer(probe.probabilities(features), probe.taken, held, held_labels)


def _weights(answers: Sequence[Answer], config: FusionConfig) -> Weights:
    held, labels = [answer.held for answer in answers], answers[0].held_labels
    if labels is not None:
        return choose_weights(np.stack([held_nc for held_nc in held if held_nc is not None]), labels, config)
    return config.weights or equal(len(answers))


def _fusion(answers: Sequence[Answer], weights: Weights) -> Scorer:
    return fusion_scorer(np.stack([answer.test for answer in answers]), weights)
