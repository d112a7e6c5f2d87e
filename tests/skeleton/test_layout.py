import copy

import pytest
import yaml
from builders import one_line

from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout, load_layout, read_layout

TREE = {
    "name": "stick",
    "joints": ["hip", "spine", "left_arm", "right_arm", "left_leg", "right_leg"],
    "bones": {
        "spine": "hip",
        "left_arm": "spine",
        "right_arm": "spine",
        "left_leg": "hip",
        "right_leg": "hip",
    },
    "mirror": {"left_arm": "right_arm", "left_leg": "right_leg"},
    "root": "hip",
    "facing": {
        "left_hip": "left_leg",
        "right_hip": "right_leg",
        "left_shoulder": "left_arm",
        "right_shoulder": "right_arm",
        "lower_spine": "hip",
        "upper_spine": "spine",
    },
}


def changed(**parts):
    tree = copy.deepcopy(TREE)
    for key, part in parts.items():
        tree[key] = {**tree.get(key, {}), **part} if isinstance(part, dict) else part
    return tree


def without(key: str, joint: str):
    tree = copy.deepcopy(TREE)
    del tree[key][joint]
    return tree


def test_what_follows_from_the_tree():
    layout = Layout.from_tree(TREE, "here")
    assert layout.parents == (0, 0, 1, 1, 0, 0)
    assert layout.mirror_order == (0, 1, 3, 2, 5, 4)
    assert [layout.index(joint) for joint in layout.joints] == list(range(6))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (changed(bones={"spine": "left_arm"}), "does not lead to the root"),
        (changed(bones={"spine": "spine"}), "'spine' does not lead to the root"),
        (changed(bones={"spine": "hips"}), "'hips' is not among the joints; did you mean 'hip'?"),
        (changed(bones={"tail": "hip"}), "'tail' is not among the joints"),
        (changed(bones={"hip": "spine"}), "bones: 'hip' has a parent, but it is the root"),
        (without("bones", "left_leg"), "bones: 'left_leg' has no parent"),
        (changed(joints=[*TREE["joints"], "head"]), "bones: 'head' has no parent; every joint but the root"),
        (changed(joints=[*TREE["joints"], "spine"]), "joints: 'spine' stands twice"),
        (changed(joints=[]), "joints: there should be 1 to 1000, not 0"),
        (changed(joints=[f"j{n}" for n in range(1001)]), "joints: there should be 1 to 1000, not 1001"),
        (changed(joints=[*TREE["joints"], ""]), "joints.6: string should have at least 1 character"),
        (changed(joints=[*TREE["joints"], "a\nb"]), "joints.6: should be printable"),
        (
            changed(joints=[*TREE["joints"], " hip"]),
            "joints.6: should be printable, without spaces at its ends",
        ),
        (changed(name="x" * 101), "name: string should have at most 100 characters"),
        (changed(mirror={"left_leg": "right_arm"}), "stands in two pairs"),
        (changed(mirror={"spine": "spine"}), "stands in two pairs"),
        (changed(mirror={"left_lag": "right_leg"}), "did you mean 'left_leg'?"),
        (changed(root="pelvis"), "'pelvis' is not among the joints"),
        (changed(root="spine"), "bones: 'spine' has a parent, but it is the root"),
        (changed(facing={"left_hip": "tail"}), "'tail' is not among the joints"),
        (changed(facing={"upper": "spine"}), "unknown key 'upper'; did you mean 'upper_spine'?"),
        (without("facing", "left_hip"), "facing.left_hip: this key is missing"),
        (changed(facing={"left_hip": 3}), "facing.left_hip: should be a joint or a list of joints, not 3"),
        (changed(facing={"left_hip": []}), "facing.left_hip: should be a joint or a list of joints"),
        (
            changed(facing={"lower_spine": ["hip", "hop"]}),
            "facing.lower_spine: 'hop' is not among the joints",
        ),
        (changed(center="hop"), "center: 'hop' is not among the joints; did you mean 'hip'?"),
        (changed(center=["hip", "hip"]), "center: a joint stands twice in the list"),
        (changed(common={"pelvs": "hip"}), "common: 'pelvs' is no common name; did you mean 'pelvis'?"),
        (changed(common={"pelvis": "hop"}), "common.pelvis: 'hop' is not among the joints"),
        ([TREE], "input should be a mapping"),
        (None, "input should be a mapping"),
    ],
)
def test_a_broken_layout_is_refused(tree, message):
    with pytest.raises(UserError) as caught:
        Layout.from_tree(tree, "here.yaml")
    assert message in one_line(caught.value)


def test_a_body_need_not_have_sides_nor_a_middle():
    body = {"name": "snake", "joints": ["tail", "head"], "bones": {"tail": "head"}, "root": "head"}
    layout = Layout.from_tree(body, "here")
    assert (layout.mirror_order, layout.facing, layout.center) == ((0, 1), None, None)
    both = Layout.from_tree(changed(center=["left_leg", "right_leg"], common={"pelvis": ["hip"]}), "here")
    assert both.indices(both.center) == (4, 5)
    assert both.indices(both.common["pelvis"]) == both.indices("hip") == (0,)


def test_long_chains_and_long_circles_are_told_apart_at_once():
    names = [f"j{n}" for n in range(1000)]
    chain = {
        "name": "chain",
        "joints": names,
        "root": "j0",
        "bones": dict(zip(names[1:], names, strict=False)),
    }
    assert Layout.from_tree(chain, "here").parents == (0, *range(999))
    circle = {**chain, "bones": {**chain["bones"], "j1": "j999"}}
    with pytest.raises(UserError, match="bones: 'j1' does not lead to the root"):
        Layout.from_tree(circle, "here")


def test_a_layout_file_of_ones_own_is_read(tmp_path):
    path = tmp_path / "stick.yaml"
    path.write_text(yaml.safe_dump(TREE))
    assert read_layout(path) == Layout.from_tree(TREE, "here")
    path.write_text(yaml.safe_dump(changed(root="hop")))
    with pytest.raises(UserError) as caught:
        read_layout(path)
    assert one_line(caught.value) == f"{path}: root: 'hop' is not among the joints; did you mean 'hip'?"
    with pytest.raises(UserError, match="no such file"):
        read_layout(tmp_path / "other.yaml")


def test_an_unknown_layout_is_refused():
    with pytest.raises(UserError, match="'kinect_v2' is unknown; did you mean 'kinect_v2_25'"):
        load_layout("kinect_v2")


def test_the_joints_of_utd_mhad_map_by_name():
    limbs = {"arm": ("shoulder", "elbow", "wrist", "hand"), "leg": ("hip", "knee", "ankle", "foot")}
    sides = [f"{side}_{joint}" for limb in limbs.values() for side in ("left", "right") for joint in limb]
    names = ["head", "shoulder_center", "spine", "hip_center", *sides]
    order = load_layout("kinect_v1_20").order_from(names)
    assert order == (3, 2, 1, 0, *range(4, 20))


def test_joints_map_by_name_among_others():
    layout = Layout.from_tree(TREE, "here")
    names = ["tail", *reversed(layout.joints), "nose"]
    assert tuple(names[place] for place in layout.order_from(names)) == layout.joints
    with pytest.raises(UserError, match="joint 'hip' of stick is missing; did you mean 'hips'"):
        layout.order_from(["hips", *layout.joints[1:]])
