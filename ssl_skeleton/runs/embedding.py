"""A run's frozen encoders used on clips: those of a store, or recordings that are in none yet.

>>> run = Run.open(Path("runs/crrl_nw_ucla"))                                         # doctest: +SKIP
>>> embed(on_store(run, Path("data/mine"))).features.shape                            # doctest: +SKIP
(40, 512)
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ssl_skeleton.data.preparation.preparation import Preparation, Progress
from ssl_skeleton.data.preparation.temporary import Recordings, prepared
from ssl_skeleton.data.recording import Facts
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.store import Store, sha256
from ssl_skeleton.environment import describe_environment
from ssl_skeleton.errors import UserError, nearest
from ssl_skeleton.evaluation.features import WHOLE, Source, encoding
from ssl_skeleton.evaluation.search.embeddings import EmbeddedStore, Embeddings, EmbeddingsMeta, Origin
from ssl_skeleton.recipe import load_recipe
from ssl_skeleton.runs.data import RECIPE
from ssl_skeleton.runs.probing import about_store, on_store, sources
from ssl_skeleton.runs.run import Run

Part = Literal["all", "train", "validation", "test"]
PARTS: tuple[Part, ...] = ("all", "train", "validation", "test")
Clips = NDArray[np.int64]

# Of the recipe's `data`: what no feature hangs on, or the body tells.
_OF_STORES = {"store", "split", "layout", "balance", "residence"}


def embed(run: Run, part: Part = "all", batch: int | None = None) -> Embeddings:
    """The features of the clips of a run's store, or of one part of its split, in the order of the store.

    Every part of the split is encoded by itself, as evaluators do: their features are these, to the bit.
    Raises UserError when the store cannot be seen as the run sees clips, or has no such part.
    """
    groups = _groups(run.splits[0], len(run.store), part)
    return embed_clips(run, groups, part, batch).at(np.argsort(np.concatenate(groups), kind="stable"))


def embed_clips(
    run: Run, groups: Sequence[Clips], part: str = "some", batch: int | None = None
) -> Embeddings:
    """The features of groups of clips of a run's store, each group encoded by itself."""
    found, store = sources(run, trained=True), run.store
    encode = encoding(run.packed, run.recipe.data, found, batch)
    features = np.concatenate([encode(group, WHOLE) for group in groups])
    clips = np.concatenate(groups)
    meta = EmbeddingsMeta(
        origin=_origin(run, found),
        store=_facts(store, run.splits[0].name, part),
        seen=_seen(run),
        classes=store.meta.classes,
        clips=len(clips),
        dim=features.shape[1],
        environment=describe_environment(run.device),
    )
    columns = {name: column[clips] for name, column in store.columns.items()}
    return Embeddings(meta, features, tuple(store.names[clip] for clip in clips.tolist()), columns)


def prepared_for(
    run: Run, recordings: Recordings, progress: Progress
) -> AbstractContextManager[tuple[Store, Preparation]]:
    """A store of recordings as `prepared` makes it; those that the run cannot see are refused unread."""

    def check(facts: Facts) -> None:
        run.check_seen(recordings.sources[0], facts.layout, facts.coordinates)

    return prepared(recordings, progress, check)


def embed_recordings(run: Run, store: Store, recordings: Recordings) -> Embeddings:
    """The features of all clips of recordings, read into a `store` that will vanish (`prepared_for`)."""
    found = embed(on_store(run, store.path))
    path = ", ".join(str(source.resolve()) for source in recordings.sources)
    facts = {"name": recordings.sources[0].resolve().name, "path": path}
    named = found.meta.store.model_copy(update=facts)
    return replace(found, meta=found.meta.model_copy(update={"store": named}))


def named_clips(store: Store, names: Sequence[str]) -> Clips:
    """The clips of these names; UserError when there is none of a name."""
    places = {name: clip for clip, name in reversed(list(enumerate(store.names)))}
    for name in names:
        if name not in places:
            alike = [f"'{other}'" for other in sorted(places) if other.startswith(name)]
            more = f" and {len(alike) - 5} more" if len(alike) > 5 else ""
            hint = f"{', '.join(alike[:5])}{more} begin so" if alike else nearest(name, store.names)
            raise UserError(f"{store.path}: holds no clip '{name}'; {hint}")
    return np.array([places[name] for name in names], dtype=np.int64)


def run_of(origin: Origin, what: Path, moved: Path | None = None, overrides: Sequence[str] = ()) -> Run:
    """The run that made the features in `what`, which may have `moved`.

    Raises UserError when it is not there, or has other weights by now.
    """
    folder = moved or Path(origin.run)
    if moved is None and not (folder / RECIPE).is_file():
        raise UserError(f"{what}: its run is not at {folder} any more; name its folder with --run FOLDER")
    run = Run.open(folder, overrides)
    if encoder_sum(run, sources(run, trained=True)) != origin.encoder_sum:
        raise UserError(
            f"{folder}: has other weights, or another representation, than that with which {what} was made "
            f"({origin.run}, epoch {origin.epoch}); name that run with --run FOLDER, or build the index again"
        )
    return run


def encoder_sum(run: Run, found: Sequence[Source]) -> str:
    """A SHA-256 sum of all that decides the features of a clip: weights, and what they see of it.

    What a config has by default is left out, so that another version of the package, which may know more
    options, finds the same sum.
    """
    kept = load_recipe(run.folder / RECIPE)  # whatever it is opened with
    configs = (kept.encoder, kept.data, run.body)
    trees = [config.model_dump(mode="json", exclude_defaults=True) for config in configs]
    trees[1] = {key: value for key, value in trees[1].items() if key not in _OF_STORES}
    seen = [[list(source.view.streams), source.pooling] for source in found]
    total = hashlib.sha256(json.dumps([*trees, seen], sort_keys=True).encode())
    for source in found:
        for name, tensor in source.encoder.state_dict().items():
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _origin(run: Run, found: Sequence[Source]) -> Origin:
    return Origin(
        run=str(run.folder.resolve()),
        recipe_sum=sha256(run.folder / RECIPE),
        encoder_sum=encoder_sum(run, found),
        epoch=run.evaluated_stages[-1].training.epochs,
    )


def _facts(store: Store, split: str, part: str) -> EmbeddedStore:
    facts = about_store(store)
    return EmbeddedStore(
        name=facts["store"],
        path=facts["store_path"],
        sum=facts["store_sum"],
        dataset=store.meta.dataset,
        layout=store.layout.name,
        fps=store.meta.fps,
        split=split,
        part=part,
    )


def _seen(run: Run) -> dict[str, Any]:
    """How clips are shown to the encoders and pooled, as a person wants to know it."""
    data = run.recipe.data.to_tree()
    return {
        "layout": run.layout.name,
        "coordinates": list(run.body.coordinates),
        **{key: data[key] for key in ("normalise", "frames", "bodies", "repair")},
        "streams": {stage.name: list(stage.pretext.input.streams) for stage in run.evaluated_stages},
        "stages": {stage.name: stage.training.epochs for stage in run.evaluated_stages},
        "pooling": run.recipe.representation.pooling,
    }


def _groups(split: Split, clips: int, part: Part) -> list[Clips]:
    """The clips of a part; of `all` those of every part, and those of none, each by themselves."""
    parts = {"train": split.train, "validation": split.validation, "test": split.test}
    if part == "all":
        inside = np.concatenate(list(parts.values()))
        groups = [*parts.values(), np.setdiff1d(np.arange(clips), inside)]
    else:
        groups = [parts[part]]
    groups = [group for group in groups if len(group)]
    if not groups:
        raise UserError(f"split {split.name}: has no {part} part; choose another split, or all clips")
    return groups
