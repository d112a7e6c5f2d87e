from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ENCODER, random_clips

from ssl_skeleton.encoders.pooling import Pooling, pool, pooled_dim, represent, valid_steps
from ssl_skeleton.skeleton.layout import load_layout


def pooled_by_loops(features_ntd, steps, pooling) -> list[list[float]]:
    rows = []
    for clip, valid in zip(features_ntd.tolist(), steps, strict=True):
        columns = list(zip(*clip[:valid], strict=True))
        found = {
            "mean": [sum(column) / valid for column in columns],
            "max": [max(column) for column in columns],
            "last": [column[-1] for column in columns],
        }
        rows.append([number for part in pooling.split("_") for number in found[part]])
    return rows


@pytest.mark.parametrize("pooling", get_args(Pooling))
@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_pooling_sees_valid_steps_alone(pooling, steps, seed):
    source = torch.Generator().manual_seed(seed)
    features_ntd = torch.randn(len(steps), 6, 3, generator=source, dtype=torch.float64) - 5
    found = pool(features_ntd, torch.tensor(steps), pooling)
    expected = torch.tensor(pooled_by_loops(features_ntd, steps, pooling), dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert found.shape[1] == pooled_dim(3, pooling)


@given(data=st.data(), frames=st.integers(1, 300))
def test_a_step_is_valid_when_it_sees_a_valid_frame(data, frames):
    steps = data.draw(st.integers(1, frames))
    length = data.draw(st.integers(1, frames))
    expected = sum(1 for step in range(steps) if step * frames < length * steps)
    assert valid_steps(torch.tensor([length]), frames, steps).tolist() == [expected]


def test_represent_encodes_and_pools():
    layout = load_layout("kinect_v1_20")
    encoder, clips = ENCODER.build(layout, 3, 1).eval(), random_clips(layout, [3, 7])
    features_ntd = encoder(clips.x, clips.lengths)
    expected = torch.tensor(pooled_by_loops(features_ntd, [3, 7], "mean_max"))
    torch.testing.assert_close(represent(encoder, clips, "mean_max"), expected)
