import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_17_files import alphapose, mmpose, ultralytics, write_example
from openpose_files import person
from own_files import about

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.coco import Coco17
from ssl_skeleton.data.recording import Recording
from ssl_skeleton.data.source import Source
from ssl_skeleton.errors import DamagedClip

ONE, OTHER = person(4, 17, 1), person(4, 17, 2, x=900)
PAIR = [[one, other] for one, other in zip(ONE, OTHER, strict=True)]


def read(folder: Path, tree: Any, **keys) -> Recording:
    (folder / "data").mkdir()
    (folder / "data" / "clip.json").write_text(tree if isinstance(tree, str) else json.dumps(tree))
    reader = Coco17(Source(folder / "data"), about(folder, layout=None, **keys))
    (clip,) = reader.read(reader.entries[0])
    return clip


def stored(x_tvc: np.ndarray) -> bytes:
    return (x_tvc * [1, -1, 1]).astype(np.float32).tobytes()


@pytest.mark.parametrize(
    "tree",
    [
        alphapose(PAIR),
        alphapose(PAIR, tracked=True),
        {"images": [], "annotations": alphapose(PAIR)},
        [{**item, "image_id": int(item["image_id"][0])} for item in alphapose(PAIR)],
        mmpose(PAIR),
        mmpose(PAIR)["instance_info"],
        ultralytics(PAIR),
        {"frames": ultralytics(PAIR)},
    ],
)
def test_all_forms_say_the_same(tmp_path, tree):
    clip = read(tmp_path, tree)
    assert (clip.name, clip.frames, [track.first_frame for track in clip.tracks]) == ("clip", 4, [0, 0])
    assert {track.x_tvc.tobytes() for track in clip.tracks} == {stored(ONE), stored(OTHER)}


def test_the_example(tmp_path):
    path = write_example(tmp_path / "data")
    reader = Coco17(Source(tmp_path / "data"), About.read(path))
    clips = [clip for entry in reader.entries for clip in reader.read(entry)]
    assert [(clip.name, clip.label, len(clip.tracks)) for clip in clips] == [
        ("sit_s3", 0, 1),
        ("walk_s2", 1, 2),
        ("wave_s1", 2, 2),
    ]


def test_who_has_a_number_is_followed_by_it(tmp_path):
    tree = alphapose(PAIR, tracked=True)
    for item in tree:
        item["track_id"] = int(item.pop("idx")[0]) if item["image_id"] < "2" else 1 - int(item.pop("idx")[0])
    clip = read(tmp_path, tree)
    swapped = [np.concatenate([ONE[:2], OTHER[2:]]), np.concatenate([OTHER[:2], ONE[2:]])]
    assert {track.x_tvc.tobytes() for track in clip.tracks} == {stored(x) for x in swapped}


def test_frames_that_show_nobody(tmp_path):
    clip = read(tmp_path, [[], *ultralytics([[pose] for pose in ONE]), []])
    assert (clip.frames, clip.tracks[0].first_frame, len(clip.tracks[0].x_tvc)) == (6, 1, 4)


@pytest.mark.parametrize("tree", [[], [[], []]])
def test_nobody_is_seen(tmp_path, tree):
    assert list(read(tmp_path, tree).tracks) == []


def detection(**keys: Any) -> list[dict[str, Any]]:
    return [{"image_id": 3, "keypoints": ONE[0].reshape(-1).tolist()} | keys]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("", "not valid JSON"),
        ("{}", "is neither a list of detections nor of frames"),
        ("3", "is neither a list of detections nor of frames"),
        ([3], "item 0 has neither 'keypoints' nor a list of 'instances'"),
        ([[3]], "item 0: a detection has no 'keypoints'"),
        (
            detection(image_id="cover.jpg"),
            "a frame has no number; it stands in one of frame, frame_id, image_id",
        ),
        (detection(image_id=None), "a frame has no number"),
        (detection(image_id=10**30), "a frame has no number"),
        (detection(image_id=True), "a frame has no number"),
        (detection(keypoints=[1, 2, 3]), "frame 3: keypoints of shape (3,), not 17 of x, y, confidence"),
        (detection(keypoints=[1.0] * 78), "frame 3: keypoints of shape (78,), not 17"),
        (detection(keypoints="abc"), "frame 3: keypoints are not a list of numbers"),
        (detection(keypoints={"x": [1], "y": [1, 2]}), "frame 3: keypoints have more of 'x' or of 'y'"),
        (detection(keypoints={"x": [1]}), "frame 3: keypoints 'y' are not a list of numbers"),
        (
            detection(keypoints=ONE[0, :, :2].tolist(), keypoint_scores=[1]),
            "1 confidences of keypoints, not 17",
        ),
        (detection(keypoints=[1e300] * 51), "frame 3: frame 0, joint 0: coordinate x is inf"),
        ([*detection(), *detection(image_id=10**9)], "only 2 frames from number 3 to 1000000000"),
        (
            detection(keypoints=ONE[0].tolist(), keypoint_scores=[1.0] * 17),
            "frame 3: keypoints are x, y, z with confidences apart",
        ),
        (
            [*detection(image_id="a_3.jpg"), *detection(image_id="b_3.jpg")],
            "frame 3 is given twice, as 'a_3.jpg' and as 'b_3.jpg'",
        ),
        ([{"frame_id": 3, "instances": []}] * 2, "frame 3 is given twice, as 'item 0' and as 'item 1'"),
        (detection() * 101, "101 people are more than 100"),
    ],
)
def test_what_is_wrong_and_where(tmp_path, tree, message):
    with pytest.raises(DamagedClip, match=re.escape(message)):
        read(tmp_path, tree)


@pytest.mark.parametrize(
    "name", ["img_{:03}.mp4", "{}.jp2", "a/b7/frame-{}.jpg", "c:\\\\x\\\\{}.png", "take.{:04}"]
)
def test_numbers_in_names_of_images(tmp_path, name):
    tree = [{**item, "image_id": name.format(int(item["image_id"][0]))} for item in alphapose(PAIR)]
    clip = read(tmp_path, tree)
    assert (clip.frames, len(clip.tracks)) == (4, 2)
    assert clip.tracks[0].x_tvc.tobytes() in (stored(ONE), stored(OTHER))


def test_gaps_of_a_numbered_person_cost_no_memory(tmp_path):
    tree = [{**detection()[0], "image_id": 90 * n, "track_id": n % 2} for n in range(3000)]
    with pytest.raises(DamagedClip, match="only 3000 frames from number 0 to 269910"):
        read(tmp_path, tree)
    empty = [{"frame_id": frame, "instances": []} for frame in range(200_000)]
    for frame in (0, 199_999):
        empty[frame] = {"frame_id": frame, "instances": [{**detection()[0], "track_id": 1}]}
    (tmp_path / "data" / "clip.json").write_text(json.dumps(empty))
    reader = Coco17(Source(tmp_path / "data"), about(tmp_path, layout=None))
    with pytest.raises(DamagedClip, match="mostly gaps, in which nobody is seen; cut"):
        reader.read(reader.entries[0])
