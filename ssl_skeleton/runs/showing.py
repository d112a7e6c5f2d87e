"""How a run's recognition fares when less, or worse, is seen of the test clips: curves with all baselines."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.altered import beginnings, part_of
from ssl_skeleton.data.frames import spatial_of
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.curves import TITLES, UNITS, curve_scores, named_rows
from ssl_skeleton.evaluation.features import (
    Encode,
    Features,
    Look,
    check_labels,
    labels_of_test,
    split_features,
)
from ssl_skeleton.evaluation.linear import learn_linear
from ssl_skeleton.evaluation.results import score_with_baselines, write_result
from ssl_skeleton.evaluation.scores import Scorer, Scores
from ssl_skeleton.evaluation.shown import EarlyConfig, ProbeName, RobustnessConfig, damaged
from ssl_skeleton.runs.probing import (
    PROBES,
    about,
    check_probe,
    protocol_ending,
    representations,
    written_line,
)
from ssl_skeleton.runs.run import Run, Tell

if TYPE_CHECKING:
    from ssl_skeleton.figures.curves import Panel

Learned = Callable[[NDArray[np.float32]], Scorer]
"""A probe that has learned: gives its answers for the features (N, D) of test clips."""
Progress = Callable[[Sequence[float], int, str], Iterable[float]]


def early(
    run: Run,
    progress: Progress = lambda levels, total, what: levels,
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Score the recognition of test clips of which only a first part is seen; the result is written.

    A clip is cut where its recording is read: repairs, the normalisation and a choice of bodies by the run
    know nothing of what comes later; the stored order of bodies does, where it is by motion. What is left is
    then shown as whole clips are, and so resampled to the recipe's `frames`, where it has them. `tell` gets a
    line on where the result lies, and one on its picture.
    """
    config, split = run.recipe.evaluation.early, run.splits[0]
    check_labels(run.store.labels, split, run.store.path)
    check_probe(run, config.probe)
    test, everything = part_of(run.store, split.test), np.arange(len(split.test))

    def of_whole_clips(learned: Learned, encode: Encode, share: float) -> Scorer:
        return learned(encode(everything, Look(packed=run.pack([beginnings(test, share)]))))

    def of_cut_clips(encode: Encode, share: float) -> Scorer:
        cut = run.pack([beginnings(run.store, share)])
        features = split_features(cut, split, shown_as(encode, cut))
        return _learn(run, config.probe, features)(features.test)

    def score(encode: Encode) -> Scores:
        features = split_features(run.packed, split, encode)
        learned = _learn(run, config.probe, features)
        whole = learned(features.test)
        answer = partial(of_cut_clips, encode)
        if config.train == "whole":
            answer = partial(of_whole_clips, learned, encode)
        shares = progress(config.shares, len(config.shares), TITLES["seen"])
        answers = [[whole if share == 1 else answer(share)] for share in shares]
        labels = labels_of_test(run.packed, split)
        curve = curve_scores(config.shares, "share", answers, labels)
        scores = whole(labels) | {"area": curve["area"], "curves": {"seen": curve}}
        scores["interval"] = scores["interval"] | {"area": curve["area_interval"]}
        return scores

    return _scored(run, config, score, tell)


def robustness(
    run: Run,
    progress: Progress = lambda levels, total, what: levels,
    tell: Tell = lambda line: None,
) -> dict[str, Any]:
    """Score the recognition of damaged test clips; the result is written.

    Recordings are damaged before anything is done with them: repairs, the choice of bodies and the
    normalisation meet what they would meet in recordings that are so. The damage is the same for every
    representation. `tell` gets a line on where the result lies, and one on its picture.
    """
    config, split = run.recipe.evaluation.robustness, run.splits[0]
    check_labels(run.store.labels, split, run.store.path)
    check_probe(run, config.probe)
    units = dict.fromkeys(config.levels, "share") | {"rotation": "degrees", "noise": _unit_of(run)}
    test, everything = part_of(run.store, split.test), np.arange(len(split.test))

    def score(encode: Encode) -> Scores:
        features = split_features(run.packed, split, encode)
        learned = _learn(run, config.probe, features)
        sound = learned(features.test)

        def answers(curve: str, level: float) -> Sequence[Scorer]:
            if level == 0:
                return [sound]
            stores = (damaged(test, curve, level, draw, config) for draw in range(config.draws))
            return [learned(encode(everything, Look(packed=run.pack([store])))) for store in stores]

        drawn = {
            curve: [answers(curve, level) for level in progress(levels, len(levels), TITLES[curve])]
            for curve, levels in config.levels.items()
        }
        labels = labels_of_test(run.packed, split)
        curves = {
            curve: curve_scores(config.levels[curve], units[curve], each, labels)
            for curve, each in drawn.items()
        }
        return sound(labels) | {"curves": curves}

    return _scored(run, config, score, tell)


def shown_as(encode: Encode, packed: PackedClips) -> Encode:
    """The same with other clips in place of the store's."""
    return lambda index, look: encode(index, replace(look, packed=packed))


def _learn(run: Run, probe: ProbeName, features: Features) -> Learned:
    """A probe that has learned from the training part."""
    if probe == "linear":
        config, classes = run.recipe.evaluation.linear, len(run.store.meta.classes)
        learned = learn_linear(features, classes, config, run.recipe.seed)
        return lambda test: learned([test])
    # It has only to look at its neighbours.
    return lambda test: PROBES[probe](run)(replace(features, test=test))


def _unit_of(run: Run) -> str:
    """The unit of the coordinates; UserError where a clip in a plane should be turned about the vertical."""
    names = run.store.meta.coordinates
    if spatial_of(names) == 3:
        return "metres"
    if run.recipe.evaluation.robustness.rotation:
        raise UserError(
            "evaluation.robustness.rotation: a turn about the vertical needs x, y and z, but the store has "
            f"{', '.join(names)}; leave it out: 'evaluation.robustness.rotation=[]'"
        )
    return "as stored"


def _scored(
    run: Run, config: EarlyConfig | RobustnessConfig, score: Callable[[Encode], Scores], tell: Tell
) -> dict[str, Any]:
    """The result; it is written, and its picture is."""
    ending = protocol_ending(run) if config.probe == "linear" else ""
    result = about(run, f"{config.evaluator}{ending}", config)
    result["changed"] = config.model_dump(mode="json", exclude_defaults=True)
    result["probe_protocol"] = getattr(run.recipe.evaluation, config.probe).to_tree()
    result |= score_with_baselines(representations(run), score)
    from ssl_skeleton.figures.curves import save_curves  # noqa: PLC0415 (loads matplotlib)

    path = write_result(run.folder, result)
    picture = run.folder / "figures" / f"{path.stem}.png"
    title = f"{result['evaluator']} on {result['store']}, split {result['split']}"
    save_curves(title, panels_of(result), picture)
    tell(written_line(path))
    tell(f"drawn in {picture}")
    return result


def panels_of(result: dict[str, Any]) -> "list[Panel]":
    """The curves of a result as they are drawn."""
    from ssl_skeleton.figures.curves import Line, Panel  # noqa: PLC0415 (loads matplotlib)

    panels = []
    for name, curve in result["curves"].items():
        factor, unit = UNITS[curve["unit"]]
        levels = [factor * level for level in curve["levels"]]
        rows = {row: scores["curves"][name] for row, scores in named_rows(result).items()}
        lines = [Line(row, own["top1"], own["interval"]) for row, own in rows.items()]
        panels.append(Panel(f"{TITLES[name]} ({unit})", levels, lines))
    return panels
