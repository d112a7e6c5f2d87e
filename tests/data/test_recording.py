import re
import warnings

import numpy as np
import pytest
from builders import CLASSES, FACTS, LAYOUT, examples, one_line
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.recording import (
    IMAGE,
    METRES,
    Facts,
    Recording,
    Track,
    check_coordinates,
    check_recording,
)
from ssl_skeleton.errors import DamagedClip

JOINTS = len(LAYOUT.joints)


def body(frames: int = 2, channels: int = 3, value: float = 1.0) -> np.ndarray:
    return np.full((frames, JOINTS, channels), value, np.float32)


def clip(**changes) -> Recording:
    return Recording(**{"name": "a", "frames": 3, "tracks": [Track(1, body())]} | changes)


@pytest.mark.parametrize(
    "good",
    [
        clip(),
        clip(label=len(CLASSES) - 1, subject=9, name='é "x", y'),
        clip(tracks=[Track(0, body(3)), Track(2, body(1))]),
        clip(tracks=[], frames=0),
        clip(frames=10_000_000),
    ],
)
def test_what_fits(good):
    check_recording(good, FACTS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": ""}, "'' is no name for a clip"),
        ({"name": "a\nb"}, r"'a\nb' is no name"),
        ({"name": "\udcff"}, r"'\udcff' is no name"),
        ({"label": len(CLASSES)}, "label 3 is not one of 3 classes"),
        ({"label": -2}, "label -2 is not one of 3 classes"),
        ({"frames": 10_000_001}, "10000001 frames are more than the 10000000"),
        ({"frames": 2}, "a body's 2 frames do not fit the clip's 2"),
        ({"tracks": [Track(-1, body())]}, "a body's 2 frames do not fit the clip's 3"),
        ({"tracks": [Track(1, body()), Track(2, body())]}, "a body's 2 frames do not fit the clip's 3"),
        ({"tracks": [Track(1, body(0))]}, "a body's 0 frames do not fit the clip's 3"),
        ({"tracks": [Track(1, body(2, 2))]}, "coordinates have shape (2, 20, 2), not (frames, 20, 3)"),
        ({"tracks": [Track(1, body()[:, :19])]}, "coordinates have shape (2, 19, 3), not (frames, 20, 3)"),
        ({"tracks": [Track(1, body()[0])]}, "coordinates have shape (20, 3)"),
        ({"tracks": [Track(1, body(value=np.nan))]}, "frame 0, joint 0: coordinate x is nan"),
        ({"tracks": [Track(1, body(value=np.inf))]}, "frame 0, joint 0: coordinate x is inf"),
        ({"tracks": [Track(1, body(value=-1000.1))]}, "frame 0, joint 0: coordinate x is -1000.0"),
    ],
)
def test_what_does_not_fit(changes, message):
    with pytest.raises(DamagedClip, match=re.escape(message)) as caught:
        check_recording(clip(**changes), FACTS)
    one_line(caught.value)


def test_a_data_set_without_classes_has_clips_without_labels():
    facts = Facts("made_up", LAYOUT, 30.0)
    check_recording(clip(), facts)
    with pytest.raises(DamagedClip, match="label 0 is not one of 0 classes"):
        check_recording(clip(label=0), facts)


def test_image_coordinates_have_a_bound_of_their_own():
    facts = Facts("made_up", LAYOUT, 30.0, coordinates=IMAGE)
    check_recording(clip(tracks=[Track(0, body(value=99_999))]), facts)
    with pytest.raises(DamagedClip, match="coordinate x is 100001"):
        check_recording(clip(tracks=[Track(0, body(value=100_001))]), facts)
    x_tvc = body()
    x_tvc[1, 3, 2] = np.nan
    with pytest.raises(DamagedClip, match="coordinate confidence is nan"):
        check_recording(clip(tracks=[Track(0, x_tvc)]), facts)


@given(
    st.tuples(st.integers(0, 4), st.integers(0, JOINTS - 1), st.integers(0, 2)),
    st.floats(width=32),
    st.sampled_from([METRES, IMAGE]),
)
@settings(max_examples=examples(200), deadline=None)
def test_the_first_wrong_coordinate_is_named(place, value, coordinates):
    x_tvc = body(5)
    x_tvc[place] = value
    most = 1000 if coordinates == METRES else 100_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if abs(value) <= most:
            check_coordinates(x_tvc, JOINTS, coordinates)
            return
        with pytest.raises(DamagedClip) as caught:
            check_coordinates(x_tvc, JOINTS, coordinates)
    frame, joint, axis = place
    assert str(caught.value).startswith(f"frame {frame}, joint {joint}: coordinate {coordinates[axis]} is ")
