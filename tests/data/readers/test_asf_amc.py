import re
import warnings
from pathlib import Path

import cmu_files
import hdm05_files
import numpy as np
import pytest
from asf_amc_files import amc_text, angles, asf_text, body, write_pair
from builders import damages, one_line, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_matrices import Matrix, place, product, shift, turn

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.asf_amc import Cmu, Hdm05
from ssl_skeleton.data.recording import Recording, check_recording
from ssl_skeleton.data.source import Source
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("mocap_31")
UNIT = 0.0254 / 0.45


def read(folder: Path, skeleton: str, motion: str, about: About | None = None) -> Recording:
    (folder / "07.asf").write_bytes(skeleton.encode("latin-1"))
    (folder / "07_01.amc").write_bytes(motion.encode("latin-1"))
    reader = Cmu(Source(folder), about)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (recording,) = reader.read(reader.entries[0])
    check_recording(recording, reader.facts)
    return recording


def joint_of(bone: str) -> int:
    sides = {"l": "left_", "r": "right_"}
    names = (bone, sides.get(bone[0], "") + bone[1:])
    return next(LAYOUT.index(name) for name in names if name in LAYOUT.joints)


def slow_places(bones: list, frame: dict) -> dict[str, list[float]]:
    """Where the ends of bones are, in the units of the file, a bone at a time."""
    x, y, z, rx, ry, rz = frame["root"]
    whole: dict[str, Matrix] = {"root": product(shift(x, y, z), turn("z", rz), turn("y", ry), turn("x", rx))}
    for _ in bones:  # parents may come later
        for bone in bones:
            if bone["name"] in whole or bone["parent"] not in whole:
                continue
            a, b, c = bone["axis"]
            own = [turn("z", c), turn("y", b), turn("x", a)]
            motion = [
                turn(dof[1], value)
                for dof, value in zip(bone["dof"], frame.get(bone["name"], []), strict=True)
            ]
            undo = [turn("x", -a), turn("y", -b), turn("z", -c)]
            along = shift(*(np.array(bone["direction"]) * bone["length"]))
            whole[bone["name"]] = product(whole[bone["parent"]], *own, *motion[::-1], *undo, along)
    return {name: place(matrix) for name, matrix in whole.items()}


@given(seeds)
@settings(max_examples=10, deadline=None)
def test_places_against_a_slow_reference(tmp_path_factory, seed):
    motion = angles(3, seed)
    clip = read(tmp_path_factory.mktemp("clip"), asf_text(), amc_text(motion))
    (track,) = clip.tracks
    assert (clip.frames, track.first_frame, track.x_tvc.shape, track.x_tvc.dtype) == (
        3,
        0,
        (3, 31, 3),
        np.float32,
    )
    for frame, values in enumerate(motion):
        wanted = slow_places(body(), values)
        assert len(wanted) == 31
        for bone, spot in wanted.items():
            assert np.allclose(track.x_tvc[frame, joint_of(bone)], np.array(spot) * UNIT, atol=1e-5), bone


def still(frames: int = 1) -> list[dict[str, list[float]]]:
    return [{bone: [0.0] * len(values) for bone, values in frame.items()} for frame in angles(frames)]


def with_bone(name: str, **fields: object) -> list[dict[str, object]]:
    return [bone | fields if bone["name"] == name else bone for bone in body()]


def test_a_leg_bent_by_right_angles(tmp_path):
    """The thigh, which hangs at rest, is turned about x so that it points to -z; the shank hangs down."""
    thigh = {"direction": np.array([0, -1, 0]), "length": 8.0, "axis": np.zeros(3)}
    bones = with_bone("lfemur", **thigh)
    bones = [bone | thigh | {"length": 6.0} if bone["name"] == "ltibia" else bone for bone in bones]
    (frame,) = still()
    frame["lfemur"] = [90.0, 0.0, 0.0]
    frame["ltibia"] = [-90.0]
    x_vc = read(tmp_path, asf_text(bones), amc_text([frame])).tracks[0].x_tvc[0] / UNIT
    hip, knee, ankle = (x_vc[joint_of(bone)] for bone in ("lhipjoint", "lfemur", "ltibia"))
    assert np.allclose(knee - hip, [0, 0, -8], atol=1e-4)
    assert np.allclose(ankle - knee, [0, -6, 0], atol=1e-4)


def test_a_bone_turns_about_its_own_axes(tmp_path):
    """Axes turned by 90 degrees about z have their x along y: rx takes a bone along x to -z."""
    bones = with_bone("lhumerus", direction=np.array([1, 0, 0]), length=5.0, axis=np.array([0, 0, 90]))
    (frame,) = still()
    frame["lhumerus"] = [90.0, 0.0, 0.0]
    x_vc = read(tmp_path, asf_text(bones), amc_text([frame])).tracks[0].x_tvc[0] / UNIT
    assert np.allclose(x_vc[joint_of("lhumerus")] - x_vc[joint_of("lclavicle")], [0, 0, -5], atol=1e-4)


def test_bones_keep_their_lengths_and_the_root_its_place(tmp_path):
    motion = angles(20, seed=3)
    x_tvc = read(tmp_path, asf_text(), amc_text(motion)).tracks[0].x_tvc
    assert np.allclose(x_tvc[:, 0], np.array([frame["root"][:3] for frame in motion]) * UNIT, atol=1e-5)
    for bone in body():
        along_tc = x_tvc[:, joint_of(bone["name"])] - x_tvc[:, joint_of(bone["parent"])]
        length = bone["length"] * np.linalg.norm(bone["direction"]) * UNIT
        assert np.allclose(np.linalg.norm(along_tc, axis=1), length, atol=1e-5)


def test_the_layout_hangs_together_as_the_skeleton_does():
    for bone in body():
        assert LAYOUT.parents[joint_of(bone["name"])] == joint_of(bone["parent"])


def test_the_root_may_be_shifted_and_turned_at_rest(tmp_path):
    motion = angles(2)
    plain = read(tmp_path, asf_text(), amc_text(motion)).tracks[0].x_tvc
    moved = asf_text().replace("position 0 0 0", "position 10 0 -20")
    x_tvc = read(tmp_path, moved, amc_text(motion)).tracks[0].x_tvc
    assert np.allclose(x_tvc - plain, np.array([10, 0, -20]) * UNIT, atol=1e-5)
    turned = asf_text().replace("orientation 0 0 0", "orientation 0 90 0")
    frame = still()[0] | {"root": [0.0, 0.0, 0.0, 90.0, 0.0, 0.0]}
    one = read(tmp_path, turned, amc_text([frame])).tracks[0].x_tvc
    same = still()[0] | {"root": [0.0, 0.0, 0.0, 0.0, 0.0, -90.0]}  # its own x is -z of the world
    assert np.allclose(one, read(tmp_path, asf_text(), amc_text([same])).tracks[0].x_tvc, atol=1e-5)


def test_the_order_of_dof_and_radians(tmp_path):
    bones = with_bone("lhumerus", dof=["rz", "rx", "ry"])
    motion = angles(2, bones=bones)
    x_tvc = read(tmp_path, asf_text(bones), amc_text(motion)).tracks[0].x_tvc
    wanted = np.array(slow_places(bones, motion[1])["lthumb"]) * UNIT
    assert np.allclose(x_tvc[1, joint_of("lthumb")], wanted, atol=1e-5)
    in_radians = [
        {
            bone: [*values[:-3], *np.radians(values[-3:])] if bone == "root" else list(np.radians(values))
            for bone, values in frame.items()
        }
        for frame in motion
    ]
    text = amc_text(in_radians).replace(":DEGREES", ":RADIANS")
    assert np.allclose(read(tmp_path, asf_text(bones), text).tracks[0].x_tvc, x_tvc, atol=1e-5)


ASF, AMC = asf_text(), amc_text(angles(2))


def line_of(text: str, start: str, count: int = 1) -> int:
    return [number for number, line in enumerate(text.split("\n"), 1) if line.startswith(start)][count - 1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\n2\n", "\n3\n", f"line {line_of(AMC, '2')}: frame 2 should stand here, not 3"),
        (
            "\nltibia ",
            "\nlshin ",
            f"line {line_of(AMC, 'ltibia')}: bone 'lshin' does not move in the skeleton",
        ),
        ("\nltibia ", "\nlhipjoint ", "bone 'lhipjoint' does not move in the skeleton"),
        ("\nltibia ", "\n# ", f"line {line_of(AMC, '2')}: the frame before has no ltibia"),
        (
            "\nltibia ",
            "\nlfemur 1 2 3\nltibia ",
            f"line {line_of(AMC, 'ltibia')}: bone 'lfemur' stands twice",
        ),
        ("\nltibia ", "\nltibia 3 ", f"line {line_of(AMC, 'ltibia')}: 2 values, not 1"),
        ("\nltibia ", "\nltibia\n# ", f"line {line_of(AMC, 'ltibia')}: 0 values, not 1"),
        ("\nltibia ", "\nltibia nan\n# ", f"line {line_of(AMC, 'ltibia')}: 'nan' is no number"),
        ("\nltibia ", "\nltibia 1_0\n# ", "'1_0' is no number within 1000000"),
        ("\nltibia ", "\nltibia 1e999\n# ", "'1e999' is no number within 1000000"),
        ("\nltibia ", "\nltibia 0x10\n# ", "'0x10' is no number within 1000000"),
        ("\nltibia ", "\nltibiä ", f"line {line_of(AMC, 'ltibia')}: byte 0xe4 is no ASCII text"),
        ("\n1\n", "\n", "line 4: bone 'root' stands twice in its frame, or before any"),
        ("\n1\n", f"\n{'9' * 5000}\n", "frame 1000000000000000000 should stand here, not 2"),
    ],
)
def test_what_is_wrong_in_a_motion(tmp_path, old, new, message):
    assert old in AMC
    with pytest.raises(DamagedClip, match=re.escape(message)):
        read(tmp_path, ASF, AMC.replace(old, new, 1))


@pytest.mark.parametrize("text", ["", ":DEGREES\n", "# nothing\n\n"])
def test_a_motion_without_frames(tmp_path, text):
    with pytest.raises(DamagedClip, match="the file ends before its first frame"):
        read(tmp_path, ASF, text)


def test_a_motion_that_is_cut_in_its_last_frame(tmp_path):
    with pytest.raises(DamagedClip, match=f"line {len(AMC.splitlines())}: the frame before has no head"):
        read(tmp_path, ASF, AMC[: AMC.rindex("head")])


NAME_LINE = line_of(ASF, "     name ltibia")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("length 0.45", "length 0", "line 6: length 0 is no scale"),
        ("length 0.45", "length", "line 6: length has 0 values, not 1"),
        ("length 0.45", "size 0.45", ":units has no length"),
        ("angle deg", "angle gon", "line 7: angle 'gon' is neither deg nor rad"),
        ("order TX TY TZ RX RY RZ", "order", ":root has no order"),
        ("order TX TY TZ RX RY RZ", "order TX TX", "'TX TX' are not some of tx ty tz rx ry rz"),
        ("   axis XYZ", "   axis XYX", "'XYX' is no order of X, Y and Z"),
        ("position 0 0 0", "position 0 inf 0", "'inf' is no number"),
        ("name ltibia", "name", f"line {NAME_LINE}: name has 0 values, not 1"),
        ("name ltibia", "name lshin", "there is no bone 'ltibia'"),
        ("name ltibia", "name lfemur", "a bone's name stands twice"),
        ("name ltibia", "name root", "a bone's name stands twice"),
        ("name ltibia", "name ltibia\n name ltibia", f"line {NAME_LINE + 1}: 'name' stands twice"),
        ("     name ltibia", "  begin", f"line {NAME_LINE}: a bone begins within another"),
        ("dof rx ry rz", "dof rx ry rz l", "'rx ry rz l' are not some of rx ry rz"),
        (":hierarchy\n  begin", ":other", "the skeleton has no :hierarchy"),
        ("ltibia lfoot", "lfoot ltibia", "bone 'ltibia' has a second parent"),
        ("ltibia lfoot", "lfoot lfoot", "does not lead from the root to bone 'lfoot'"),
        ("lfemur ltibia", "lfemur root", "bone 'root' has a second parent"),
        (":bonedata\n  begin", ":bonedata\n", "no bone has begun here"),
    ],
)
def test_what_is_wrong_in_a_skeleton(tmp_path, old, new, message):
    assert old in ASF
    with pytest.raises(DamagedClip, match=re.escape("its skeleton 07.asf: ") + ".*" + re.escape(message)):
        read(tmp_path, ASF.replace(old, new, 1), AMC)


def test_a_skeleton_of_other_bones(tmp_path):
    bones = [bone for bone in body() if bone["name"] != "lthumb"]
    with pytest.raises(DamagedClip, match="its skeleton has no bone lthumb"):
        read(tmp_path, asf_text(bones), amc_text(angles(1, bones=bones)))


def test_more_bones_than_a_body_has(tmp_path):
    tail = {"parent": "root", "direction": (0, 0, 1), "length": 1, "axis": (0, 0, 0), "dof": []}
    bones = body() + [{"name": f"tail{number}"} | tail for number in range(5000)]
    with pytest.raises(DamagedClip, match="5031 bones are more than 200"):
        read(tmp_path, asf_text(bones), AMC)


def test_a_unit_that_makes_no_body_is_refused_unless_it_is_said(tmp_path):
    with pytest.raises(DamagedClip, match=r"the body would take 75\.3 m; say in an about file .* unit: 0.01"):
        read(tmp_path, asf_text(length=0.01), AMC)
    path = tmp_path / "about.yaml"
    path.write_text(f"dataset: mine\nfps: 60\nunit: {2 * UNIT}\naxes: [z, y, -x]\n")
    plain = read(tmp_path, ASF, AMC).tracks[0].x_tvc
    x_tvc = read(tmp_path, ASF, AMC, About.read(path)).tracks[0].x_tvc
    assert np.allclose(x_tvc, 2 * plain[..., [2, 1, 0]] * (1, 1, -1), atol=1e-5)


def test_cmu_names_and_labels(tmp_path):
    about = cmu_files.write_example(tmp_path / "data")
    reader = Cmu(Source(tmp_path / "data"), About.read(about))
    clips = [reader.read(entry)[0] for entry in reader.entries]
    facts = [(clip.name, clip.label, clip.subject, clip.repetition, clip.frames) for clip in clips]
    assert facts == [("01_01", 1, 1, 1, 4), ("01_02", 0, 1, 2, 3), ("143_32", 1, 143, 32, 4)]
    assert (reader.facts.dataset, tuple(reader.facts.classes), reader.facts.fps) == (
        "cmu_walk",
        ("jump", "walk"),
        120,
    )
    bare = Cmu(Source(tmp_path / "data"), None)
    assert (bare.facts.dataset, tuple(bare.facts.classes), bare.facts.fps) == ("cmu", (), 120)
    assert {bare.read(entry)[0].label for entry in bare.entries} == {-1}
    assert "people face any way" in bare.facts.note


def test_a_skeleton_in_the_same_folder_goes_first(tmp_path):
    write_pair(tmp_path / "a", "01", "01_01")
    write_pair(tmp_path / "b", "01", "01_02")
    (tmp_path / "b" / "01.asf").write_text("damaged")
    (tmp_path / "c").mkdir()
    (tmp_path / "a" / "01_01.amc").rename(tmp_path / "c" / "01_01.amc")
    reader = Cmu(Source(tmp_path), None)
    assert reader.read(reader.entries[0])[0].name == "01_01"  # with that of another folder
    with pytest.raises(DamagedClip, match=r"its skeleton 01\.asf: the skeleton has no :units"):
        reader.read(reader.entries[1])


def test_a_motion_without_its_skeleton(tmp_path):
    write_pair(tmp_path, "01", "02_01")
    reader = Cmu(Source(tmp_path), None)
    with pytest.raises(DamagedClip, match=r"there is no skeleton for it, such as 02\.asf"):
        reader.read(reader.entries[0])
    (tmp_path / "01.asf").unlink()
    with pytest.raises(UserError, match=r"holds no \*\.asf"):
        Cmu(Source(tmp_path), None)


@pytest.mark.parametrize(
    ("line", "message"),
    [("layout: kinect_v1_20", "layout: ASF/AMC has mocap_31"), ("coordinates: image", "coordinates")],
)
def test_what_an_about_file_cannot_say(tmp_path, line, message):
    write_pair(tmp_path, "01", "01_01")
    path = tmp_path / "about.yaml"
    path.write_text(f"dataset: mine\nfps: 60\n{line}\n")
    with pytest.raises(UserError, match=message):
        Cmu(Source(tmp_path), About.read(path))


def test_clips_of_one_name_in_two_folders(tmp_path):
    write_pair(tmp_path / "S1", "walk", "walk")
    write_pair(tmp_path / "S2", "walk", "walk", seed=1)
    about = tmp_path / "about.yaml"
    about.write_text('dataset: mine\nfps: 120\nnames: "S{subject}/{label}"\n')
    reader = Cmu(Source(tmp_path), About.read(about))
    one, two = (reader.read(entry)[0] for entry in reader.entries)
    assert [(clip.name, clip.subject) for clip in (one, two)] == [("S1/walk", 1), ("S2/walk", 2)]


def test_the_only_skeleton_in_a_folder(tmp_path):
    write_pair(tmp_path / "S1", "anna", "walk")
    write_pair(tmp_path / "S2", "walk", "jump")  # fits the name of another motion
    (tmp_path / "S2" / "walk.asf").write_text(asf_text(length=0.9))
    reader = Cmu(Source(tmp_path), None)
    jump, walk = (reader.read(entry)[0] for entry in reader.entries)
    assert (jump.name, walk.name) == ("S2/jump", "S1/walk")
    assert np.allclose(2 * jump.tracks[0].x_tvc, walk.tracks[0].x_tvc, atol=1e-5)
    (tmp_path / "S1" / "bert.asf").write_text(ASF)
    reader = Cmu(Source(tmp_path / "S1"), None)
    with pytest.raises(DamagedClip, match=r"there is no skeleton for it, such as walk\.asf"):
        reader.read(reader.entries[0])


def test_few_numbers_cannot_ask_for_many_places(tmp_path):
    tail = {"parent": "root", "direction": (0, 0, 1), "length": 0, "axis": (0, 0, 0)}
    bones = [bone | {"dof": []} for bone in body()]
    bones += [{"name": f"tail{number}", "dof": []} | tail for number in range(160)]
    motion = "".join(f"{frame}\nroot 0 0 0 0 0 0\n" for frame in range(50_000))
    with pytest.raises(DamagedClip, match=f"50000 frames of 191 joints .* a file of {len(motion)} bytes"):
        read(tmp_path, asf_text(bones), motion)


def test_hdm05_names(tmp_path):
    hdm05_files.write_example(tmp_path)
    reader = Hdm05(Source(tmp_path))
    clips = [reader.read(entry)[0] for entry in reader.entries]
    assert [(clip.label, clip.subject, clip.repetition) for clip in clips] == [
        (0, 1, 1),
        (1, 1, 12),
        (0, 4, 3),
    ]
    assert list(reader.facts.classes) == ["cartwheelLHandStart1Reps", "clap1Reps"]
    subjects = {"subject": np.array([clip.subject for clip in clips])}
    assert len(reader.facts.splits["cross_subject"].divide(subjects)["train"]) == 3


@pytest.mark.parametrize("name", ["HDM_xx_clap_001_120", "HDM_bd_clap_1_120", "HDM_bd_01-01_01_120", "01_01"])
def test_other_hdm05_names(tmp_path, name):
    write_pair(tmp_path, "HDM_bd", name)
    reader = Hdm05(Source(tmp_path))
    with pytest.raises(DamagedClip, match="does not read HDM_actor_class_take_120"):
        reader.read(reader.entries[0])


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_damage_is_read_or_refused(tmp_path_factory, data):
    files = [ASF.encode(), AMC.encode()]
    hurt = data.draw(st.integers(0, 1))
    files[hurt] = data.draw(damages(files[hurt]))
    try:
        read(tmp_path_factory.mktemp("hurt"), *(file.decode("latin-1") for file in files))
    except DamagedClip as error:
        one_line(error)
