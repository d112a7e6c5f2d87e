import copy

import pytest
from builders import one_line

from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import Layout, load_layout

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
        tree[key] = {**tree[key], **part} if isinstance(part, dict) else part
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
        (changed(bones={"hip": "spine"}), "every joint but the root needs exactly one parent"),
        (without("bones", "left_leg"), "every joint but the root needs exactly one parent"),
        (changed(joints=[*TREE["joints"], "head"]), "every joint but the root needs exactly one parent"),
        (changed(joints=[*TREE["joints"], "spine"]), "a name stands twice"),
        (changed(joints=[]), "joints: "),
        (changed(mirror={"left_leg": "right_arm"}), "a joint stands in two pairs"),
        (changed(mirror={"spine": "spine"}), "a joint stands in two pairs"),
        (changed(mirror={"left_lag": "right_leg"}), "did you mean 'left_leg'?"),
        (changed(root="pelvis"), "'pelvis' is not among the joints"),
        (changed(root="spine"), "every joint but the root needs exactly one parent"),
        (changed(facing={"left_hip": "tail"}), "'tail' is not among the joints"),
        (changed(facing={"upper": "spine"}), "unknown key 'upper'; did you mean 'upper_spine'?"),
        (without("facing", "left_hip"), "facing.left_hip: this key is missing"),
    ],
)
def test_a_broken_layout_is_refused(tree, message):
    with pytest.raises(UserError) as caught:
        Layout.from_tree(tree, "here.yaml")
    assert message in one_line(caught.value)


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
