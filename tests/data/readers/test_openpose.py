import json
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from openpose_files import frame_text, person, write_clip, write_example
from own_files import about

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.estimates import follow
from ssl_skeleton.data.readers.openpose import OpenPose
from ssl_skeleton.data.recording import IMAGE, Recording
from ssl_skeleton.data.source import Source
from ssl_skeleton.errors import DamagedClip, UserError


def read(folder: Path, source: str = "data", **keys) -> dict[str, Recording]:
    reader = OpenPose(Source(folder / source), about(folder, layout=keys.pop("layout", None), **keys))
    return {clip.name: clip for entry in reader.entries for clip in reader.read(entry)}


def stored(x_tvc: np.ndarray) -> np.ndarray:
    """What is stored of somebody's pixels: y up."""
    return (x_tvc * [1, -1, 1]).astype(np.float32)


def whole(clip: Recording) -> list[np.ndarray]:
    """The bodies of a clip over all its frames."""
    bodies = []
    for track in clip.tracks:
        x_tvc = np.zeros((clip.frames, *track.x_tvc.shape[1:]), np.float32)
        x_tvc[track.first_frame : track.first_frame + len(track.x_tvc)] = track.x_tvc
        bodies.append(x_tvc)
    return bodies


def test_the_example(tmp_path):
    path = write_example(tmp_path / "data")
    reader = OpenPose(Source(tmp_path / "data"), About.read(path))
    assert (reader.facts.layout.name, reader.facts.coordinates) == ("openpose_25", IMAGE)
    assert [entry.name for entry in reader.entries] == [
        "video_000000000007_keypoints.json",
        "video_000000000000_keypoints.json",
    ]
    walk, wave = (clip for entry in reader.entries for clip in reader.read(entry))
    assert (walk.name, walk.frames, walk.label, walk.subject) == ("walk_s2", 4, 0, 2)
    bodies = {x.tobytes() for x in whole(walk)}
    assert bodies == {stored(person(4, seed=1)).tobytes(), stored(person(4, seed=2, x=900)).tobytes()}
    wanted = stored(person())
    wanted[2] = 0
    (found,) = whole(wave)
    assert np.array_equal(found, wanted)


def test_gaps_in_the_numbers_are_frames_without_anybody(tmp_path):
    clip = person(6)
    write_clip(tmp_path / "data" / "a", [[pose] for pose in clip], first=100)
    for number in (102, 103):
        (tmp_path / "data" / "a" / f"video_{number:012d}_keypoints.json").unlink()
    found = read(tmp_path)["a"]
    assert found.frames == 6
    assert whole(found)[0].any(axis=(1, 2)).tolist() == [True, True, False, False, True, True]


def test_a_joint_that_was_not_found_is_zero(tmp_path):
    clip = person(2)
    clip[0, 3] = 0
    clip[1, 4, 2] = 0
    clip[1, 5, 2] = 1.02
    write_clip(tmp_path / "data" / "a", [[pose] for pose in clip])
    (found,) = whole(read(tmp_path)["a"])
    assert not found[0, 3].any()
    assert not found[1, 4].any()
    assert found[1, 5, 2] == 1


def test_the_old_eighteen_joints(tmp_path):
    folder = write_clip(tmp_path / "data" / "a", [[pose] for pose in person(3, joints=18)])
    for path in folder.iterdir():
        path.write_text(path.read_text().replace("pose_keypoints_2d", "pose_keypoints"))
    assert whole(read(tmp_path)["a"])[0].shape == (3, 18, 3)


def test_names_of_clips(tmp_path):
    frames = [[pose] for pose in person(2)]
    for folder, video in (("x/a", "v"), ("x/b", "v"), ("x/b", "w_1"), ("", "top"), ("bare", "")):
        write_clip(tmp_path / "data" / folder, frames, video=video)
    for path in (tmp_path / "data" / "bare").iterdir():
        path.rename(path.with_name(path.name.lstrip("_")))
    assert set(read(tmp_path)) == {"x/a", "x/b/v", "x/b/w_1", "top", "bare"}
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted((tmp_path / "data").rglob("*.json")):
            archive.write(path, path.relative_to(tmp_path / "data"))
    assert set(read(tmp_path, "all.zip")) == {"x/a", "x/b/v", "x/b/w_1", "top", "bare"}


def test_the_two_seen_longest_stay_and_who_moves_more_leads(tmp_path):
    still, mover, passer = person(8, seed=1), person(8, seed=2, x=900), person(3, seed=3, x=1700)
    still[:] = still[0]
    frames = [
        [people[frame] for people in (passer, still, mover) if frame < len(people)] for frame in range(8)
    ]
    for number, people in enumerate(frames):
        people.sort(key=lambda pose: (pose[0, 0] * (number + 1)) % 7)  # the order in a file says nothing
    write_clip(tmp_path / "data" / "a", frames)
    first, second = whole(read(tmp_path)["a"])
    assert np.array_equal(first, stored(mover))
    assert np.array_equal(second, stored(still))


def test_people_are_followed_over_frames():
    left, right = (stored(person(1, seed=seed, x=x))[0] for seed, x in ((1, 0), (2, 2000)))
    people = {0: [left, right], 1: [right, left], 2: [left], 40: [right], 41: []}
    bodies = follow(people, fps=30)
    assert [sorted(body) for body in bodies] == [[0, 1, 2], [0, 1], [40]]
    assert all(body[0] is pose and body[1] is pose for body, pose in zip(bodies, (left, right), strict=False))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "has no list 'people'"),
        ('{"people": 3}', "has no list 'people'"),
        ('{"people": [3]}', "a person has no 'pose_keypoints_2d'"),
        ('{"people": [{"pose_keypoints_2d": "x"}]}', "keypoints are not a list of numbers"),
        ('{"people": [{"pose_keypoints_2d": [null]}]}', "keypoints are not a list of numbers"),
        ('{"people": [{"pose_keypoints_2d": [[1], 2]}]}', "keypoints are not a list of numbers"),
        (frame_text(person(1, 18)), "has 54 numbers, not the 75 of openpose_25"),
        (frame_text(person(1) + 1e6), "coordinate x is 1000"),
        (frame_text(np.full((1, 25, 3), np.inf)), "joint 0: coordinate x is inf"),
        (frame_text(list(person(1)) * 101), "101 people are more than 100"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, text, message):
    folder = write_clip(tmp_path / "data" / "a", [[pose] for pose in person(3)])
    (folder / "video_000000000001_keypoints.json").write_text(text)
    with pytest.raises(DamagedClip, match=re.escape(message)) as caught:
        read(tmp_path)
    assert "a/video_000000000001_keypoints.json: " in str(caught.value) or "frame 1: 101" in str(caught.value)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no *_keypoints.json"),
        (["a_keypoints.json"], "no frame number stands before _keypoints.json"),
        (["a_1_keypoints.json", "a_01_keypoints.json"], "frame 1 is in a/a_01_keypoints.json too"),
        (
            ["a_1_keypoints.json"],
            "layout: nobody was found to count joints; write openpose_25 or openpose_18",
        ),
    ],
)
def test_what_is_no_folder_of_frames(tmp_path, names, message):
    (tmp_path / "data" / "a").mkdir(parents=True)
    for name in names:
        (tmp_path / "data" / "a" / name).write_text(json.dumps({"people": []}))
    with pytest.raises(UserError, match=re.escape(message)):
        read(tmp_path)


def test_a_frame_number_that_is_a_slip(tmp_path):
    folder = write_clip(tmp_path / "data" / "a", [[pose] for pose in person(2)])
    (folder / "video_999999999999_keypoints.json").write_text(frame_text([]))
    with pytest.raises(DamagedClip, match="only 3 frames from number 0 to 999999999999"):
        read(tmp_path)


def test_openpose_knows_no_world(tmp_path):
    write_clip(tmp_path / "data" / "a", [[pose] for pose in person(2)])
    with pytest.raises(UserError, match="coordinates: OpenPose's are those of an image"):
        read(tmp_path, coordinates="world")


@pytest.mark.parametrize(
    "name", ["frame{:04}", "img-{:04}", "walk_{:04}_rendered", "{:012}", "take 3.{:02}", "vid-7_{}"]
)
def test_frames_named_after_images(tmp_path, name):
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    clip = person(12)
    for number, pose in enumerate(clip):
        (folder / f"{name.format(number)}_keypoints.json").write_text(frame_text([pose]))
    found = read(tmp_path)
    assert list(found) == ["a"]
    assert np.array_equal(whole(found["a"])[0], stored(clip))


def test_a_file_of_no_frame_is_damaged_and_its_clip_is_read(tmp_path):
    folder = write_clip(tmp_path / "data" / "a", [[pose] for pose in person(3)])
    (folder / "cover_keypoints.json").write_text(frame_text([]))
    reader = OpenPose(Source(tmp_path / "data"), about(tmp_path, layout=None))
    stray, first = reader.entries
    with pytest.raises(DamagedClip, match="no frame number stands before"):
        reader.read(stray)
    assert reader.read(first)[0].frames == 3


def test_somebody_of_one_joint_is_followed():
    x_tvc = np.zeros((20, 25, 3), np.float32)
    x_tvc[:, 4] = np.stack([np.arange(20) * 10, np.arange(20), np.ones(20)], axis=1) + 1
    (body,) = follow({frame: [pose] for frame, pose in enumerate(x_tvc)}, fps=30)
    assert len(body) == 20
    x_tvc[::2] = stored(person(20))[::2]  # found as a whole in every other frame
    x_tvc[1::2, 4] = x_tvc[::2, 4]
    (body,) = follow({frame: [pose] for frame, pose in enumerate(x_tvc)}, fps=30)
    assert len(body) == 20


def test_crowds_are_followed_in_bounded_time():
    rng = np.random.default_rng(0)
    small = np.array([[0, 1, 1], [0.01, 1, 1]])  # so that nobody is taken for another
    people = {
        frame: [(small + np.array([x, 0, 0])).astype(np.float32) for x in rng.uniform(1, 1e4, 100)]
        for frame in range(300)
    }
    start = time.process_time()
    assert sum(map(len, follow(people, fps=10_000))) == 30_000
    assert time.process_time() - start < 5  # about 0.6; more than 10 without a bound on whom to remember


@pytest.mark.parametrize("key", [{"unit": 0.001}, {"axes": ["x", "y", "z"]}])
def test_openpose_knows_no_unit(tmp_path, key):
    write_clip(tmp_path / "data" / "a", [[pose] for pose in person(2)])
    with pytest.raises(UserError, match=r"image coordinates have none; leave it out$"):
        read(tmp_path, **key)
