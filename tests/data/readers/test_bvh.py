import re
import warnings
from pathlib import Path

import bvh_files
import numpy as np
import pytest
from builders import damages, one_line, seeds
from bvh_files import ROTATIONS, body, bvh_text
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_matrices import Matrix, place, product, shift, turn

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.bvh import Bvh
from ssl_skeleton.data.readers.bvh_names import common_names, layout_of
from ssl_skeleton.data.recording import Recording, check_recording
from ssl_skeleton.data.source import Source
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import load_layout

NAMES = [name for name, _, _ in body()]
PARENTS = [NAMES.index(parent) if parent in NAMES else -1 for _, parent, _ in body()]


def opened(folder: Path, *texts: str, about: str | None = "unit: 0.01", fps: float = 30) -> Bvh:
    for number, text in enumerate(texts):
        (folder / f"clip_{number}.bvh").write_bytes(text.encode("latin-1"))
    if about is None:
        return Bvh(Source(folder), None)
    path = folder / "about.yaml"
    path.write_text(f"dataset: mine\nfps: {fps}\n{about}\n")
    return Bvh(Source(folder), About.read(path))


def read(folder: Path, text: str, about: str | None = "unit: 0.01") -> Recording:
    reader = opened(folder, text, about=about)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (recording,) = reader.read(reader.entries[0])
    check_recording(recording, reader.facts)
    return recording


def slow_places(row: list[float]) -> dict[str, list[float]]:
    """Where joints are, in the units of the file, one at a time; the root's position replaces its offset."""
    whole: dict[str, Matrix] = {}
    numbers = iter(row)
    order = [word[0].lower() for word in ROTATIONS.split()]
    for name, parent, offset in in_file_order():
        own = [next(numbers) for _ in range(3)] if parent == "-" else offset
        turns = [turn(axis, next(numbers)) for axis in order]
        whole[name] = product(*([whole[parent]] if parent in whole else []), shift(*own), *turns)
    return {name: place(matrix) for name, matrix in whole.items()}


def in_file_order(parent: str = "-") -> list[tuple]:
    """The joints as a file goes through them: each before what hangs below it."""
    return [other for joint in body() if joint[1] == parent for other in (joint, *in_file_order(joint[0]))]


def last_row(text: str, frame: int) -> list[float]:
    return [float(word) for word in text.strip().split("\n")[-frame].split()]


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_places_against_a_slow_reference(tmp_path_factory, seed):
    text = bvh_text(frames=3, seed=seed)
    clip = read(tmp_path_factory.mktemp("clip"), text)
    (track,) = clip.tracks
    assert (clip.frames, track.x_tvc.shape, track.x_tvc.dtype) == (3, (3, 23, 3), np.float32)
    for frame in range(3):
        wanted = slow_places(last_row(text, 3 - frame))
        joints = common_names([name for name, _, _ in in_file_order()])
        for joint, (name, _, _) in enumerate(in_file_order()):
            assert np.allclose(track.x_tvc[frame, joint], np.array(wanted[name]) / 100, atol=1e-5), joints[
                joint
            ]


ARM = """HIERARCHY
ROOT Upper {
  OFFSET 5 5 5
  CHANNELS 5 Zrotation Xrotation Zposition Yrotation Xposition
  JOINT Lower
  {
    OFFSET 3 0 0 CHANNELS 1 Yrotation
    JOINT Wrist { OFFSET 2 0 0  End Site { OFFSET 1 0 0 } }
  }
}
MOTION
Frames: 2
Frame Time: 0.00833333
"""


def arm(rows: str) -> str:
    return ARM + rows


def test_an_arm_of_two_bones_bent_by_right_angles(tmp_path):
    """Channels in any order; a position takes the place of that part of the offset; no rotation is none."""
    reader = opened(tmp_path, arm("90 0 7 0 1 0\n0 90 -4 90 0 -90\n"), about="unit: 1", fps=120)
    x_tvc = reader.read(reader.entries[0])[0].tracks[0].x_tvc
    assert reader.facts.layout.joints == ("Upper", "Lower", "Wrist")
    assert np.allclose(x_tvc[0], [[1, 5, 7], [1, 8, 7], [1, 10, 7]], atol=1e-5)
    # y by 90 takes x to -z, then x by 90 takes -z to y; the forearm's own turn takes x to z, that is to x.
    assert np.allclose(x_tvc[1], [[0, 5, -4], [0, 8, -4], [2, 8, -4]], atol=1e-5)


def test_position_channels_of_another_joint_replace_its_offset(tmp_path):
    text = arm("0 0 0 0 0 8 9\n0 0 0 0 0 8 9\n").replace(
        "CHANNELS 1 Yrotation", "CHANNELS 2 Zposition Xposition"
    )
    reader = opened(tmp_path, text, about="unit: 1", fps=120)
    x_tvc = reader.read(reader.entries[0])[0].tracks[0].x_tvc
    assert np.allclose(x_tvc[0], [[0, 5, 0], [9, 5, 8], [11, 5, 8]])


def test_bones_keep_their_lengths(tmp_path):
    x_tvc = read(tmp_path, bvh_text(frames=20)).tracks[0].x_tvc
    joints = [joint for joint, _, _ in in_file_order()]
    for name, parent, offset in body():
        if parent != "-":
            along_tc = x_tvc[:, joints.index(name)] - x_tvc[:, joints.index(parent)]
            assert np.allclose(np.linalg.norm(along_tc, axis=1), np.linalg.norm(offset) / 100, atol=1e-5)


def test_trifles_that_programs_write_otherwise(tmp_path):
    text = bvh_text()
    wanted = read(tmp_path, text).tracks[0].x_tvc
    for old, new in (
        ("MOTION\n", "MOTION\n\n"),
        ("Frame Time: ", "\n \nFrame Time: "),
        ("Frames: 4", "Frames:4"),
        ("Frames: 4", "frames :\t4 "),
        ("Frame Time: ", "Frame  Time:"),
        ("MOTION", " Motion "),
        ("HIERARCHY", "\xef\xbb\xbfHIERARCHY"),  # a byte-order mark
        ("\n", "\r\n"),
        ("\n", "\r"),
    ):
        assert old in text
        assert np.array_equal(read(tmp_path, text.replace(old, new)).tracks[0].x_tvc, wanted), (old, new)


def test_names_in_other_letters(tmp_path):
    text = bvh_text().replace("Spine1", "Wirbelsäule").replace("LeftArm", "左腕").replace("Neck", "Cou bas")
    (tmp_path / "clip.bvh").write_bytes(text.encode())
    reader = Bvh(Source(tmp_path), None)
    assert {"Wirbelsäule", "左腕", "Cou bas"} < set(reader.facts.layout.joints)
    wide = bvh_text().replace("OFFSET 0.000000", "OFFSET \uff10", 1)  # a digit as wide as a letter of Chinese
    (tmp_path / "clip.bvh").write_bytes(wide.encode())
    with pytest.raises(DamagedClip, match=r"line 4: '.*xef.*' is no number"):
        reader.read(reader.entries[0])


# Layouts


def test_the_layout_of_motionbuilder_names(tmp_path):
    layout = opened(tmp_path, bvh_text()).facts.layout
    assert layout.name == "mine"
    assert layout.root == "pelvis"
    for child, parent in (
        ("left_knee", "left_hip"),
        ("left_ankle", "left_knee"),
        ("left_foot", "left_ankle"),
        ("left_hip", "pelvis"),
        ("right_collar", "Spine1"),
        ("right_shoulder", "right_collar"),
        ("right_elbow", "right_shoulder"),
        ("right_wrist", "right_elbow"),
        ("RightHandIndex1", "right_wrist"),
        ("neck", "Spine1"),
        ("head", "neck"),
    ):
        assert layout.bones[child] == parent
    assert layout.mirror["left_wrist"] == "right_wrist"
    assert layout.mirror["LeftHandIndex1"] == "RightHandIndex1"
    assert len(layout.mirror) == 9
    assert layout.facing is not None
    assert (layout.facing.left_hip, layout.facing.upper_spine) == ("left_hip", "neck")


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (
            "mixamorig:Hips mixamorig:LeftUpLeg mixamorig:LeftLeg mixamorig:LeftShoulder mixamorig:LeftArm "
            "mixamorig:LeftForeArm mixamorig:LeftHand mixamorig:LeftHandThumb1",
            "pelvis left_hip left_knee left_collar left_shoulder left_elbow left_wrist LeftHandThumb1",
        ),
        (
            "Hips LeftHip LeftKnee LeftAnkle RightHip RightKnee RightAnkle Chest LeftCollar LeftShoulder "
            "LeftElbow LeftWrist Neck Head",
            "pelvis left_hip left_knee left_ankle right_hip right_knee right_ankle Chest left_collar "
            "left_shoulder left_elbow left_wrist neck head",
        ),
        (
            "Hips LHipJoint LeftUpLeg LeftLeg LeftFoot LeftToeBase LowerBack Neck Neck1 Head LeftShoulder "
            "LeftArm LeftForeArm LeftHand LThumb",
            "pelvis LHipJoint left_hip left_knee left_ankle left_foot LowerBack neck Neck1 head left_collar "
            "left_shoulder left_elbow left_wrist LThumb",
        ),
        ("Hips LeftUpLeg LeftFoot LeftToe", "pelvis left_hip left_ankle left_foot"),
        ("hip pelvis", "hip pelvis"),
        ("Tail LeftShoulder", "Tail LeftShoulder"),
        ("a:Left b:Left", "a:Left b:Left"),
    ],
)
def test_names_that_are_known(names, common):
    assert common_names(names.split()) == common.split()


def test_mirror_pairs_of_other_names():
    names = "Root L_Ear R_Ear arm.l arm.r LThumb RThumb left_eye right_eye Left RightOnly tail Lower".split()  # noqa: SIM905
    layout = layout_of("x", names, [-1, *[0] * 12])
    assert layout.mirror == {"L_Ear": "R_Ear", "arm.l": "arm.r", "LThumb": "RThumb", "left_eye": "right_eye"}
    assert layout.facing is None


def test_facing_without_a_neck():
    names = ["left_hip", "right_hip", "left_shoulder", "right_shoulder"]
    facing = layout_of("x", names, [-1, 0, 0, 0]).facing
    assert facing is not None
    assert facing.upper_spine == ("left_shoulder", "right_shoulder")
    assert facing.lower_spine == ("left_hip", "right_hip")


def test_mapped_onto_the_layout_of_an_about_file(tmp_path):
    reader = opened(tmp_path, bvh_text(), about="unit: 0.01\nlayout: common_15")
    layout = load_layout("common_15")
    assert reader.facts.layout == layout
    all_joints = opened(tmp_path, bvh_text())
    x_tvc, every = (one.read(one.entries[0])[0].tracks[0].x_tvc for one in (reader, all_joints))
    for joint in layout.joints:
        assert np.array_equal(x_tvc[:, layout.index(joint)], every[:, all_joints.facts.layout.index(joint)])
    with pytest.raises(UserError, match=r"about\.yaml: layout: does not fit .* joint 'hip_center'"):
        opened(tmp_path, bvh_text(), about="layout: kinect_v1_20")


# What a store needs to agree on


def test_files_that_differ_from_the_first(tmp_path):
    other = [(name.replace("HandIndex1", "Thumb"), parent, offset) for name, parent, offset in body()]
    moved = [(name, "Neck" if name == "LeftShoulder" else parent, offset) for name, parent, offset in body()]
    taller = [(name, parent, tuple(1.1 * np.array(offset))) for name, parent, offset in body()]
    texts = [bvh_text(), bvh_text(other), bvh_text(moved), bvh_text(frame_time=0.008333), bvh_text(taller)]
    reader = opened(tmp_path, *texts, about=None)
    with pytest.raises(DamagedClip, match="2 missing, 2 more, such as 'LeftHandIndex1'"):
        reader.read(reader.entries[1])
    with pytest.raises(DamagedClip, match="another order or other parents"):
        reader.read(reader.entries[2])
    with pytest.raises(DamagedClip, match=r"Frame Time 0\.008333 is not that of 30 frames a second"):
        reader.read(reader.entries[3])
    reader = opened(tmp_path, *texts)
    assert reader.read(reader.entries[4])[0].tracks


@pytest.mark.parametrize(
    ("seconds", "fps"),
    [("0.033333", 30), ("0.0083333", 120), ("0.016667", 60), ("0.0333667", 29.97), ("0.04", 25)],
)
def test_frame_rates(tmp_path, seconds, fps):
    text = bvh_text().replace("0.0333333", seconds)
    assert opened(tmp_path, text, about=None).facts.fps == pytest.approx(fps, abs=1e-3)


def test_a_first_file_that_is_damaged_decides_nothing(tmp_path):
    reader = opened(tmp_path, "HIERARCHY", bvh_text())
    assert reader.read(reader.entries[1])[0].name == "clip_1"
    with pytest.raises(DamagedClip):
        reader.read(reader.entries[0])
    (tmp_path / "clip_1.bvh").unlink()
    with pytest.raises(
        UserError, match=r"none of the 1 BVH files can be read; clip_0.bvh: line 2: the file ends"
    ):
        opened(tmp_path)


def test_a_unit_is_not_guessed(tmp_path):
    with pytest.raises(DamagedClip, match=r"the body would take \d+ m; .* unit: 0.01 for centimetres"):
        read(tmp_path, bvh_text(), about=None)
    metres = [(name, parent, tuple(np.array(offset) / 100)) for name, parent, offset in body()]
    reader = opened(tmp_path, bvh_text(metres), about=None)
    assert reader.read(reader.entries[0])[0].label == -1
    assert "the unit is the metre" in reader.facts.note


def test_labels_come_by_the_about_file(tmp_path):
    about = bvh_files.write_example(tmp_path / "data")
    reader = Bvh(Source(tmp_path / "data"), About.read(about))
    clips = [reader.read(entry)[0] for entry in reader.entries]
    facts = [(clip.name, clip.label, clip.repetition, clip.frames) for clip in clips]
    assert facts == [("jump_1", 1, 1, 5), ("walk_1", 0, 1, 3), ("walk_2", 0, 2, 4)]
    assert (reader.facts.dataset, reader.facts.fps) == ("walks", 30)


# Damage


GOOD = bvh_text(frames=3)
AT = {start: GOOD[: GOOD.index(start)].count("\n") + 1 for start in ("MOTION", "Frames", "Frame Time")}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("HIERARCHY", "HIERARCHIE", "line 1: the file does not begin with HIERARCHY and ROOT"),
        ("ROOT", "JOINT", "line 2: the file does not begin with HIERARCHY and ROOT"),
        ("MOTION", "", "the file ends where MOTION should stand"),
        ("Frames: 3", "Frames: 4", f"says 'Frames: 4', but 3 follow from line {AT['Frame Time'] + 1} on"),
        ("Frames: 3", "Frames: -3", f"line {AT['Frames']}: '-3' is no number of frames"),
        ("Frames: 3", f"Frames: {'9' * 5000}", "is no number of frames"),
        ("Frames: 3", "Frames: \xff3", f"line {AT['Frames']}: '\\\\xff3' is no number of frames"),
        ("Frames: 3", "Frames: 3 4", f"line {AT['Frames']}: should read Frames: and a number"),
        ("Frames: 3", "\n\nFrames; 3", f"line {AT['Frames'] + 2}: should read Frames: and a number"),
        ("Frames: 3", "3", f"line {AT['Frames']}: should read Frames: and a number"),
        ("0.0333333", "0", "Frame Time 0 is not 0.0001 to 10 seconds"),
        ("0.0333333", "nan", f"line {AT['Frame Time']}: 'nan' is no number"),
        ("\tOFFSET 0.000000", "\tOFFSET inf", "line 4: 'inf' is no number"),
        (
            "\tOFFSET 0.000000",
            "\tOFFSET 0.000000\n\tOFFSET",
            "line 5: 'OFFSET' is no number",
        ),
        ("CHANNELS 6", "CHANNELS 7", "line 5: '7' channels are not 0 to 6"),
        ("CHANNELS 6 X", "CHANNELS 6 Y", "are not Xposition to Zrotation, each once"),
        ("CHANNELS 6 Xposition", "CHANNELS 5", f"line {AT['Frame Time'] + 1}: 72 values, not 71"),
        ("JOINT Spine\n", "JOINT Head\n", "joint 'Head' stands twice"),
        ("JOINT Spine\n", "JOINT\n", "'{ OFFSET' should be a name, followed by {"),
        ("ROOT Hips\n{", "ROOT Hips\n", "line 4: 'Hips OFFSET' should be a name, followed by {"),
        ("\nMOTION", "}\nMOTION", "'}' stands after the first skeleton"),
        ("\nMOTION", "\nROOT Other { OFFSET 0 0 0 }\nMOTION", "'ROOT' stands after the first skeleton"),
        ("ROOT Hips", "ROOT H\xfcfte", "line 2: byte 0xfc is no UTF-8 text"),
    ],
)
def test_what_is_wrong(tmp_path, old, new, message):
    assert old in GOOD
    reader = opened(tmp_path, "", bvh_text())
    (tmp_path / "clip_0.bvh").write_bytes(GOOD.replace(old, new, 1).encode("latin-1"))
    with pytest.raises(DamagedClip, match=re.escape(message)):
        reader.read(reader.entries[0])


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("ROOT a {" + " OFFSET 0 0 0 JOINT b {" * 500, "stands twice"),
        (
            "ROOT a { OFFSET 0 0 0"
            + "".join(f" JOINT b{number} {{ OFFSET 0 0 0" for number in range(100_000)),
            "joints lie more than 200 deep",
        ),
        (
            "ROOT a { OFFSET 0 0 0"
            + "".join(f" JOINT b{number} {{ OFFSET 0 0 0 }}" for number in range(100_000)),
            "more than 1000 joints",
        ),
        ("ROOT a { OFFSET 0 0 0 End Site { End Site { } } }", "'END' has no place here"),
        ("ROOT a { End Site { OFFSET 0 0 0 } }", "joint 'a' has no OFFSET"),
        ("ROOT a { OFFSET 0 0 0 }", "no joint has a channel"),
        ("ROOT a {", "the hierarchy ends"),
    ],
)
def test_trees_that_are_no_skeleton(tmp_path, tree, message):
    with pytest.raises(UserError, match=re.escape(message)):
        opened(tmp_path, f"HIERARCHY\n{tree}\nMOTION\nFrames: 1\nFrame Time: 0.1\n0\n")


def test_few_numbers_cannot_ask_for_many_places(tmp_path):
    joints = "".join(f" JOINT b{number} {{ OFFSET 0 0 0 }}" for number in range(900))
    tree = f"HIERARCHY\nROOT a {{ OFFSET 0 0 0 CHANNELS 1 Xposition {joints} }}\nMOTION\n"
    reader = opened(tmp_path, f"{tree}Frames: 50000\nFrame Time: 0.0333\n" + "0\n" * 50_000)
    with pytest.raises(DamagedClip, match=r"50000 frames of 901 joints are too many for a file of \d+ bytes"):
        reader.read(reader.entries[0])


def test_a_file_of_shortest_numbers_is_read(tmp_path):
    joints = "".join(f" JOINT b{number} {{ OFFSET 0 0 0 CHANNELS 3 {ROTATIONS} }}" for number in range(200))
    tree = f"HIERARCHY\nROOT a {{ OFFSET 0 1 0 CHANNELS 3 {ROTATIONS} {joints} }}\nMOTION\n"
    text = f"{tree}Frames: 1000\nFrame Time: 0.0333\n" + ("0 " * 603 + "\n") * 1000
    reader = opened(tmp_path, text)
    assert reader.read(reader.entries[0])[0].frames == 1000


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_damage_is_read_or_refused(tmp_path_factory, data):
    hurt = data.draw(damages(GOOD.encode()))
    try:
        read(tmp_path_factory.mktemp("hurt"), hurt.decode("latin-1"))
    except (DamagedClip, UserError) as error:
        one_line(error)
