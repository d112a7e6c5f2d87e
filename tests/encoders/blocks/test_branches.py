import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.blocks.branches import BranchInputs
from ssl_skeleton.skeleton.layout import Layout

ARM = {
    "joints": ("hand", "hip", "elbow", "shoulder"),  # the root is not the first
    "bones": {"hand": "elbow", "elbow": "shoulder", "shoulder": "hip"},
    "root": "hip",
}
LAYOUTS = {
    "root": Layout(name="arm", **ARM),
    "joint": Layout(name="arm", **ARM, center="shoulder"),
    "joints": Layout(name="arm", **ARM, center=("hip", "shoulder")),
}
NAMES = ("joint", "velocity", "bone")


def slow(layout, x_tvc, length):
    """All three of one body, as nested lists, one joint of one frame after another."""
    joints, channels = x_tvc.shape[1:]
    x = x_tvc.tolist()
    nothing = [0.0] * channels
    center = layout.indices(layout.center or layout.root)

    def there(t, v):
        if t >= length:
            return False
        if [v] == list(center):
            return any(any(joint) for joint in x[t])
        return any(x[t][v])

    def way(start, end, known):
        return [b - a for a, b in zip(start, end, strict=True)] if known else nothing

    out = {name: [] for name in NAMES}
    for t in range(len(x)):
        for v in range(joints):
            known = [j for j in center if there(t, j)]
            middle = [sum(x[t][j][c] for j in known) / max(1, len(known)) for c in range(channels)]
            out["joint"].append(x[t][v] + way(middle, x[t][v], known and there(t, v)))
            ways = []
            for later in (t + 1, t + 2):
                seen = there(t, v) and later < len(x) and there(later, v)
                ways += way(x[t][v], x[later][v], True) if seen else nothing
            out["velocity"].append(ways)
            parent = layout.parents[v]
            bone = way(x[t][parent], x[t][v], there(t, v) and there(t, parent))
            size = math.sqrt(sum(b * b for b in bone))
            most = 1 - 1e-6
            angles = [math.acos(min(max(b / size, -most), most)) for b in bone] if size else nothing
            out["bone"].append(bone + angles)
    return {
        name: torch.tensor(rows, dtype=torch.float64).view(*x_tvc.shape[:2], -1) for name, rows in out.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    channels=st.integers(1, 4),
    missing=st.sampled_from([0.0, 0.3, 0.9]),
    seed=st.integers(0, 999),
)
def test_they_are_the_loops(layout, lengths, channels, missing, seed):
    torch.manual_seed(seed)
    frames = max(lengths) + seed % 3
    x_ktvc = torch.randn(len(lengths), frames, 4, channels, dtype=torch.float64)
    x_ktvc *= torch.rand(len(lengths), frames, 4, 1) >= missing
    x_ktvc *= frame_mask(torch.tensor(lengths), frames)[:, :, None, None]
    found = BranchInputs(layout, NAMES)(x_ktvc)
    for body, length in enumerate(lengths):
        expected = slow(layout, x_ktvc[body], length)
        for name, derived in zip(NAMES, found, strict=True):
            torch.testing.assert_close(derived[body], expected[name], msg=name)


def test_only_what_is_named_is_derived_and_in_that_order():
    x_ktvc = torch.randn(2, 5, 4, 3)
    joint, velocity, bone = BranchInputs(LAYOUTS["root"], NAMES)(x_ktvc)
    assert joint.shape == velocity.shape == bone.shape == (2, 5, 4, 6)
    found = BranchInputs(LAYOUTS["root"], ("bone", "joint"))(x_ktvc)
    assert len(found) == 2
    assert torch.equal(found[0], bone)
    assert torch.equal(found[1], joint)


def test_a_root_that_a_view_put_at_the_origin_is_there():
    layout = LAYOUTS["root"]
    x_ktvc = torch.randn(1, 4, 4, 3)
    moved_ktvc = x_ktvc - x_ktvc[:, :, [layout.index("hip")]]
    inputs = BranchInputs(layout, ("joint", "bone"))
    for found, expected in zip(inputs(moved_ktvc), inputs(x_ktvc), strict=True):
        torch.testing.assert_close(found[..., 3:], expected[..., 3:])  # seen from the centre; angles
    assert inputs(moved_ktvc)[1][:, :, layout.index("shoulder")].all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_are_finite_on_bones_along_an_axis_and_without_length(dtype):
    x_ktvc = torch.zeros(1, 3, 4, 3, dtype=dtype)
    x_ktvc[0, 0, 0] = torch.tensor([0.0, 0.0, 2.0])  # one joint alone
    x_ktvc[0, 1] = 1.0  # all in one place
    x_ktvc[0, 2] = torch.tensor([[1.0, 3.0, 0.0], [1.0, 0.0, 0.0], [1.0, 2.0, 0.0], [1.0, 1.0, 0.0]])
    x_ktvc.requires_grad_()
    derived = torch.cat(BranchInputs(LAYOUTS["root"], NAMES)(x_ktvc), dim=3)
    derived.sum().backward()
    assert derived.isfinite().all()
    assert x_ktvc.grad.isfinite().all()
    bone, angles = derived[0, 2, 0, 12:15], derived[0, 2, 0, 15:]
    assert bone.tolist() == [0.0, 1.0, 0.0]
    torch.testing.assert_close(
        angles, torch.tensor([math.pi / 2, 0.0, math.pi / 2], dtype=dtype), atol=2e-3, rtol=0
    )
    assert not derived[0, :2, :, 12:].any()
