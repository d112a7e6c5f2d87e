import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders import CLASSES, LAYOUT, examples, recordings, seeds, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.inspection.defects import JUMP, find_defects
from ssl_skeleton.data.inspection.description import describe
from ssl_skeleton.data.inspection.text import description_text
from ssl_skeleton.data.preparation.preparation import prepare_store
from ssl_skeleton.data.readers import open_reader
from ssl_skeleton.data.recording import IMAGE, METRES, Facts, Recording, Track
from ssl_skeleton.data.splits import SplitRule
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.data.writing import new_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout

BONES = [(child, parent) for child, parent in enumerate(LAYOUT.parents) if child != parent]


def store_of(
    folder: Path, clips: list[Recording], coordinates: tuple[str, ...] = METRES, skipped=None, **facts
) -> Store:
    given_facts = {"dataset": "made_up", "layout": LAYOUT, "fps": 30.0, "classes": CLASSES} | facts
    with new_store(folder / "store", Facts(coordinates=coordinates, **given_facts), bodies=3) as writer:
        for clip in clips:
            writer.add(clip)
        writer.finish("nowhere", skipped or {})
    return open_store(folder / "store")


@st.composite
def faulty(draw: st.DrawFn, coordinates: tuple[str, ...]) -> list[Recording]:
    """Clips with joints that are missing or stand still, whole frames that repeat, copied clips."""
    clips = []
    for number, clip in enumerate(draw(recordings())):
        rng = np.random.default_rng(draw(seeds))
        tracks = [Track(track.first_frame, spoilt(track.x_tvc, rng, coordinates)) for track in clip.tracks]
        facts = {"label": clip.label, "camera": clip.camera}
        clips.append(Recording(f"clip {number}", clip.frames, tracks, **facts))
        if draw(st.booleans()):
            clips.append(Recording(f"copy {number}", clip.frames, tracks, label=draw(st.integers(-1, 2))))
    return clips


def spoilt(x_tvc: np.ndarray, rng: np.random.Generator, coordinates: tuple[str, ...]) -> np.ndarray:
    x_tvc = x_tvc.copy()
    for frame in range(1, len(x_tvc)):
        still = rng.random(x_tvc.shape[1]) < rng.choice([0.2, 0.5, 1])
        if x_tvc[frame].any():
            x_tvc[frame, still] = x_tvc[frame - 1, still]
    if coordinates == IMAGE:
        x_tvc[:, :, 2] = rng.integers(0, 3, x_tvc.shape[:2]) / 2 * x_tvc.any(axis=2)
    else:
        x_tvc[rng.random(x_tvc.shape[:2]) < 0.1] = 0
    return x_tvc


POSTURES = ("spine", "below", "lying", "girdle", "crossed", "feet", "backward")


def reference(clips: list[Recording], coordinates: tuple[str, ...]) -> dict:
    """The numbers of `find_defects`, one frame and joint at a time."""
    found = Counter()
    lists = {name: [] for name in ("seen", "jumps", "torso", *POSTURES)}
    for clip in clips:
        seen, jumps = set(), 0
        for track in clip.tracks[:3]:
            frames = [[[float(value) for value in joint] for joint in frame] for frame in track.x_tvc]
            posture = Counter()
            torso = []
            for number, frame in enumerate(frames):
                if not any(any(joint) for joint in frame):
                    continue
                seen.add(track.first_frame + number)
                found["body_frames"] += 1
                there = [is_there(joint, coordinates) for joint in frame]
                for joint, is_it in enumerate(there):
                    found["missing", joint] += not is_it
                look_at_posture(place(frame, coordinates), there, posture, torso)
                if number and any(any(joint) for joint in frames[number - 1]):
                    jumps += compare(frames[number - 1], frame, coordinates, found)
            for name in POSTURES:
                lists[name].append(posture[name])
            lists["torso"].append(float(np.median(torso)) if torso else math.nan)
        lists["seen"].append(len(seen))
        lists["jumps"].append(jumps)
    return {"counts": found, **lists}


def is_there(joint: list[float], coordinates: tuple[str, ...]) -> bool:
    if coordinates == IMAGE:
        return any(joint[:2]) and joint[2] > 0
    return any(joint)


def place(frame: list[list[float]], coordinates: tuple[str, ...]) -> list[list[float]]:
    return [joint[:2] if coordinates == IMAGE else joint for joint in frame]


def look_at_posture(frame, there, posture: Counter, torso: list[float]) -> None:
    at = {name: LAYOUT.index(joint) for name, joint in LAYOUT.facing.to_tree().items()}
    lower, upper = at["lower_spine"], at["upper_spine"]
    if there[lower] and there[upper]:
        posture["spine"] += 1
        posture["below"] += frame[upper][1] < frame[lower][1]
        rise = abs(frame[upper][1] - frame[lower][1])
        posture["lying"] += rise < math.sqrt(0.5) * math.dist(frame[upper], frame[lower])
        torso.append(math.dist(frame[upper], frame[lower]))
    four = [at[name] for name in ("left_hip", "right_hip", "left_shoulder", "right_shoulder")]
    if all(there[joint] for joint in four):
        one, two, three, four = (frame[joint] for joint in four)
        posture["girdle"] += 1
        posture["crossed"] += (
            sum((b - a) * (d - c) for a, b, c, d in zip(one, two, three, four, strict=True)) < 0
        )
    limbs = [LAYOUT.index(f"{side}_{part}") for part in ("ankle", "foot") for side in ("left", "right")]
    if len(frame[0]) == 3 and all(
        there[joint] for joint in (*limbs, lower, upper, at["left_hip"], at["right_hip"])
    ):
        posture["feet"] += 1
        feet = [sum(frame[limbs[k]][axis] - frame[limbs[k - 2]][axis] for k in (2, 3)) for axis in range(3)]
        right = [frame[at["right_hip"]][axis] - frame[at["left_hip"]][axis] for axis in range(3)]
        up = [frame[upper][axis] - frame[lower][axis] for axis in range(3)]
        posture["backward"] += float(np.dot(feet, np.cross(right, up))) > 0


def compare(before, after, coordinates: tuple[str, ...], found: Counter) -> bool:
    """Count what stands still between two frames; whether any bone jumps."""
    there = [
        is_there(a, coordinates) and is_there(b, coordinates) for a, b in zip(before, after, strict=True)
    ]
    before, after = place(before, coordinates), place(after, coordinates)
    same = [there[joint] and before[joint] == after[joint] for joint in range(len(there))]
    found["pairs"] += 1
    found["repeated"] += any(there) and sum(same) == sum(there)
    for joint, is_it in enumerate(there):
        found["joint_pairs", joint] += is_it
        found["frozen", joint] += same[joint] and sum(there) - sum(same) >= sum(there) / 2
    jumped = False
    for bone, (child, parent) in enumerate(BONES):
        if there[child] and there[parent]:
            found["bone_pairs", bone] += 1
            lengths = [math.dist(frame[child], frame[parent]) for frame in (before, after)]
            found["jumps", bone] += min(lengths) < JUMP * max(lengths)
            jumped |= min(lengths) < JUMP * max(lengths)
    return jumped


@given(st.data(), st.sampled_from([METRES, IMAGE]))
@settings(max_examples=examples(60), deadline=None)
def test_the_defects_are_those_of_a_slow_count(tmp_path_factory, data, coordinates):
    clips = data.draw(faulty(coordinates))
    expected = reference(clips, coordinates)
    counts = expected["counts"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_skeleton.data.inspection.defects._ROWS_AT_ONCE", data.draw(st.integers(1, 40)))
        found = find_defects(store_of(tmp_path_factory.mktemp("stores"), clips, coordinates))
    for name in ("body_frames", "pairs", "repeated"):
        assert getattr(found, name) == counts[name], name
    for name in ("missing", "joint_pairs", "frozen"):
        values = getattr(found, f"{name}_v").tolist()
        assert values == [counts[name, joint] for joint in range(len(LAYOUT.joints))], name
    for name in ("bone_pairs", "jumps"):
        assert getattr(found, f"{name}_b").tolist() == [counts[name, bone] for bone in range(len(BONES))]
    assert found.seen_frames_n.tolist() == expected["seen"]
    assert found.jumps_n.tolist() == expected["jumps"]
    for name in POSTURES:
        assert getattr(found, f"{name}_frames_k").tolist() == expected[name], name
    np.testing.assert_allclose(found.torso_k, expected["torso"], rtol=1e-6)
    for one, left in enumerate(clips):
        for two, right in enumerate(clips):
            assert (found.digest_n[one] == found.digest_n[two]) == same_motion(left, right)


def same_motion(one: Recording, two: Recording) -> bool:
    pairs = list(zip(one.tracks, two.tracks, strict=False))
    return len(one.tracks) == len(two.tracks) and all(
        a.first_frame == b.first_frame and np.array_equal(a.x_tvc, b.x_tvc) for a, b in pairs
    )


@given(recordings(most_clips=8))
@settings(max_examples=examples(40), deadline=None)
def test_the_counts_are_those_of_a_slow_count(clips):
    with stored(clips) as store:
        tree = describe(store)
        description_text(tree)
    lengths = sorted(clip.frames for clip in clips)
    assert (tree["clips"], tree["frames"]) == (len(clips), sum(lengths))
    assert tree["hours"] == pytest.approx(sum(lengths) / store.meta.fps / 3600)
    for column in ("subject", "camera", "setup"):
        values = Counter(getattr(clip, column) for clip in clips)
        found = {one["value"]: one["clips"] for one in tree["counts"][column]}
        known = any(value >= 0 for value in values)
        assert found == ({None if value < 0 else value: n for value, n in values.items()} if known else {})
    labels = Counter(clip.label for clip in clips)
    for one in tree["counts"]["label"]:
        assert one["clips"] == labels[-1 if one["value"] is None else one["value"]]
    assert (tree["lengths"]["min"], tree["lengths"]["max"]) == (lengths[0], lengths[-1])
    assert tree["lengths"]["median"] == np.median(lengths)
    for bar in tree["lengths"]["histogram"]:
        assert bar["clips"] == sum(bar["from"] <= length <= bar["to"] for length in lengths)
    assert sum(bar["clips"] for bar in tree["lengths"]["histogram"]) == len(clips)


def person(frames: int = 4, seed: int = 0) -> np.ndarray:
    """Somebody upright who moves a little, (T, V, 3)."""
    rng = np.random.default_rng(seed)
    x_tvc = rng.normal(0, 0.001, (frames, len(LAYOUT.joints), 3)) + rng.normal(
        0, 0.1, (len(LAYOUT.joints), 3)
    )
    for joint, at in {
        "left_hip": (-0.15, 0, 3),
        "right_hip": (0.15, 0, 3),
        "left_shoulder": (-0.2, 0.5, 3),
        "right_shoulder": (0.2, 0.5, 3),
        "shoulder_center": (0, 0.5, 3),
        "hip_center": (0, 0, 3),
        "left_ankle": (-0.15, -0.8, 3),
        "right_ankle": (0.15, -0.8, 3),
        "left_foot": (-0.15, -0.85, 2.85),
        "right_foot": (0.15, -0.85, 2.85),
    }.items():
        x_tvc[:, LAYOUT.index(joint)] = np.array(at) + rng.normal(0, 0.001, (frames, 3))
    return x_tvc.astype(np.float32)


def clip(name: str, x_tvc: np.ndarray, frames: int | None = None, **facts: int) -> Recording:
    return Recording(name, frames or len(x_tvc), [Track(0, x_tvc)], **facts)


def test_impossible_bodies_are_named(tmp_path):
    flipped = person(seed=1) * np.float32([1, -1, -1])
    crossed = person(seed=2)
    crossed[:3, [LAYOUT.index("left_hip"), LAYOUT.index("right_hip")]] = crossed[
        :3, [LAYOUT.index("right_hip"), LAYOUT.index("left_hip")]
    ]
    clips = [
        clip("good", person()),
        clip("flipped", flipped),
        clip("crossed", crossed),
        clip("in millimetres", person(seed=3) * 900),
        clip("short sight", person(seed=4), frames=9),
        clip("long sight", person(seed=5), frames=8),
        clip("z up", person(seed=6) @ np.array([[1, 0, 0], [0, 0.4, 0.9], [0, -0.9, 0.4]], np.float32)),
        clip("mirrored", person(seed=7) * np.float32([-1, 1, 1])),
    ]
    found = describe(store_of(tmp_path, clips))["implausible"]
    assert [what.split()[0] for what in found] == ["upside", "somebody", "lying", "feet", "hips", "a"]
    assert list(found.values()) == [
        ["flipped"],
        ["short sight"],
        ["z up"],
        ["crossed", "mirrored"],
        ["crossed"],
        ["in millimetres"],
    ]


def test_copies_are_grouped_and_told_from_the_training_part(tmp_path):
    x_tvc, y_tvc = person(seed=1), person(seed=2)
    clips = [
        clip("a", x_tvc, camera=1, label=0),
        clip("b", y_tvc, camera=1, label=1),
        clip("c", x_tvc, camera=3, label=0),
        clip("d", x_tvc, camera=2, label=2),
        clip("e", person(seed=3), camera=3),
        clip("f", y_tvc[1:], camera=3),  # a part is no copy
        clip("g", person(seed=4), camera=9),
    ]
    rules = {
        "view": SplitRule(column="camera", train=(1,), validation=(2,), test=(3,)),
        "empty": SplitRule(column="camera", train=(3,), test=(77,)),
    }
    store = store_of(tmp_path, clips, splits=rules)
    tree = describe(store)
    assert tree["duplicates"] == [{"clips": ["a", "c", "d"], "labels": [0, 0, 2]}]
    assert list(tree["splits"]) == ["view", "empty"]
    assert tree["splits"]["view"] == {
        "train": 2,
        "validation": 1,
        "test": 3,
        "in_none": 1,
        "test_copied_from_training": 1,
        "validation_copied_from_training": 1,
    }
    assert tree["splits"]["empty"]["test"] == 0
    text = description_text(tree)
    assert "! 1 test clips are copies of training clips" in text
    assert "3 clips in 1 group of identical coordinates, ! 1 group with differing labels" in text
    assert "empty: 3 train, ! 0 test, 4 in no part" in text


def test_what_was_skipped_and_the_note(tmp_path):
    skipped = {"damaged": ['x: a "quote",\n', "y"], "without a body": ["z"]}
    store = store_of(tmp_path, [clip("a", person())], skipped=skipped, note="made up, in metres")
    tree = describe(store)
    assert tree["skipped"] == {"damaged": 2, "without a body": 1}
    text = description_text(tree)
    assert "skipped     2 damaged, 1 without a body" in text
    assert "note        made up, in metres" in text
    (store.path / "skipped.csv").write_text("why,what\none cell\n")
    with pytest.raises(UserError, match=r"skipped.csv: damaged"):
        describe(store)


def test_frames_that_are_not_finite_are_refused(tmp_path):
    x_tvc = person()
    x_tvc[2, 3, 1] = np.nan
    store = store_of(tmp_path, [clip("a", person()), clip("b", x_tvc)])
    with pytest.raises(UserError, match="row 6 is not finite"):
        describe(store)


def test_a_layout_without_a_facing_and_an_image_store(tmp_path):
    bare = LAYOUT.model_copy(update={"facing": None})
    x_tvc = person()
    x_tvc[:, :, 2] = 1
    tree = describe(store_of(tmp_path, [clip("a", x_tvc)], IMAGE, layout=bare))
    assert tree["bones"] is None
    assert set(map(len, tree["implausible"].values())) == {0}
    assert "jumps" not in description_text(tree)


@pytest.mark.parametrize("classes", [0, 1, 60, 120])
def test_the_text_fits_a_screen(tmp_path, classes):
    names = tuple(f"number {label} of the actions" for label in range(classes))
    clips = [
        clip(
            f"clip {number}", person(number % 50 + 1, seed=number), label=number % classes if classes else -1
        )
        for number in range(150)
    ]
    lines = description_text(describe(store_of(tmp_path, clips, classes=names))).splitlines()
    assert max(map(len, lines[1:])) <= 110  # the first begins with a path
    assert len(lines) < 80
    for name in names:
        assert sum(line.count(f" {name} ") for line in lines) == 1


def test_every_layout_is_described(tmp_path):
    for number, name in enumerate(("mediapipe_33", "coco_17", "mocap_31", "kinect_v2_25")):
        layout = load_layout(name)
        x_tvc = np.random.default_rng(number).normal(size=(4, len(layout.joints), 3)).astype(np.float32)
        tree = describe(store_of(tmp_path / name, [clip("a", x_tvc)], layout=layout))
        assert list(tree["joints"]["missing"]) == list(layout.joints)


def test_nw_ucla_shows_what_lies_in_it(recordings, tmp_path):
    prepare_store(open_reader("nw_ucla", [recordings("nw_ucla")]), tmp_path / "store")
    tree = describe(open_store(tmp_path / "store"))
    assert (tree["clips"], tree["frames"], tree["lengths"]["median"]) == (1484, 58534, 31)
    assert len(tree["duplicates"]) == 95  # cameras 2 and 3 of `pick up with two hands` and `drop trash`
    assert tree["splits"]["cross_view"]["test_copied_from_training"] == 95
    assert tree["implausible"]["upside down"] == []
