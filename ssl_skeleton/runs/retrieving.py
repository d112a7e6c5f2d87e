"""Retrieval by a run's frozen encoders: in the training part of its store, or in a store of its own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.store import EVERYTHING, open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import WHOLE, Encode, Features, check_labels, labels_of_test
from ssl_skeleton.evaluation.knn import check_gallery
from ssl_skeleton.evaluation.results import Progress, score_with_baselines, write_result
from ssl_skeleton.evaluation.retrieval import retrieval_probe
from ssl_skeleton.evaluation.scores import Scores
from ssl_skeleton.runs.probing import (
    about,
    about_store,
    evaluate,
    on_store,
    representations,
    written_line,
)
from ssl_skeleton.runs.run import Run, Tell


@dataclass(frozen=True)
class Collection:
    """Another store in which a run's queries look, and the class of the run's store that each of its own is.

    `class_of` (classes,) is -1 for those that the run's store does not have.
    """

    run: Run
    class_of: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The classes (G,) of the clips in the gallery, as the run's store counts them."""
        labels: NDArray[np.int64] = self.class_of[self.run.store.labels[self.run.splits[0].train]]
        return labels


def open_collection(run: Run, store: Path, split: str | None) -> Collection:
    """The training part of another store; by default of the split that is called as the run's own, or of all.

    Classes are the same when their names are, whatever their case, spaces, underscores and hyphens. UserError
    when they share none, when the clips have no labels, when there are too few of them, or when test clips of
    the run are among them, which would find themselves.
    """
    own = run.splits[0].name
    chosen = split or (own if own in open_store(store).split_names else EVERYTHING)
    other = on_store(run, store, chosen)
    train = other.splits[0].train
    labels = other.store.labels[train]
    if labels.max() < 0:
        raise UserError(f"{store}: split {chosen}: no clip has a label; a gallery needs labels")
    if labels.min() < 0:
        raise UserError(f"{store}: split {chosen}: some clips have no label; a gallery needs labels")
    other.check_body(other.store)
    class_of = same_classes(other.store.meta.classes, run.store.meta.classes)
    if (class_of[labels] < 0).all():
        raise UserError(
            f"{store}: none of its classes in the gallery ({_some(other.store.meta.classes)}) is one of "
            f"{run.store.path} ({_some(run.store.meta.classes)}); choose another gallery"
        )
    if about_store(other.store)["store_sum"] == about_store(run.store)["store_sum"]:
        themselves = np.intersect1d(train, run.splits[0].test)
        if len(themselves):
            raise UserError(
                f"{store}: {len(themselves)} clips in the gallery, the training part of split {chosen}, are "
                "asked about too, and would find themselves; choose another --gallery-split"
            )
    check_gallery(class_of[labels], "retrieval")
    run.recipe.evaluation.retrieve.among(len(labels))
    return Collection(other, class_of)


def same_classes(names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """For each of some classes the place of the wanted one that has its name, -1 where there is none."""
    places = {_plain(name): place for place, name in reversed(list(enumerate(wanted)))}
    return np.array([places.get(_plain(name), -1) for name in names], np.int64)


def retrieve(
    run: Run,
    gallery: Collection | None = None,
    tell: Tell = lambda line: None,
    progress: Progress = lambda names, total, what: names,
) -> dict[str, Any]:
    """Score how the test clips find clips of their class in a gallery; the result is written to the run.

    The gallery is the training part, unless it is another one, which is then seen as the run sees clips.
    `tell` gets a line on where the result lies, and `progress` wraps the names of what is scored.
    """
    if gallery is None:
        return evaluate(run, "retrieve", tell, progress)
    split, config, classes = run.splits[0], run.recipe.evaluation.retrieve, len(run.store.meta.classes)
    check_labels(run.store.labels, split, run.store.path)
    other, labels = gallery.run, gallery.labels

    def score(encode: Encode) -> Scores:
        rows_gd = encode(other.splits[0].train, replace(WHOLE, packed=other.packed))
        features = Features(rows_gd, labels, encode(split.test, WHOLE))
        return retrieval_probe(features, classes, config)(labels_of_test(run.packed, split))

    result = about(run, f"retrieve_in_{other.store.path.absolute().name}_{other.splits[0].name}", config)
    result["changed"] = config.model_dump(mode="json", exclude_defaults=True)
    result["clips"] = {"gallery": len(labels), "test": len(split.test)}
    result["gallery"] = _about_gallery(gallery, run.store.meta.classes)
    result |= score_with_baselines(representations(run), score, progress)
    tell(written_line(write_result(run.folder, result)))
    return result


def gallery_line(run: Run, gallery: Collection) -> str:
    """What queries and gallery have in common, in a line."""
    shared = _about_gallery(gallery, run.store.meta.classes)["shared_classes"]
    others = int((gallery.labels < 0).sum())
    more = f"; {others} of its {len(gallery.labels)} clips are of other classes" if others else ""
    store, split = gallery.run.store, gallery.run.splits[0]
    return f"gallery {store.path}, split {split.name}: {len(shared)} shared classes ({_some(shared)}){more}"


def _about_gallery(gallery: Collection, classes: Sequence[str]) -> dict[str, Any]:
    store, labels = gallery.run.store, gallery.labels
    return {
        **about_store(store),
        "split": gallery.run.splits[0].name,
        "shared_classes": [classes[label] for label in np.unique(labels[labels >= 0])],
    }


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
