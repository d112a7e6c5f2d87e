"""A run's frozen encoders scored by probes, and what stands beside every score of a run."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from ssl_skeleton import ranks
from ssl_skeleton.config import Config
from ssl_skeleton.data.views.view import ViewConfig, check_view
from ssl_skeleton.evaluation.features import Features, Source, calibrate_norms, encoder_features, raw_features
from ssl_skeleton.evaluation.knn import knn_scores
from ssl_skeleton.evaluation.linear import linear_scores
from ssl_skeleton.evaluation.results import score_with_baselines, write_result
from ssl_skeleton.run import Run

Evaluator = Literal["linear", "knn"]


def evaluate(run: Run, evaluator: Evaluator) -> dict[str, Any]:
    """Score the representation and its baselines; the result is written to the run folder.

    Ranks share the work of encoding. The main one scores and writes; what others return has no scores.
    """
    evaluation, classes, seed = run.recipe.evaluation, len(run.store.meta.classes), run.recipe.seed

    def score(features: Features) -> dict[str, Any]:
        if not ranks.is_main():
            return {}
        if evaluator == "linear":
            return linear_scores(features, classes, evaluation.linear, seed)
        return knn_scores(features, classes, evaluation.knn)

    baselines = raw_baselines(run) | {"untrained": partial(_features, run, trained=False)}
    result = about(run, evaluator, getattr(evaluation, evaluator))
    result |= score_with_baselines(partial(_features, run, trained=True), baselines, score)
    if ranks.is_main():
        write_result(run.folder, result)
    return result


def raw_baselines(run: Run) -> dict[str, Callable[[], Features]]:
    """What gives the features of raw baselines; UserError when the store cannot be seen so."""
    data, raw = run.recipe.data, ViewConfig()
    streams = [ViewConfig(streams=stage.pretext.input.streams) for stage in run.evaluated_stages]
    for wanted in (raw, *streams):
        check_view(run.layout, run.body.coordinates, data, wanted)
    views = {"raw": raw} | ({"raw_streams": streams[-1]} if streams[-1] != raw else {})
    return {
        name: partial(raw_features, run.packed, run.splits[0], data, view) for name, view in views.items()
    }


def about(run: Run, evaluator: str, protocol: Config) -> dict[str, Any]:
    """What a result says beside its scores."""
    store, split, stages = run.store, run.splits[0], run.evaluated_stages
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    return {
        "evaluator": evaluator,
        "store": store.path.absolute().name,
        "store_path": str(store.path.resolve()),
        "split": split.name,
        "layout": run.layout.name,
        "repair": run.recipe.data.repair.to_tree(),
        "protocol": protocol.to_tree(),
        "stages": {stage.name: stage.training.epochs for stage in stages},
        "streams": list(stages[-1].pretext.input.streams),
        "epoch": stages[-1].training.epochs,
        "seed": run.recipe.seed,
        "clips": {part: len(clips) for part, clips in parts.items() if len(clips)},
    }


def _features(run: Run, *, trained: bool) -> Features:
    """The features of the representation's encoders, as trained or as they were at the start."""
    packed, split, data, sources = run.packed, run.splits[0], run.recipe.data, []
    for stage in run.evaluated_stages:
        encoder = run.trained_encoder(stage) if trained else run.build_encoder(stage)
        source = Source(encoder, stage.pretext.input, run.recipe.representation.pooling)
        if not trained:
            calibrate_norms(packed, split, data, source)
        sources.append(source)
    return encoder_features(packed, split, data, sources)
