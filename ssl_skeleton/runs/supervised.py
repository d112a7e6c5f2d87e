"""A run's encoders trained with labels: on from where pretraining left them, or from their random start."""

from collections.abc import Sequence
from typing import Any

from ssl_skeleton.data.views.view import ViewConfig, check_view
from ssl_skeleton.evaluation.features import Source, split_features
from ssl_skeleton.evaluation.finetune import Lesson, check_lesson, finetune_scores, probe_scores
from ssl_skeleton.evaluation.results import write_result
from ssl_skeleton.runs.probing import about, raw_baselines
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.loop import Report


def check_supervised(run: Run) -> None:
    """Raise UserError when a run's store cannot teach a classifier; what is asked takes no frames to tell."""
    check_lesson(run.store.labels, run.splits[0], run.store.meta.classes)
    training = ViewConfig(augment=run.recipe.evaluation.finetune.augment)
    check_view(run.layout, run.body.coordinates, run.recipe.data, training)


def finetune(
    run: Run,
    *,
    from_scratch: bool = False,
    untrained: bool = True,
    report: Report = lambda standing: None,
) -> dict[str, Any]:
    """Train the encoders of the representation, and a linear layer on all of them; the result is written.

    The baseline `raw` is the linear probe on coordinates, which learns from the same clips. `untrained` is
    the training from scratch with the same draws of labels, batches and augmentations; it leaves a result of
    its own, and takes as long again: `untrained=False` goes without. `report` is called after every step.
    """
    config, linear = run.recipe.evaluation.finetune, run.recipe.evaluation.linear
    check_supervised(run)

    def start(repeat: int) -> Sequence[Source]:
        sources = []
        for stage in run.evaluated_stages:
            encoder = run.build_encoder(stage, repeat) if from_scratch else run.trained_encoder(stage)
            view = ViewConfig(streams=stage.pretext.input.streams, augment=config.augment)
            sources.append(Source(encoder, view, run.recipe.representation.pooling))
        return sources

    start(0)  # a missing encoder should be missed before anything takes long
    raw, classes = raw_baselines(run), len(run.store.meta.classes)
    lesson = Lesson(run.packed, run.splits[0], run.recipe.data, classes, run.recipe.seed)
    scratch = None
    if untrained and not from_scratch:
        scratch = finetune(run, from_scratch=True, report=report)
        baselines = dict(scratch["baselines"])
    else:
        baselines = {}
        for name, encode in raw.items():
            features = split_features(run.packed, run.splits[0], encode())
            baselines[name] = probe_scores(lesson, features, config, linear)
    evaluator = config.evaluator(from_scratch=from_scratch)
    scores, logs = finetune_scores(lesson, start, config, what=evaluator, report=report)
    if scratch is not None:
        baselines["untrained"] = {name: scratch[name] for name in scores}
    result = about(run, evaluator, config) | {"raw_protocol": linear.to_tree()}
    if from_scratch:
        result |= {"epoch": 0, "stages": dict.fromkeys(result["stages"], 0)}
    result["clips"]["labelled"] = len(lesson.draw(config, repeat=0))
    result |= scores | {"baselines": baselines, "log": logs}
    write_result(run.folder, result)
    return result
