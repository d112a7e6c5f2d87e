"""What a store holds, as one tree of plain values; `description_text` words it."""

import csv
from collections import Counter, defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.inspection.defects import JUMP, Defects, bones, find_defects
from ssl_skeleton.data.recording import METRES
from ssl_skeleton.data.store import EVERYTHING, FILES, Store
from ssl_skeleton.errors import UserError

TORSO = (0.2, 0.8)  # metres between the ends of the spine: a toddler and the tallest of people
_BARS = 12

Tree = dict[str, Any]


def describe(store: Store) -> Tree:
    """Describe `store`: its facts, counts, lengths, and what is wrong in its frames.

    Raises UserError when a frame is not finite or skipped.csv cannot be read.
    """
    defects = find_defects(store)
    copies = _copies(store, defects)
    return {
        **_head(store),
        "counts": {column: _counts(store, column) for column in ("label", "subject", "camera", "setup")},
        "splits": {name: _split(store, name, copies) for name in store.split_names if name != EVERYTHING},
        "lengths": _lengths(store),
        "joints": _joints(store, defects),
        "bones": _bones(store, defects),
        "duplicates": [
            {"clips": [store.names[clip] for clip in group], "labels": store.labels[group].tolist()}
            for group in copies
        ],
        "implausible": _implausible(store, defects),
        "skipped": _skipped(store),
    }


def _head(store: Store) -> Tree:
    frames = sum(store.lengths.tolist())  # exact, however large
    return {
        "store": str(store.path),
        "dataset": store.meta.dataset,
        "note": store.meta.note,
        "source": store.meta.source,
        "clips": len(store),
        "frames": frames,
        "hours": frames / store.meta.fps / 3600,
        "layout": store.layout.name,
        "number_of_joints": len(store.layout.joints),
        "fps": store.meta.fps,
        "coordinates": list(store.meta.coordinates),
        "bodies": store.meta.bodies,
        "clips_by_bodies": _number_counts(store.columns["bodies"]),
        "classes": list(store.meta.classes),
        "bytes": sum((store.path / name).stat().st_size for name in FILES if (store.path / name).exists()),
    }


def _counts(store: Store, column: str) -> list[Tree]:
    """Clips by the values of a column, `null` for unknown; nothing when no clip has a known one.

    Of labels, every class is there, by number, whether it has clips or not.
    """
    values = store.columns[column]
    if (values < 0).all():
        return []
    if column != "label":
        return _number_counts(values)
    unknown = int((values < 0).sum())
    counts = np.bincount(values[values >= 0], minlength=len(store.meta.classes)).tolist()
    return ([{"value": None, "clips": unknown}] if unknown else []) + [
        {"value": label, "clips": clips} for label, clips in enumerate(counts)
    ]


def _number_counts(values: NDArray[np.int64]) -> list[Tree]:
    found, clips = np.unique(values, return_counts=True)
    pairs = zip(found.tolist(), clips.tolist(), strict=True)
    return [{"value": None if value == -1 else value, "clips": count} for value, count in pairs]


def _split(store: Store, name: str, copies: list[list[int]]) -> Tree:
    """The clips of each part, and those of other parts that have a copy in the training part."""
    parts = store.meta.splits[name].divide(store.columns)
    in_training = np.zeros(len(store), dtype=bool)
    in_training[parts["train"]] = True
    copied = np.zeros(len(store), dtype=bool)
    for group in copies:
        copied[group] = in_training[group].any()
    counts: Tree = {part: len(clips) for part, clips in parts.items()}
    return counts | {
        "in_none": len(store) - sum(counts.values()),
        "test_copied_from_training": int(copied[parts["test"]].sum()),
        "validation_copied_from_training": int(copied[parts["validation"]].sum()),
    }


def _lengths(store: Store) -> Tree:
    """The lengths in frames; the last bar of the histogram takes all beyond the 99th percentile."""
    lengths = store.lengths
    low, high = int(lengths.min()), int(lengths.max())
    width = max(1, -(-(int(np.percentile(lengths, 99)) - low + 1) // _BARS))
    bar = np.minimum((lengths - low) // width, _BARS - 1)
    counts = np.bincount(bar).tolist()
    last = len(counts) - 1
    histogram = [
        {
            "from": low + number * width,
            "to": high if number == last else low + (number + 1) * width - 1,
            "clips": clips,
        }
        for number, clips in enumerate(counts)
    ]
    return {"min": low, "median": float(np.median(lengths)), "max": high, "histogram": histogram}


def _joints(store: Store, defects: Defects) -> Tree:
    """The share of frames in which each joint is missing, and of pairs in which it is frozen."""
    missing = defects.missing_v / max(1, defects.body_frames)
    frozen = defects.frozen_v / np.maximum(1, defects.joint_pairs_v)
    return {
        "body_frames": defects.body_frames,
        "pairs": defects.pairs,
        "repeated": defects.repeated,
        "missing": dict(zip(store.layout.joints, missing.tolist(), strict=True)),
        "frozen": dict(zip(store.layout.joints, frozen.tolist(), strict=True)),
    }


def _bones(store: Store, defects: Defects) -> Tree | None:
    """Jumps by bone, as shares of its pairs, and by clip, the worst first; a 2D store has none."""
    if tuple(store.meta.coordinates) != METRES:
        return None  # in an image, a bone that turns to the camera grows short
    joints = store.layout.joints
    shares = (defects.jumps_b / np.maximum(1, defects.bone_pairs_b)).tolist()
    names = [f"{joints[child]}-{joints[parent]}" for child, parent in bones(store.layout)]
    worst = sorted(np.flatnonzero(defects.jumps_n).tolist(), key=lambda clip: -defects.jumps_n[clip])
    return {
        "shorter_than": JUMP,
        "frames": int(defects.jumps_n.sum()),
        "jumps": dict(zip(names, shares, strict=True)),
        "clips": {store.names[clip]: int(defects.jumps_n[clip]) for clip in worst},
    }


def _copies(store: Store, defects: Defects) -> list[list[int]]:
    """Groups of clips with identical tracks."""
    groups = defaultdict(list)
    for clip, digest in enumerate(defects.digest_n.tolist()):
        groups[digest].append(clip)
    return [group for group in groups.values() if len(group) > 1]


def _implausible(store: Store, defects: Defects) -> Tree:
    """The names of clips with an impossible body, by what is wrong; each is said of most of its frames."""
    flipped_k = 2 * defects.below_frames_k > defects.spine_frames_k
    found = {
        "upside down": _owners(store, flipped_k),
        "somebody is seen in under half of the frames": np.flatnonzero(
            2 * defects.seen_frames_n < store.lengths
        ),
    }
    if tuple(store.meta.coordinates) == METRES:
        sized_k = np.isnan(defects.torso_k) | ((defects.torso_k >= TORSO[0]) & (defects.torso_k <= TORSO[1]))
        crossed_k = 2 * defects.crossed_frames_k > defects.girdle_frames_k
        lying_k = 2 * defects.lying_frames_k > defects.spine_frames_k
        backward_k = 2 * defects.backward_frames_k > defects.feet_frames_k
        found["lying (is y up?)"] = _owners(store, lying_k)
        found["feet point backwards (left and right swapped, or an axis turned?)"] = _owners(
            store, backward_k
        )
        found["hips and shoulders point to opposite sides"] = _owners(store, crossed_k)
        found[f"a torso shorter than {TORSO[0]} m or longer than {TORSO[1]} m"] = _owners(store, ~sized_k)
    return {what: [store.names[clip] for clip in clips] for what, clips in found.items()}


def _owners(store: Store, wrong_k: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The clips of the tracks that are wrong."""
    owners: NDArray[np.int64] = np.unique(store.tracks[wrong_k, 0])
    return owners


def _skipped(store: Store) -> dict[str, int]:
    """How many recordings were left out at preparation, by the reason."""
    path = store.path / "skipped.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))[1:]
        return dict(Counter(why for why, _ in lines))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error}); prepare the store again") from None
