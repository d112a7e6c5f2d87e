import numpy as np
import pytest
from builders import seeds
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ssl_skeleton.data.parsing.kinematics import frame_blocks, place_joints, turn_matrices
from ssl_skeleton.errors import DamagedClip


@given(st.permutations("xyz"), st.integers(1, 3), seeds)
def test_turns_against_scipy(axes, count, seed):
    order = "".join(axes[:count])
    angles_tk = np.random.default_rng(seed).uniform(-7, 7, (5, count))
    wanted = Rotation.from_euler(order.upper(), angles_tk).as_matrix()
    assert np.allclose(turn_matrices(angles_tk, order), wanted, atol=1e-12)


def test_without_angles_nothing_turns():
    assert np.array_equal(turn_matrices(np.zeros((2, 0)), ""), np.stack([np.eye(3)] * 2))


def test_an_arm_of_two_bones_bent_by_a_right_angle():
    """An upper arm along x, turned up; a forearm along x, bent back by as much: it is level again."""
    up, back = (turn_matrices(np.array([[angle]]), "z") for angle in (np.pi / 2, -np.pi / 2))
    shifts = [np.array([shift]) for shift in ((1.0, 2.0, 3.0), (0.3, 0.0, 0.0), (0.25, 0.0, 0.0))]
    x_tvc = place_joints((-1, 0, 1), (up, back, np.eye(3)[None]), shifts)
    assert np.allclose(x_tvc, [[[1, 2, 3], [1, 2.3, 3], [1.25, 2.3, 3]]])


@given(seeds)
def test_places_against_matrices_one_at_a_time(seed):
    rng = np.random.default_rng(seed)
    parents = [-1, *(int(rng.integers(0, joint)) for joint in range(1, 8))]
    turns_vtij = [Rotation.random(3, rng=rng).as_matrix() for _ in parents]
    shifts_vtc = rng.normal(size=(8, 3, 3))
    x_tvc = place_joints(parents, turns_vtij, list(shifts_vtc))
    for frame in range(3):
        whole = []
        for joint, parent in enumerate(parents):
            own = np.eye(4)
            own[:3, :3], own[:3, 3] = turns_vtij[joint][frame], shifts_vtc[joint, frame]
            whole.append(own if parent < 0 else whole[parent] @ own)
            assert np.allclose(x_tvc[frame, joint], whole[joint][:3, 3])


@given(st.integers(0, 300_000), st.integers(1, 70))
def test_blocks_hold_every_frame_once(frames, joints):
    blocks = frame_blocks(frames, joints, size=6 * frames * joints)
    assert [block.start for block in blocks[1:]] == [block.stop for block in blocks[:-1]]
    assert sum(block.stop - block.start for block in blocks) == frames
    assert all((block.stop - block.start) * joints <= 1 << 16 for block in blocks)


@given(st.integers(1, 10**6), st.integers(1, 1000), st.integers(0, 10**8))
def test_no_more_places_than_a_file_can_hold(frames, joints, size):
    if frames * joints <= (1 << 16) + size // 6:
        assert frame_blocks(frames, joints, size)[-1].stop == frames
    else:
        with pytest.raises(DamagedClip, match=f"{frames} frames of {joints} joints .* of {size} bytes"):
            frame_blocks(frames, joints, size)
