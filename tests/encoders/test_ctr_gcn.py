import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_is_textbook, random_clips
from torch.nn import functional

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders.ctr_gcn import CTRGCNConfig, RefinedTopology
from ssl_skeleton.skeleton.layout import load_layout

LAYOUT = load_layout("kinect_v2_25")
TINY = {"width": 0.125, "depth": 0.25}


def moved(encoder):
    """The same encoder, norms and alphas away from where they start."""
    for name, parameter in encoder.named_parameters():
        if "norm" in name or "alpha" in name or "bias" in name:
            parameter.data.uniform_(0.5, 1.5)
    return encoder


def norm(layer, x_nctv, part=slice(None)):
    return functional.batch_norm(x_nctv, None, None, layer.weight[part], layer.bias[part], training=True)


def convolve(x_nctv, weight_dc, bias_d=None, stride=1):
    return functional.conv2d(x_nctv, weight_dc[..., None, None], bias_d, stride=(stride, 1))


def shortcut(layer, x_nctv):
    if layer.pointwise is None:
        return x_nctv
    return norm(layer.norm, convolve(x_nctv, layer.pointwise.weight, stride=layer.stride))


def spatial(layer, x_nctv):
    """Partition by partition: reduce all frames, compare their means, refine the topology, aggregate."""
    topology, total = layer.topology, 0
    parts = len(topology.shared_pvv)
    weight_sprc = topology.reduce.weight.view(2, parts, -1, x_nctv.shape[1])
    bias_spr = topology.reduce.bias.view(2, parts, -1)
    for part in range(parts):
        hearing_nrv = convolve(x_nctv, weight_sprc[0, part], bias_spr[0, part]).mean(dim=2)
        heard_nrv = convolve(x_nctv, weight_sprc[1, part], bias_spr[1, part]).mean(dim=2)
        relations_nruv = torch.tanh(hearing_nrv[..., :, None] - heard_nrv[..., None, :])
        refined_ncuv = convolve(relations_nruv, topology.weight_dpr[:, part], topology.bias_dp[:, part])
        graph_ncuv = topology.shared_pvv[part] + topology.alpha * refined_ncuv
        features_nctv = convolve(x_nctv, layer.transform.weight[part::parts])
        total = total + torch.einsum("ncuv,nctv->nctu", graph_ncuv, features_nctv)
    return functional.relu(norm(layer.norm, total) + shortcut(layer.shortcut, x_nctv))


def temporal(layer, x_nctv):
    """Branch by branch."""
    quarter, branches = x_nctv.shape[1] // 4, []
    first, second, third, fourth = (slice(q * quarter, (q + 1) * quarter) for q in range(4))
    for part, dilation, convolution in ((first, 1, layer.near), (second, 2, layer.far), (third, 1, None)):
        y = functional.relu(norm(layer.reduced_norm, convolve(x_nctv, layer.reduce.weight[part]), part))
        if convolution is None:
            y = functional.max_pool2d(y, (3, 1), (layer.stride, 1), (1, 0))
        else:
            weight, padding = convolution.convolution.weight, (2 * dilation, 0)
            y = functional.conv2d(y, weight, None, (layer.stride, 1), padding, (dilation, 1))
        branches.append(norm(layer.norm, y, part))
    y = convolve(x_nctv, layer.pointwise.weight, stride=layer.stride)
    return torch.cat([*branches, norm(layer.norm, y, fourth)], dim=1)


def textbook(encoder, x_nctvm):
    """CTR-GCN in training as it is usually written, (N M, C, T, V), with an encoder's weights."""
    clips, channels, frames, joints, bodies = x_nctvm.shape
    x = x_nctvm.permute(0, 4, 3, 1, 2).reshape(clips * bodies, joints * channels, frames)
    x = norm(encoder.input_norm, x).view(-1, joints, channels, frames).permute(0, 2, 3, 1).contiguous()
    for block in encoder.blocks:
        y = temporal(block.temporal, spatial(block.spatial, x))
        x = functional.relu(y if block.shortcut is None else y + shortcut(block.shortcut, x))
    return x.mean(dim=3).unflatten(0, (clips, bodies)).mean(dim=1).transpose(1, 2)


@pytest.mark.parametrize(
    "options",
    [{}, {"partition": "distance", "reduction": 2, "depth": 0.25}, {"partition": "uniform", "depth": 0.25}],
    ids=["published", "distance", "uniform"],
)
def test_it_is_the_textbook_form(options):
    torch.manual_seed(0)
    encoder = moved(CTRGCNConfig(width=0.125, **options).build(LAYOUT, 3, 2).double())
    assert_is_textbook(encoder, textbook, LAYOUT)


@given(sizes=st.tuples(*[st.integers(1, 4)] * 7), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_graph_is_the_shared_one_and_what_joints_have_in_common(sizes, seed):
    bodies, frames, joints, inputs, outputs, relations, parts = sizes
    torch.manual_seed(seed)
    topology = RefinedTopology(inputs, outputs, relations, torch.rand(parts, joints, joints)).double()
    moved(topology)
    x_ktvc = torch.randn(bodies, frames, joints, inputs, dtype=torch.float64)
    found = topology(x_ktvc, None)
    hearing_kvpr, heard_kvpr = (
        topology.reduce(x_ktvc).mean(dim=1).view(bodies, joints, 2, parts, -1).unbind(2)
    )
    assert found.shape == (bodies, outputs, parts, joints, joints)
    for v in range(joints):
        for w in range(joints):
            relations_kpr = torch.tanh(hearing_kvpr[:, w] - heard_kvpr[:, v])
            refined_kdp = (relations_kpr[:, None] * topology.weight_dpr).sum(dim=-1) + topology.bias_dp
            expected_kdp = topology.shared_pvv[:, w, v] + topology.alpha * refined_kdp
            torch.testing.assert_close(found[..., v, w], expected_kdp)


@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_a_body_s_graphs_know_its_valid_frames_alone(lengths, seed):
    torch.manual_seed(seed)
    topology = moved(RefinedTopology(3, 4, 2, torch.rand(3, 5, 5)).double())
    frames = max(lengths) + 1
    mask_kt = frame_mask(torch.tensor([*lengths, 0]), frames)  # the last is a body that is not there
    x_ktvc = torch.randn(len(mask_kt), frames, 5, 3, dtype=torch.float64) * mask_kt[:, :, None, None]
    found = topology(x_ktvc, mask_kt)
    assert found.isfinite().all()
    for body, length in enumerate(lengths):
        torch.testing.assert_close(found[body], topology(x_ktvc[body : body + 1, :length], None)[0])


def test_at_the_start_there_is_the_body_s_graph_alone():
    encoder = CTRGCNConfig(**TINY).build(LAYOUT, 3, 2)
    x_ktvc = torch.randn(2, 5, 25, 8)
    spatial_part = encoder.blocks[1].spatial
    graphs_kdpvw = spatial_part.topology(x_ktvc, None)
    torch.testing.assert_close(
        graphs_kdpvw, spatial_part.topology.shared_pvv.mT.expand(graphs_kdpvw.shape), atol=0, rtol=0
    )
    expected = functional.relu(spatial_part.shortcut(x_ktvc, None))
    torch.testing.assert_close(spatial_part(x_ktvc, None), expected, atol=1e-4, rtol=0)


def test_the_start_is_no_dead_end():
    """Scales that start at zero or nearly so keep no parameter from learning."""
    torch.manual_seed(0)
    encoder = CTRGCNConfig(**TINY).build(LAYOUT, 3, 2).double()
    start = {name: parameter.detach().clone() for name, parameter in encoder.named_parameters()}
    clips = random_clips(LAYOUT, [9, 6], bodies=2)
    weights = torch.randn(2, 9, encoder.dim, dtype=torch.float64)
    optimiser = torch.optim.SGD(encoder.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (encoder(clips.x.double(), clips.lengths) * weights).mean().backward()
        optimiser.step()
    for name, parameter in encoder.named_parameters():
        assert not torch.equal(parameter, start[name]), name


@pytest.mark.parametrize(("width", "dim"), [(1, 256), (0.25, 64)])
def test_sizes_as_published(width, dim):
    encoder = CTRGCNConfig(width=width).build(LAYOUT, 3, 2)
    assert [block.size.outputs for block in encoder.blocks] == [dim // 4] * 4 + [dim // 2] * 3 + [dim] * 3
    assert encoder.strides == [1, 1, 1, 1, 2, 1, 1, 2, 1, 1]
    assert [block.shortcut is None for block in encoder.blocks] == [True] + [False] * 9
    relations = [block.spatial.topology.weight_dpr.shape[2] for block in encoder.blocks]
    assert relations == [8] + [dim // 32] * 4 + [dim // 16] * 3 + [dim // 8] * 2


def test_as_many_parameters_as_published():
    """1.46 million with the classifier of NTU RGB+D 120; of those, biases before norms are left out here."""
    encoder = CTRGCNConfig().build(LAYOUT, 3, 2)
    count = sum(parameter.numel() for parameter in encoder.parameters()) + 120 * (encoder.dim + 1)
    assert count == pytest.approx(1.46e6, rel=0.01)


@pytest.mark.parametrize("lengths", [(9, 9), (9, 6)], ids=["full", "padded"])
def test_it_computes_in_bfloat16_where_autocast_asks(lengths):
    torch.manual_seed(0)
    encoder = moved(CTRGCNConfig(**TINY).build(LAYOUT, 3, 2))
    clips = random_clips(LAYOUT, lengths, bodies=2)
    exact = encoder(clips.x, clips.lengths)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(clips.x, clips.lengths)
    assert found.dtype == torch.bfloat16
    assert 0 < (found.float() - exact).norm() / exact.norm() < 0.05
    found.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in encoder.parameters())


def block_and_inputs(lengths):
    """The second block, whose stride is 2, and features of bodies; where the length is 0 there is nobody."""
    torch.manual_seed(0)
    block = moved(CTRGCNConfig(**TINY).build(LAYOUT, 3, 2)).blocks[1]
    mask_kt = frame_mask(torch.tensor(lengths), max(lengths))
    return block, (torch.randn(len(lengths), max(lengths), 25, 8) * mask_kt[:, :, None, None], mask_kt)


def test_an_exported_block_takes_any_number_of_bodies_and_frames():
    block, inputs = block_and_inputs([10, 3, 0])
    block.eval()
    free = {0: torch.export.Dim("bodies"), 1: 2 * torch.export.Dim("steps")}
    exported = torch.export.export(block, inputs, dynamic_shapes=(free, free)).module()
    for lengths in ([10, 3, 0], [12, 1, 7, 0], [40, 40]):
        _, some = block_and_inputs(lengths)
        torch.testing.assert_close(exported(*some), block(*some), atol=1e-5, rtol=1e-4)


def test_a_compiled_block_trains_alike():
    block, (x_ktvc, mask_kt) = block_and_inputs([9, 6, 0])
    found = torch.compile(block, fullgraph=True, backend="aot_eager")(x_ktvc, mask_kt)
    expected = block(x_ktvc, mask_kt)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    weights, wanted = torch.randn_like(expected), list(block.parameters())
    torch.testing.assert_close(
        torch.autograd.grad((found * weights).sum(), wanted),
        torch.autograd.grad((expected * weights).sum(), wanted),
        atol=1e-3,
        rtol=1e-3,
    )
