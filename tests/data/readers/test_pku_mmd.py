import re
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pku_mmd_files import (
    label_text,
    person,
    skeleton_text,
    split_text,
    write,
    write_example,
)
from plain_text import clips, opened, outcomes, plain_numbers

from ssl_skeleton.errors import DamagedClip, UserError


def write_video(folder, *bodies, labels=((1, 0, 4),), name="0002-M"):
    write(folder, f"Label/{name}.txt", label_text(*labels))
    return write(folder, f"Skeletons/{name}.txt", skeleton_text(*bodies))


def moved(x_tvc):
    """Plain: spread over frames and joints, of the frames with anybody in them."""
    return sum(np.std([v[axis] for x in x_tvc if x.any() for v in x]) for axis in range(3))


@given(st.data(), st.integers(1, 12))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_agrees_with_a_plain_reader(tmp_path, data, frames):
    bodies = [person(frames, seed, data.draw(st.sampled_from([0.0, 0.2, 0.9]))) for seed in (0, 1)]
    for x_tvc in bodies:
        x_tvc[data.draw(st.lists(st.integers(0, frames - 1)))] = 0
    first = data.draw(st.integers(0, frames - 1))
    last = data.draw(st.integers(first + 1, frames))
    path = write_video(tmp_path, *bodies, labels=[(51, first, last), (7, 0, frames)])
    lines = plain_numbers(path)
    found = clips(opened("pku_mmd1", tmp_path))
    for clip, number, label, a, b in zip(found, (1, 2), (50, 6), (first, 0), (last, frames), strict=True):
        assert (clip.name, clip.label, clip.frames) == (f"0002-M_{number:03}", label, b - a)
        assert (clip.camera, clip.setup, clip.subject, clip.repetition) == (2, 2, -1, -1)
        wanted = [x for x in (lines[a:b, :75], lines[a:b, 75:]) if x.any()]
        wanted = [x.reshape(-1, 25, 3) for x in wanted]
        shown = []
        for track in clip.tracks:
            assert track.x_tvc[0].any()
            assert track.x_tvc[-1].any()
            x_tvc = np.zeros((b - a, 25, 3), np.float32)
            x_tvc[track.first_frame :][: len(track.x_tvc)] = track.x_tvc
            shown.append(x_tvc)
        assert sorted(x.tobytes() for x in shown) == sorted(x.tobytes() for x in wanted)
        motion = [moved(x) for x in shown]
        assert motion == sorted(motion, reverse=True) or np.allclose(*motion)


@pytest.mark.parametrize(
    ("name", "setup", "camera"), [("0364-R", 364, 3), ("A10N01-L", 1001, 1), ("A01N07-M", 107, 2)]
)
def test_what_a_name_tells(tmp_path, name, setup, camera):
    write_video(tmp_path, person(4), name=name)
    (clip,) = clips(opened("pku_mmd2", tmp_path))
    assert (clip.name, clip.setup, clip.camera) == (f"{name}_001", setup, camera)


FOLDERS = [
    ("Data/Skeletons", "Label"),
    ("PKU_Skeleton_Renew", "Train_Label_PKU_final"),
    ("labels_and_skeletons/skeleton", "labels_and_skeletons/label"),
    ("a", "b"),
    ("b", "a"),
    ("a/labelled_skeletons", "a/labels_of_skeletons"),
    ("label_free/Skeleton", "skeleton/labels"),
]


@pytest.mark.parametrize(("skeletons", "labels"), FOLDERS)
@pytest.mark.parametrize("kind", ["one folder", "two folders", "zip", "two zips"])
def test_label_files_and_skeleton_files_are_told_apart(tmp_path, kind, skeletons, labels):
    x_tvc = person(200)  # longer than any label file
    parts = {skeletons: skeleton_text(x_tvc), labels: label_text((3, 5, 11))}
    roots = [tmp_path / "all"]
    for folder, text in parts.items():
        write(tmp_path / "all" / folder, "0002-L.txt", text)
    if kind == "two folders":
        roots = [tmp_path / "all" / folder for folder in parts]
    if kind == "zip":
        roots = [tmp_path / "all.zip"]
        with zipfile.ZipFile(roots[0], "w") as archive:
            for folder, text in parts.items():
                archive.writestr(f"{folder}/0002-L.txt", text)
    if kind == "two zips":
        roots = [tmp_path / f"{folder.rpartition('/')[2]}.zip" for folder in parts]
        for root, text in zip(roots, parts.values(), strict=True):
            with zipfile.ZipFile(root, "w") as archive:
                archive.writestr("0002-L.txt", text)
    (clip,) = clips(opened("pku_mmd1", *roots))
    assert np.array_equal(clip.tracks[0].x_tvc, x_tvc[5:11])


def test_the_splits_as_the_files_name_them(tmp_path):
    write_example(tmp_path)
    facts = opened("pku_mmd1", tmp_path).facts
    xsub, xview = facts.splits["xsub"], facts.splits["xview"]
    assert (xsub.column, xsub.train, xsub.test) == ("setup", (2,), (3,))
    assert (xview.column, xview.train, xview.test) == ("camera", (2, 3), (1,))
    assert facts.note == ""


@pytest.mark.parametrize(
    "text",
    [
        split_text(["0002-L"], ["0003-L", "0004-L"]),
        "0002-L,0002-R\n\n0003-L, 0004-L,\n",
        "Cross-subject\nTraining videos: 0002-L\nvalidation videos: 0003-M, 0004-M",
        "TRAIN:\n0002-L\n0002-R\nTEST\n0003-L\n0004-L",
        "Validation videos:\n0004-L 0003-L\nTraining videos:\n0002-L",
    ],
)
def test_the_forms_that_a_split_file_may_have(tmp_path, text):
    write_video(tmp_path, person(4))
    write(tmp_path, "cross_subject_v2.txt", text)
    facts = opened("pku_mmd2", tmp_path).facts
    assert list(facts.splits) == ["xsub"]
    assert (facts.splits["xsub"].train, facts.splits["xsub"].test) == ((2,), (3, 4))
    assert facts.note == "the source held no cross-view*.txt, so there is no split xview"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (split_text(["0002-L"], ["0002-R"]), "setup 2 is among the training and among the validation videos"),
        (split_text(["0002-L"], []), "does not name both training and validation videos"),
        ("", "does not name both"),
        (split_text(["0002-L", "002-R"], ["0003-R"]), "line 2: '002-R' is no video's name"),
        ("0002-L\n0003-L\n0004-L", "line 1: '0002-L' is below no heading of training or validation"),
        ("Other videos: 0002-L", "line 1: '0002-L' is below no heading"),
    ],
)
def test_a_split_file_that_cannot_be(tmp_path, text, message):
    write_video(tmp_path, person(4))
    write(tmp_path, "Split/cross-subject.txt", text)
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}: Split/cross-subject.txt: {message}")):
        opened("pku_mmd1", tmp_path)


def test_two_split_files_and_two_label_files(tmp_path):
    write_example(tmp_path)
    write(tmp_path, "Split/cross_view_v2.txt", "")
    with pytest.raises(UserError, match="name those of one phase only"):
        opened("pku_mmd1", tmp_path)
    write(tmp_path, "Label2/0002-L.txt", "")
    with pytest.raises(UserError, match="two label files of one name"):
        opened("pku_mmd1", tmp_path)


@pytest.mark.parametrize(("kept", "what"), [("Skeletons", "label"), ("Label", "skeleton")])
def test_one_kind_alone(tmp_path, kept, what):
    write_video(tmp_path, person(4))
    with pytest.raises(UserError, match=f"holds no {what} files"):
        opened("pku_mmd1", tmp_path / kept)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("0,1,2,1", "class 0 is not one of 1 to 51"),
        ("52,1,2,1", "class 52 is not one of 1 to 51"),
        ("1,2,2,1", "2 to 2 are no frames of 0 to 4"),
        ("1,2,5,1", "2 to 5 are no frames of 0 to 4"),
        ("1,-2,4,1", "does not read class,first,last,confidence"),
        ("1,2,4", "does not read class,first,last,confidence"),
        ("1,1_0,4,1", "does not read class,first,last,confidence"),
        ("1,2,4,1,1", "does not read class,first,last,confidence"),
        ("1,2,99999999999,1", "does not read class,first,last,confidence"),
    ],
)
def test_a_damaged_label_leaves_the_other_clips(tmp_path, label, message):
    write_video(tmp_path, person(4))
    write(tmp_path, "Label/0002-M.txt", f"1,0,2,1\n\n{label}\n2,1,3,2\n")
    first, damaged, last = outcomes(opened("pku_mmd1", tmp_path))
    assert (first.name, last.name) == ("0002-M_001", "0002-M_004")
    assert str(damaged) == f"0002-M_003: label file, line 3: {message}"


def test_a_damaged_frame_leaves_the_other_clips(tmp_path):
    path = write_video(tmp_path, person(9), labels=[(1, 0, 3), (2, 3, 6), (3, 6, 9)])
    lines = path.read_text().splitlines()
    lines[4] = lines[4][:-2]
    lines[7] = ""
    path.write_text("\n".join(lines))
    first, second, third = outcomes(opened("pku_mmd1", tmp_path))
    assert first.name == "0002-M_001"
    assert str(second) == "0002-M_002: line 5: 149 values, not 150"
    assert str(third) == "0002-M_003: a line from 7 to 9 is empty"


def test_clips_cannot_overlap_without_end(tmp_path):
    write_video(tmp_path, person(9), labels=[(1, 0, 9)] * 3)
    *good, third = outcomes(opened("pku_mmd1", tmp_path))
    assert len(good) == 2
    assert str(third) == "0002-M_003: label file, line 3: the clips overlap too much"


@pytest.mark.parametrize("ending", [b"\n", b"\r"])
def test_a_video_has_a_bounded_length(tmp_path, ending):
    write_video(tmp_path, person(1)).write_bytes((b"0" + ending) * 100_001)
    with pytest.raises(DamagedClip, match="more than the 100000 lines that a video may have"):
        outcomes(opened("pku_mmd1", tmp_path))


def test_a_video_without_labels(tmp_path):
    write_video(tmp_path, person(4))
    write(tmp_path, "Skeletons/0003-M.txt", skeleton_text(person(4)))
    reader = opened("pku_mmd1", tmp_path)
    with pytest.raises(DamagedClip, match="there is no label file of this name"):
        reader.read(reader.entries[1])


def test_class_names():
    from ssl_skeleton.data.readers.pku_mmd_actions import PKU2_ACTIONS, PKU_ACTIONS

    assert (len(PKU_ACTIONS), len(set(PKU_ACTIONS))) == (51, 51)
    two_persons = [
        number for number, name in enumerate(PKU_ACTIONS, 1) if "person" in name or name == "handshaking"
    ]
    assert two_persons == [12, 14, 16, 18, 21, 24, 26, 27]
    assert (PKU2_ACTIONS[0], PKU2_ACTIONS[50]) == ("action 1", "action 51")
