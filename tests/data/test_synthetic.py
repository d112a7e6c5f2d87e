import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssl_skeleton.data.synthetic import ACTIONS, synthesise, synthesise_motion
from ssl_skeleton.data.synthetic.actions import CATALOGUE, Action, Performance
from ssl_skeleton.data.synthetic.body import LAYOUT, Array, Body, move
from ssl_skeleton.data.synthetic.sensor import view
from ssl_skeleton.errors import UserError

PAIRS = {"shake hands", "push"}
BACKWARDS = [
    ("sit down", "stand up"),
    ("raise arms", "lower arms"),
    ("circle arms backward", "circle arms forward"),
    ("draw a circle clockwise", "draw a circle counter-clockwise"),
    ("walk forward", "walk backward"),
    ("pick up", "put down"),
]


def action(name: str) -> Action:
    return CATALOGUE[ACTIONS.index(name)]


def joint(x: Array, name: str) -> Array:
    return x[..., LAYOUT.index(name), :]


def plain(frames: int = 61) -> Performance:
    return Performance(np.linspace(0, 1, frames), seconds=2.0, phase=0.4, variety=(0.3, -0.2, 0.1, 0.6))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "raw"
    assert synthesise(out, subjects=2, repetitions=1, cameras=2) == len(ACTIONS) * 4
    return out


@pytest.mark.parametrize("name", ACTIONS)
def test_bodies_are_rigid_and_stand_on_the_floor(name: str) -> None:
    x_mtvc = synthesise_motion(name, subject=3, repetition=1)
    assert x_mtvc.shape[0] == (2 if name in PAIRS else 1)
    assert 40 <= x_mtvc.shape[1] <= 120
    assert x_mtvc.shape[2:] == (25, 3)
    assert np.isfinite(x_mtvc).all()
    lengths = np.linalg.norm(x_mtvc - x_mtvc[:, :, list(LAYOUT.parents)], axis=-1)
    np.testing.assert_allclose(lengths, np.broadcast_to(lengths[:, :1], lengths.shape), atol=1e-9)
    lowest = x_mtvc[..., 1].min(axis=2)
    assert lowest.min() > -0.02
    assert lowest.max() < 0.08


@pytest.mark.parametrize("name", ACTIONS)
def test_knees_and_elbows_bend_the_human_way(name: str) -> None:
    pose = action(name).pose(plain())
    for side in ("left", "right"):
        assert pose[f"{side}_knee"].min() >= -0.1
        assert pose[f"{side}_elbow"].min() >= -0.1


@pytest.mark.parametrize(("forward", "backward"), BACKWARDS)
def test_reversed_actions_are_the_same_motion_backwards(forward: str, backward: str) -> None:
    one = move(action(forward).pose(plain()), Body())
    other = move(action(backward).pose(plain()), Body())[::-1]
    shift = (one[0] - other[0])[:1]  # each starts at the origin
    np.testing.assert_allclose(one, other + shift, atol=1e-9)
    assert np.abs(one - one[::-1]).max() > 0.1  # and not the same motion forwards


@pytest.mark.parametrize("pace", ["slowly", "fast"])
def test_waving_left_mirrors_waving_right(pace: str) -> None:
    left = move(action(f"wave left hand {pace}").pose(plain()), Body())
    right = move(action(f"wave right hand {pace}").pose(plain()), Body())
    np.testing.assert_allclose(left, right[:, list(LAYOUT.mirror_order)] * (-1, 1, 1), atol=1e-9)
    assert joint(left, "left_hand")[:, 1].max() > joint(left, "left_shoulder")[:, 1].max()
    assert joint(left, "right_hand")[:, 1].max() < joint(left, "right_elbow")[:, 1].max()


def test_walking_goes_where_the_face_points() -> None:
    root = joint(move(action("walk forward").pose(plain()), Body()), "base_spine")
    assert root[-1, 2] - root[0, 2] < -0.5
    assert abs(root[-1, 0] - root[0, 0]) < 0.1


def test_sitting_lowers_the_hips_to_knee_height() -> None:
    x_tvc = move(action("sit down").pose(plain()), Body())
    hip, knee = joint(x_tvc, "left_hip")[-1], joint(x_tvc, "left_knee")[-1]
    assert abs(hip[1] - knee[1]) < 0.1
    assert knee[2] < hip[2] - 0.3  # before the hip


def test_a_pair_faces_each_other_and_their_hands_meet() -> None:
    x_mtvc = synthesise_motion("shake hands", subject=1, repetition=1)
    hands = joint(x_mtvc, "right_hand")
    assert np.linalg.norm(hands[0] - hands[1], axis=-1).min() < 0.25
    sideways = joint(x_mtvc, "right_hip")[:, 0] - joint(x_mtvc, "left_hip")[:, 0]
    assert sideways[0] @ sideways[1] < 0


def test_the_left_lies_at_the_smaller_x_before_the_frontal_camera() -> None:
    for name in ("raise arms", "walk forward", "pick up"):
        x_mtvc = view(synthesise_motion(name, subject=2, repetition=1), setup=2, camera=1)
        assert (joint(x_mtvc, "left_shoulder")[0, 0, 0] < joint(x_mtvc, "right_shoulder")[0, 0, 0]).all()
        assert 1.5 < x_mtvc[..., 2].mean() < 4.5


def test_cameras_turn_the_same_motion() -> None:
    world = synthesise_motion("walk forward", subject=1, repetition=1)
    one, other = (view(world, setup=1, camera=camera) for camera in (2, 3))
    assert np.abs(one - other).max() > 0.3
    for seen in (one, other):
        spans = [np.linalg.norm(x[0, 5, :, None] - x[0, 5, None], axis=-1) for x in (world, seen)]
        np.testing.assert_allclose(spans[0], spans[1], atol=1e-9)


def test_files_are_line_by_line_as_in_ntu(folder: Path) -> None:
    paths = sorted(folder.glob("*.skeleton"))
    assert {path.name for path in folder.iterdir()} == {path.name for path in paths} | {"synthetic.json"}
    facts = json.loads((folder / "synthetic.json").read_text())
    assert facts == {"subjects": 2, "repetitions": 1, "cameras": 2, "seed": 0}
    names = {
        f"S{s:03}C{c:03}P{s:03}R001A{a:03}.skeleton" for s in (1, 2) for c in (1, 2) for a in range(1, 21)
    }
    assert {path.name for path in paths} == names
    for path in paths:
        bodies = check_file(path)
        assert max(bodies) == (2 if ACTIONS[int(path.stem[-3:]) - 1] in PAIRS else 1)


def check_file(path: Path) -> list[int]:
    """Read a file by the format's description; the number of bodies in each frame."""
    lines = iter(path.read_text().splitlines())
    counts, ids = [int(next(lines))], set()
    for _ in range(counts.pop()):
        counts.append(int(next(lines)))
        for _ in range(counts[-1]):
            head = next(lines).split()
            assert len(head) == 10
            assert head[0].startswith("72057594")
            ids.add(head[0])
            assert int(next(lines)) == 25
            values = np.array([next(lines).split() for _ in range(25)], float)
            assert values.shape == (25, 12)
            assert set(values[:, 11]) <= {1.0, 2.0}
            assert (values[:, 2] > 0.5).all()
            assert ((values[:, 5] > 0) & (values[:, 5] < 1920)).mean() > 0.5
            turned = np.linalg.norm(values[:, 7:11], axis=1)
            assert (np.isclose(turned, 1, atol=1e-4) | (turned == 0)).all()
    assert not list(lines)
    assert len(ids) == max(counts)
    return counts


def test_same_seed_same_bytes_and_a_subset_is_identical(folder: Path, tmp_path: Path) -> None:
    synthesise(tmp_path / "subset", subjects=1, repetitions=1, cameras=1)
    synthesise(tmp_path / "other", subjects=1, repetitions=1, cameras=1, seed=1)
    paths = list((tmp_path / "subset").glob("*.skeleton"))
    assert len(paths) == len(ACTIONS)
    for path in paths:
        assert path.read_bytes() == (folder / path.name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / path.name).read_bytes()


def test_progress_sees_every_performance(tmp_path: Path) -> None:
    seen: list[str] = []

    def progress(names: Iterable[str], total: int) -> Iterable[str]:
        assert total == len(ACTIONS)
        seen.extend(names)
        return seen

    synthesise(tmp_path / "raw", subjects=1, repetitions=1, cameras=1, progress=progress)
    assert len(set(seen)) == len(ACTIONS)


@pytest.mark.parametrize(
    "wrong", [{"subjects": 0}, {"subjects": 41}, {"repetitions": 0}, {"cameras": 4}, {"seed": -1}]
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        synthesise(tmp_path / "raw", **wrong)
    assert not list(tmp_path.iterdir())


def test_an_older_folder_stays_unless_it_may_be_replaced(folder: Path) -> None:
    with pytest.raises(UserError, match="already exists"):
        synthesise(folder, subjects=1)


def test_only_synthetic_recordings_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "raw"
    out.mkdir()
    (out / "S001C001P001R001A001.skeleton").write_text("real")
    with pytest.raises(UserError, match="holds other things"):
        synthesise(out, subjects=1, repetitions=1, cameras=1, overwrite=True)
    assert [path.read_text() for path in out.iterdir()] == ["real"]
    (out / "synthetic.json").write_text("{}")
    synthesise(out, subjects=1, repetitions=1, cameras=1, overwrite=True)
    assert len(list(out.iterdir())) == len(ACTIONS) + 1


def test_an_unknown_action_gets_a_hint() -> None:
    with pytest.raises(UserError, match="did you mean 'sit down'"):
        synthesise_motion("sit dwon", 1, 1)
