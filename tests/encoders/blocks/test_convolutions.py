import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.encoders.blocks.graph_convolution import GraphConvolution
from ssl_skeleton.encoders.blocks.shortcut import Shortcut
from ssl_skeleton.encoders.blocks.temporal_convolution import DepthwiseConvolution, TemporalConvolution


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@given(
    sizes=st.tuples(*[st.integers(1, 4)] * 5),
    outputs=st.sampled_from([1, 3, 2000]),  # few and many numbers a frame are computed in two ways
    seed=st.integers(0, 99),
)
@settings(max_examples=20, deadline=None)
def test_graph_convolution_mixes_joints_then_channels(own, sizes, outputs, seed):
    bodies, frames, joints, inputs, parts = sizes
    torch.manual_seed(seed)
    layer = GraphConvolution(inputs, outputs, parts).double()
    x_ktvc = torch.randn(bodies, frames, joints, inputs, dtype=torch.float64)
    graphs_pkvv = torch.randn(parts, bodies if own else 1, joints, joints, dtype=torch.float64)
    expected = torch.einsum(
        "pkwv,ktvc,pcd->ktwd", graphs_pkvv.expand(-1, bodies, -1, -1), x_ktvc, layer.weight_pcd
    )
    found = layer(x_ktvc, graphs_pkvv if own else graphs_pkvv[:, 0])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(9, 1, 1), (9, 2, 1), (3, 3, 2), (1, 2, 1)])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_temporal_convolution_is_a_sum_over_frames(kernel, stride, dilation, frames):
    layer = TemporalConvolution(3, 2, kernel, stride, dilation).double()
    weight_dck = layer.convolution.weight[..., 0]
    x_ktvc = torch.randn(2, frames, 4, 3, dtype=torch.float64)
    steps = []
    for middle in range(0, frames, stride):
        step_kvd = torch.zeros(2, 4, 2, dtype=torch.float64)
        for tap in range(kernel):
            frame = middle + (tap - kernel // 2) * dilation
            if 0 <= frame < frames:
                step_kvd += x_ktvc[:, frame] @ weight_dck[:, :, tap].T
        steps.append(step_kvd)
    found = layer(x_ktvc)
    torch.testing.assert_close(found, torch.stack(steps, dim=1))
    assert found.is_contiguous()


@pytest.mark.parametrize(("kernel", "stride"), [(5, 1), (5, 2), (3, 3), (1, 2)])
@pytest.mark.parametrize("frames", [1, 2, 7])
def test_depthwise_convolution_is_a_sum_over_frames(kernel, stride, frames):
    layer = DepthwiseConvolution(3, kernel, stride).double()
    weight_ck = layer.convolution.weight[:, 0, :, 0]
    x_ktvc = torch.randn(2, frames, 4, 3, dtype=torch.float64)
    steps = []
    for middle in range(0, frames, stride):
        around = range(middle - kernel // 2, middle + kernel // 2 + 1)
        taps = [(tap, frame) for tap, frame in enumerate(around) if 0 <= frame < frames]
        steps.append(sum(x_ktvc[:, frame] * weight_ck[:, tap] for tap, frame in taps))
    found = layer(x_ktvc)
    torch.testing.assert_close(found, torch.stack(steps, dim=1))
    assert found.is_contiguous()


def test_a_shortcut_is_the_input_where_it_can_be():
    x_ktvc = torch.randn(2, 5, 4, 8)
    assert Shortcut(8, 8)(x_ktvc, None) is x_ktvc
    assert Shortcut(8, 4)(x_ktvc, None).shape == (2, 5, 4, 4)
    assert Shortcut(8, 8, stride=2)(x_ktvc, None).shape == (2, 3, 4, 8)
