"""A run's encoders trained with labels: on from where pretraining left them, or from their random start."""

import math
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ssl_skeleton.data.views.view import ViewConfig, check_view
from ssl_skeleton.encoders.gcn import GraphEncoder
from ssl_skeleton.encoders.released import Released, check_place, save_released
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.classifier import Classifier
from ssl_skeleton.evaluation.features import Source, split_features
from ssl_skeleton.evaluation.finetune import Lesson, check_lesson, finetune_scores, probe_scores
from ssl_skeleton.evaluation.results import write_result
from ssl_skeleton.runs.probing import about, raw_baselines, written_line
from ssl_skeleton.runs.run import Run, Tell
from ssl_skeleton.training.loop import Report


def check_supervised(run: Run, keep: Path | None = None) -> None:
    """Raise UserError when a run's store cannot teach a classifier; what is asked takes no frames to tell.

    So it is when what is trained cannot be kept in the file `keep`.
    """
    check_lesson(run.store.labels, run.splits[0], run.store.meta.classes, run.store.path)
    training = ViewConfig(augment=run.recipe.evaluation.finetune.augment)
    check_view(run.layout, run.body.coordinates, run.recipe.data, training)
    if keep is not None:
        _check_keeping(run, keep)


def finetune(
    run: Run,
    *,
    from_scratch: bool = False,
    untrained: bool = True,
    keep: Path | None = None,
    report: Report = lambda standing: None,
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Train the encoders of the representation, and a linear layer on all of them; the result is written.

    The baseline `raw` is the linear probe on coordinates, which learns from the same clips. `untrained` is
    the training from scratch with the same draws of labels, batches and augmentations; it leaves a result of
    its own, and takes as long again: `untrained=False` goes without. `keep` names the file that is to hold
    the encoder as a released one, with its classifier. `report` is called after every step, and `tell` gets a
    line on every file.
    """
    config, linear = run.recipe.evaluation.finetune, run.recipe.evaluation.linear
    config = config.model_copy(update={"repeats": config.times})  # as a number, in the result too
    check_supervised(run, keep)

    start = partial(_start, run, from_scratch=from_scratch)
    start(0)  # a missing encoder should be missed before anything takes long
    raw, classes = raw_baselines(run), len(run.store.meta.classes)
    lesson = Lesson(run.packed, run.splits[0], run.recipe.data, classes, run.recipe.seed)
    scratch = None
    if untrained and not from_scratch:
        scratch = finetune(run, from_scratch=True, report=report, tell=tell)
        baselines = dict(scratch["baselines"])
    else:
        baselines = {}
        for name, encode in raw.items():
            features = split_features(run.packed, run.splits[0], encode())
            baselines[name] = probe_scores(lesson, features, config, linear)
    told: list[str] = []
    evaluator = config.evaluator(from_scratch=from_scratch)
    kept = partial(_keep, run, keep, told.append) if keep is not None else lambda model: None
    scores, logs = finetune_scores(lesson, start, config, what=evaluator, report=report, keep=kept)
    if scratch is not None:
        baselines["untrained"] = {name: scratch[name] for name in scores}
    result = about(run, evaluator, config) | {"raw_protocol": linear.to_tree()}
    if from_scratch:
        result |= {"epoch": 0, "stages": dict.fromkeys(result["stages"], 0)}
    result["clips"]["labelled"] = len(lesson.draw(config, repeat=0))
    result |= scores | {"baselines": baselines, "log": logs}
    tell(written_line(write_result(run.folder, result)))
    for line in told:
        tell(line)
    return result


def _start(run: Run, repeat: int, *, from_scratch: bool) -> Sequence[Source]:
    """The encoders with which a repeat begins, as pretraining left them or from a random start of its own."""
    sources = []
    for stage in run.evaluated_stages:
        encoder = run.build_encoder(stage, repeat) if from_scratch else run.trained_encoder(stage)
        view = ViewConfig(streams=stage.pretext.input.streams, augment=run.recipe.evaluation.finetune.augment)
        sources.append(Source(encoder, view, run.recipe.representation.pooling))
    return sources


def _check_keeping(run: Run, path: Path) -> None:
    """Raise UserError when what is fine-tuned cannot be kept in that file."""
    if os.path.lexists(path):
        raise UserError(f"{path}: already exists; keep it in another file")
    check_place(path, overwrite=False)
    if len(run.evaluated_stages) > 1:
        stages = ", ".join(stage.name for stage in run.evaluated_stages)
        raise UserError(f"{path}: holds one encoder, but the representation is of several stages ({stages})")


def _keep(run: Run, path: Path, tell: Tell, model: Classifier) -> None:
    """Write the encoder of a classifier, and its linear layer where that means the same to `Released.scores`.

    There a graph encoder's step counts once, for however many frames it stands. `tell` gets a line on what
    was written.
    """
    data, source = run.recipe.data, model.sources[0]
    span = math.prod(source.encoder.strides) if isinstance(source.encoder, GraphEncoder) else 1
    alike = span == 1 or (data.frames or 1) % span == 0
    released = Released(
        config=run.recipe.encoder,
        layout=run.layout,
        coordinates=run.body.coordinates,
        bodies=data.bodies,
        frames=data.frames,
        normalise=data.normalise,
        streams=source.view.streams,
        pooling=source.pooling,
        source=f"{run.folder.absolute().name}, fine-tuned on {run.store.path.absolute().name}, "
        f"split {run.splits[0].name}",
        encoder=source.encoder,
        head=model.layer if alike else None,
    )
    save_released(path, released.to("cpu"))
    what = "the encoder and its classifier"
    if not alike:
        clips = f"clips of {data.frames} frames" if data.frames else "clips of any length"
        what = f"the encoder alone: its steps of {span} frames do not divide {clips}, so that from the file "
        what += "the classifier would give other scores"
    tell(f"kept in {path}: {what}")
