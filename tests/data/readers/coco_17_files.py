"""Writes COCO keypoints as AlphaPose, MMPose and Ultralytics do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openpose_files import person
from own_files import about_file

People = Sequence[Sequence[NDArray[np.float64]]]


def alphapose(frames: People, *, tracked: bool = False) -> list[dict[str, Any]]:
    """A list of detections, `image_id` the name of the frame's picture."""
    return [
        {"image_id": f"{frame}.jpg", "category_id": 1, "keypoints": pose.reshape(-1).tolist(), "score": 2.9}
        | ({"idx": [float(number)]} if tracked else {})
        for frame, people in enumerate(frames)
        for number, pose in enumerate(people)
    ]


def mmpose(frames: People) -> dict[str, Any]:
    """Frames of instances, confidences apart."""
    return {
        "meta_info": {"dataset_name": "coco"},
        "instance_info": [
            {
                "frame_id": frame,
                "instances": [
                    {
                        "keypoints": pose[:, :2].tolist(),
                        "keypoint_scores": pose[:, 2].tolist(),
                        "bbox": [[1.0]],
                    }
                    for pose in people
                ],
            }
            for frame, people in enumerate(frames)
        ],
    }


def ultralytics(frames: People) -> list[list[dict[str, Any]]]:
    """The results of each frame, coordinates apart."""
    return [
        [
            {
                "name": "person",
                "confidence": 0.9,
                "keypoints": {
                    key: pose[:, place].tolist() for place, key in enumerate(("x", "y", "visible"))
                },
            }
            for pose in people
        ]
        for people in frames
    ]


def write_example(folder: Path) -> Path:
    """Three clips, one in each form; gives the path of the about file."""
    folder.mkdir(parents=True, exist_ok=True)
    pair = list(zip(person(4, 17, 1), person(4, 17, 2, x=900), strict=True))
    trees = {
        "wave_s1": alphapose(pair, tracked=True),
        "walk_s2": mmpose(pair),
        "sit_s3": ultralytics([[pose] for pose in person(3, 17, 3)]),
    }
    for name, tree in trees.items():
        (folder / f"{name}.json").write_text(json.dumps(tree, indent=0))
    return about_file(folder.parent, layout=None, names="{label}_s{subject}")
