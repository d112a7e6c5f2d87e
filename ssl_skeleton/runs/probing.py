"""A run's frozen encoders scored by probes, and what stands beside every score of a run."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ssl_skeleton import ranks
from ssl_skeleton.config import Config
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.store import EVERYTHING, Store, meta_sum
from ssl_skeleton.data.views.view import ViewConfig, check_view
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.clustering import cluster_probe
from ssl_skeleton.evaluation.features import (
    Encode,
    Features,
    Source,
    calibrate_norms,
    check_labels,
    encoding,
    labels_of_test,
    raw_encoding,
    split_features,
)
from ssl_skeleton.evaluation.knn import check_gallery, knn_probe
from ssl_skeleton.evaluation.linear import check_classes, linear_probe
from ssl_skeleton.evaluation.results import Progress, changes, overridden, score_with_baselines, write_result
from ssl_skeleton.evaluation.retrieval import retrieval_probe
from ssl_skeleton.evaluation.scores import Scorer, Scores
from ssl_skeleton.runs.run import Run, Tell

Probe = Callable[[Features], Scorer]


def on_store(run: Run, store: Path, split: str = EVERYTHING) -> Run:
    """The same run, to be used on another store; it may have been opened already."""
    data = run.recipe.data.model_copy(update={"store": str(store), "split": split})
    return replace(run, recipe=run.recipe.model_copy(update={"data": data}))


def evaluate(
    run: Run,
    evaluator: str,
    tell: Tell = lambda line: None,
    progress: Progress = lambda names, total, what: names,
) -> dict[str, Any]:
    """Score the representation and its baselines by a probe of `PROBES`; the result is written to the run.

    Ranks share the work of encoding. The main one scores and writes; what others return has no scores. `tell`
    gets a line on where the result lies, and `progress` wraps the names of what is scored.
    """
    probe, split = PROBES[evaluator](run), _asked(run, evaluator)
    check_labels(run.store.labels, split, run.store.path)
    check_probe(run, evaluator)
    packed = run.packed
    shown = windows(run) if evaluator == "linear" else []

    def score(encode: Encode) -> Scores:
        features = split_features(packed, split, encode, shown)
        return probe(features)(labels_of_test(packed, split)) if ranks.is_main() else {}

    config = run.recipe.evaluation
    protocol: Config = getattr(config, evaluator)
    result = about(run, evaluator, protocol)
    result["changed"] = protocol.model_dump(mode="json", exclude_defaults=True)
    if split.test is split.train:
        result["clips"] = {part: result["clips"][part] for part in _scored_parts(run, evaluator)}
    if evaluator == "linear":
        result |= {"evaluator": f"linear{linear_ending(run)}"} | about_windows(run)
    if evaluator in ("knn", "cluster"):
        result["evaluator"] = getattr(config, evaluator).evaluator
    result |= score_with_baselines(representations(run), score, progress)
    if ranks.is_main():
        tell(written_line(write_result(run.folder, result)))
    return result


def written_line(path: Path) -> str:
    """Where a result lies."""
    return f"written to {path}"


def check_probing(run: Run) -> None:
    """Raise UserError when a run cannot be probed on its store; what is asked takes no frames to tell."""
    check_labels(run.store.labels, run.splits[0], run.store.path)
    run.check_body(run.store)
    representations(run)
    for stage in run.evaluated_stages:
        run.trained_encoder(stage)


def check_probe(run: Run, probe: str) -> None:
    """Raise UserError when the training part is too little for a probe; it takes no frames to tell."""
    labels, knn = run.store.labels[run.splits[0].train], run.recipe.evaluation.knn
    if probe == "linear":
        check_classes(labels)
    if probe == "knn":
        check_gallery(labels, "kNN")
        knn.among(len(labels))


def _asked(run: Run, evaluator: str) -> Split:
    """The split that is probed; where no part teaches, all parts that are scored are its test part.

    They are its training part as well, so that they are encoded once.
    """
    split, parts = run.splits[0], _scored_parts(run, evaluator)
    if not parts:
        return split
    clips = np.concatenate([getattr(split, part) for part in parts])
    if not len(clips):
        more = ", or evaluation.cluster.part=all" if evaluator == "cluster" else ""
        raise UserError(
            f"split {split.name}: has no {' or '.join(parts)} part; choose another data.split{more}"
        )
    return Split(split.name, clips, clips)


def _scored_parts(run: Run, evaluator: str) -> tuple[str, ...]:
    """The parts of the split that are scored where none teaches: clusters, and clips left out in turn."""
    config, split = run.recipe.evaluation, run.splits[0]
    if evaluator == "cluster" and config.cluster.part == "all":
        return tuple(part for part in ("train", "validation", "test") if len(getattr(split, part)))
    if evaluator == "cluster":
        return (config.cluster.part,)
    return ("train",) if evaluator == "knn" and config.knn.leave_one_out else ()


def windows(run: Run) -> list[tuple[float, float]]:
    """The evenly placed windows of a test clip, start and length of each; none where it is seen whole."""
    clips, share = run.recipe.evaluation.clips, run.recipe.evaluation.clip_share
    return [(place / (clips - 1), share) for place in range(clips)] if clips > 1 else []


def about_windows(run: Run) -> dict[str, Any]:
    """What a result says of the windows of test clips; nothing where these are seen whole."""
    config = run.recipe.evaluation
    return {"windows": {"count": config.clips, "share": config.clip_share}} if config.clips > 1 else {}


def protocol_ending(run: Run) -> str:
    """What results by another linear protocol than this project's end with, as _cmd."""
    name = run.recipe.evaluation.linear.name
    return "" if name == "tuned" else f"_{name}"


def linear_ending(run: Run) -> str:
    """The same with the windows, as _cmd_3_clips: no result takes the place of another protocol's."""
    clips = run.recipe.evaluation.clips
    return protocol_ending(run) + (f"_{clips}_clips" if clips > 1 else "")


def _linear(run: Run) -> Probe:
    config, classes = run.recipe.evaluation.linear, len(run.store.meta.classes)
    return partial(linear_probe, classes=classes, config=config, seed=run.recipe.seed)


def _knn(run: Run) -> Probe:
    return partial(knn_probe, classes=len(run.store.meta.classes), config=run.recipe.evaluation.knn)


def _retrieve(run: Run) -> Probe:
    config, classes = run.recipe.evaluation.retrieve, len(run.store.meta.classes)
    return partial(retrieval_probe, classes=classes, config=config)


def _cluster(run: Run) -> Probe:
    config, classes = run.recipe.evaluation.cluster, len(run.store.meta.classes)
    return lambda features: cluster_probe(features.test, classes, config, run.recipe.seed)  # no label at all


PROBES: dict[str, Callable[[Run], Probe]] = {
    "linear": _linear,
    "knn": _knn,
    "retrieve": _retrieve,
    "cluster": _cluster,
}


def representations(run: Run) -> dict[str, Callable[[], Encode]]:
    """What is scored, `trained` first, and then its baselines; each is made when it is called.

    UserError when the store cannot be seen as one of them needs it.
    """
    trained = {"trained": partial(_by_encoders, run, trained=True)}
    return trained | raw_baselines(run) | {"untrained": partial(_by_encoders, run, trained=False)}


def raw_baselines(run: Run) -> dict[str, Callable[[], Encode]]:
    """The coordinates themselves, and where that is something else the streams that the encoder sees."""
    data, raw = run.recipe.data, ViewConfig()
    streams = [ViewConfig(streams=stage.pretext.input.streams) for stage in run.evaluated_stages]
    for wanted in (raw, *streams):
        check_view(run.layout, run.body.coordinates, data, wanted)
    views = {"raw": raw} | ({"raw_streams": streams[-1]} if streams[-1] != raw else {})
    return {name: partial(_by_nobody, run, view) for name, view in views.items()}


def about(run: Run, evaluator: str, protocol: Config) -> dict[str, Any]:
    """What a result says beside its scores; `overridden` are settings that are not its own recipe's."""
    store, split, stages = run.store, run.splits[0], run.evaluated_stages
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    own = Run.open(run.folder).recipe
    shown = changes(own.representation, run.recipe.representation)
    return {
        "evaluator": evaluator,
        **about_store(store),
        "split": split.name,
        "layout": run.layout.name,
        "repair": run.recipe.data.repair.to_tree(),
        "protocol": protocol.to_tree(),
        "overridden": overridden(own.evaluation, run.recipe.evaluation, evaluator)
        | {f"representation.{key}": value for key, value in shown.items()},
        "stages": {stage.name: stage.training.epochs for stage in stages},
        "streams": list(stages[-1].pretext.input.streams),
        "epoch": stages[-1].training.epochs,
        "seed": run.recipe.seed,
        "clips": {part: len(clips) for part, clips in parts.items() if len(clips)},
    }


def about_store(store: Store) -> dict[str, str]:
    """Which store a result is of, by name, place and content."""
    return {
        "store": store.path.absolute().name,
        "store_path": str(store.path.resolve()),
        "store_sum": meta_sum(store.meta.to_tree()),
    }


def sources(run: Run, *, trained: bool) -> list[Source]:
    """The representation's encoders, as trained or as they were at the start, and what they see."""
    found = []
    for stage in run.evaluated_stages:
        encoder = run.trained_encoder(stage) if trained else run.build_encoder(stage)
        found.append(Source(encoder, stage.pretext.input, run.recipe.representation.pooling))
    return found


def _by_encoders(run: Run, *, trained: bool) -> Encode:
    data, found = run.recipe.data, sources(run, trained=trained)
    for source in found if not trained else ():
        calibrate_norms(run.packed, run.splits[0], data, source)
    return encoding(run.packed, data, found)


def _by_nobody(run: Run, view: ViewConfig) -> Encode:
    return raw_encoding(run.packed, run.recipe.data, view)
