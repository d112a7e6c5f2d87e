import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_text import clips, opened, outcomes, plain_numbers
from utkinect_files import ACTIONS, joints_text, label_text, person, tenths, write_example

from ssl_skeleton.errors import DamagedClip, UserError


def write(folder, numbers, x_tvc, intervals, name="s03_e02"):
    path = folder / f"joints_{name}.txt"
    path.write_text(joints_text(numbers, x_tvc))
    (folder / "actionLabel.txt").write_text(label_text({name: intervals}))
    return path


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_agrees_with_a_plain_reader(tmp_path, numbers, data):
    ends = st.tuples(st.integers(0, 60), st.integers(0, 60))
    intervals = data.draw(st.lists(st.just("NaN NaN") | ends, min_size=10, max_size=10))
    path = write(tmp_path, numbers, person(len(numbers)), intervals)
    lines = plain_numbers(path)
    for label, (found, interval) in enumerate(
        zip(outcomes(opened("utkinect", tmp_path)), intervals, strict=True)
    ):
        wanted = {}
        for line in lines:
            if interval != "NaN NaN" and interval[0] <= line[0] <= interval[1]:
                wanted.setdefault(line[0], line[1:].reshape(20, 3))
        if isinstance(found, DamagedClip):
            assert not wanted
            assert "there is no frame from" in str(found)
            continue
        assert (found.name, found.label) == (f"a{label + 1:02}_s03_e02", label)
        assert (found.subject, found.repetition, found.frames) == (3, 2, len(wanted))
        assert len(found.tracks) == bool(wanted)
        for track in found.tracks:
            assert np.array_equal(track.x_tvc, [wanted[t] for t in sorted(wanted)])


def test_a_good_data_set(tmp_path):
    write_example(tmp_path)
    reader = opened("utkinect", tmp_path)
    found = clips(reader)
    assert len(found) == 20
    assert [clip.name for clip in found if not clip.tracks] == ["a05_s10_e02"]
    assert [clip.frames for clip in found] == [4] * 10 + [3] * 4 + [0] + [3] * 5
    assert [name.replace(" ", "") for name in reader.facts.classes] == [name.lower() for name in ACTIONS]


LABELS = label_text({"s03_e02": tenths(0, 1)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", None),
        (LABELS.replace("s03_e02", "s04_e02"), None),
        (LABELS.replace("walk: 0 0\n", ""), "s03_e02 has no 'walk'"),
        (LABELS.replace("walk", "wolk"), "line 2: unknown action 'wolk'; did you mean 'walk'?"),
        (LABELS.replace("0 0", "0"), "line 2: 'walk: 0' reads neither sXX_eXX nor 'action: first last'"),
        (LABELS.replace("0 0", "0 -1"), "line 2: 'walk: 0 -1' reads neither"),
        (LABELS.replace("sitDown", "walk"), "line 3: s03_e02 has 'walk' twice"),
        (LABELS + LABELS, "line 12: s03_e02 stands there twice"),
        (LABELS[8:], "line 1: an interval stands before any sXX_eXX"),
    ],
)
def test_what_is_wrong_with_labels(tmp_path, text, message):
    write(tmp_path, range(10), person(10), tenths(0, 1))
    (tmp_path / "actionLabel.txt").write_text(text)
    if message is None:
        with pytest.raises(DamagedClip, match=r"actionLabel\.txt says nothing of s03_e02"):
            outcomes(opened("utkinect", tmp_path))
    else:
        with pytest.raises(UserError, match=re.escape(f"{tmp_path}: actionLabel.txt: {message}")):
            opened("utkinect", tmp_path)


def test_there_is_one_file_of_labels(tmp_path):
    path = write(tmp_path, range(10), person(10), tenths(0, 1))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "actionLabel.txt").write_text(LABELS)
    with pytest.raises(UserError, match="stands there twice"):
        opened("utkinect", tmp_path)
    with pytest.raises(UserError, match=r"holds no actionLabel\.txt"):
        opened("utkinect", path)


def test_a_damaged_number_and_a_far_one(tmp_path):
    x_tvc = person(20)
    x_tvc[5, 2, 1] = 2000
    path = write(tmp_path, range(20), x_tvc, tenths(0, 2))
    found = outcomes(opened("utkinect", tmp_path))
    assert [label for label, one in enumerate(found) if isinstance(one, DamagedClip)] == [2]
    assert str(found[2]) == "s03_e02, standup: body 1: frame 1, joint 2: coordinate y is 2000.0"
    path.write_text(path.read_text().replace(" 2000 ", " nan "))
    with pytest.raises(DamagedClip, match="line 6: 'nan' is no number"):
        outcomes(opened("utkinect", tmp_path))


def test_odd_subjects_train(tmp_path):
    write_example(tmp_path)
    splits = opened("utkinect", tmp_path).facts.splits
    assert (splits["cross_subject"].train, splits["cross_subject"].test) == (
        (1, 3, 5, 7, 9),
        (2, 4, 6, 8, 10),
    )
    dev = splits["cross_subject_dev"]
    assert sorted([*dev.train, *dev.test]) == [1, 3, 5, 7, 9]
