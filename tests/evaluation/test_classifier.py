import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import ENCODER, random_clips

from ssl_skeleton.data.views.view import ViewConfig
from ssl_skeleton.encoders.pooling import represent
from ssl_skeleton.encoders.st_gcn import STGCNConfig
from ssl_skeleton.evaluation.classifier import Classifier, layerwise, mix, mix_rows, set_rates
from ssl_skeleton.evaluation.features import Source
from ssl_skeleton.skeleton.layout import load_layout
from ssl_skeleton.training.schedule import AdamWConfig, SGDConfig

LAYOUT = load_layout("kinect_v1_20")
GCN = STGCNConfig(width=0.125, depth=0.25)  # three blocks
PLAIN = SGDConfig(lr=0.1, momentum=0.0, weight_decay=0.0)


def classifier(*configs, pooling="mean", classes=4) -> Classifier:
    torch.manual_seed(0)
    sources = [Source(config.build(LAYOUT, 3, 1), ViewConfig(), pooling) for config in configs]
    return Classifier(sources, classes)


def names(module: torch.nn.Module, parameters) -> set[str]:
    known = {id(parameter): name for name, parameter in module.named_parameters()}
    return {known[id(parameter)] for parameter in parameters}


@pytest.mark.parametrize("pooling", ["mean", "mean_max"])
def test_it_is_a_linear_layer_on_all_pooled_features(pooling):
    model = classifier(ENCODER, GCN, pooling=pooling).eval()
    views = [random_clips(LAYOUT, [5, 9, 2], seed=seed) for seed in (1, 2)]
    assert not model(views).any()  # it starts at zero
    torch.nn.init.normal_(model.layer.weight)
    torch.nn.init.normal_(model.layer.bias)
    rows = [
        represent(source.encoder, clips, pooling) for source, clips in zip(model.sources, views, strict=True)
    ]
    expected = torch.cat(rows, dim=1) @ model.layer.weight.T + model.layer.bias
    torch.testing.assert_close(model(views), expected)


def test_layers_of_a_gru():
    encoder = ENCODER.build(LAYOUT, 3, 1)
    found = [names(encoder, layer) for layer in encoder.layers()]
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    weights = [
        {f"gru.{kind}_l{layer}{way}" for kind in kinds for way in ("", "_reverse")} for layer in (0, 1)
    ]
    assert found == [{"norm.weight", "norm.bias"}, *weights]
    bare = ENCODER.model_copy(update={"input_norm": "none", "bidirectional": False}).build(LAYOUT, 3, 1)
    assert [len(layer) for layer in bare.layers()] == [4, 4]


def test_layers_of_a_graph_encoder():
    encoder = GCN.build(LAYOUT, 3, 1)
    before, *blocks = [names(encoder, layer) for layer in encoder.layers()]
    assert before == {"input_norm.weight", "input_norm.bias"}
    assert [{name.split(".")[1] for name in block} for block in blocks] == [{"0"}, {"1"}, {"2"}]


def test_every_layer_has_its_rate():
    model = classifier(ENCODER)
    optimiser = layerwise(model, PLAIN)
    set_rates(optimiser, 0.8, 0.5)
    rates = {group["lr"]: names(model, group["params"]) for group in optimiser.param_groups}
    gru = [name for name, _ in model.named_parameters() if ".gru." in name]
    assert rates == {
        0.8: {"layer.weight", "layer.bias"},
        0.4: {name for name in gru if "_l1" in name},
        0.2: {name for name in gru if "_l0" in name},
        0.1: {"encoders.0.norm.weight", "encoders.0.norm.bias"},
    }


def test_the_last_layers_of_several_encoders_are_equally_deep():
    model = classifier(ENCODER, GCN)  # three layers, four layers
    groups = [names(model, group["params"]) for group in layerwise(model, AdamWConfig()).param_groups]
    assert [{name[:10] for name in group} for group in groups[1:]] == [
        {"encoders.0", "encoders.1"},
        {"encoders.0", "encoders.1"},
        {"encoders.0", "encoders.1"},
        {"encoders.1"},
    ]
    assert {name for name in groups[1] if ".blocks." not in name} == {
        name for name, _ in model.named_parameters() if "_l1" in name
    }
    assert sorted(itertools.chain(*groups)) == sorted(name for name, _ in model.named_parameters())


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_a_step_moves_every_layer_by_its_rate(decay):
    model = classifier(GCN).double()
    torch.nn.init.normal_(model.layer.weight)
    optimiser = layerwise(model, PLAIN)
    set_rates(optimiser, 0.1, decay)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    clips = random_clips(LAYOUT, [6, 4])
    model([clips.with_x(clips.x.double())]).square().sum().backward()
    optimiser.step()
    depth = {"layer": 0, "blocks.2": 1, "blocks.1": 2, "blocks.0": 3, "input_norm": 4}
    for name, value in model.named_parameters():
        (place,) = (place for part, place in depth.items() if part in name.split("encoders.0.")[-1][:10])
        torch.testing.assert_close(value, before[name] - 0.1 * decay**place * value.grad, atol=0, rtol=1e-12)
        assert value.grad.any(), name


def mixed_by_loops(clips, shares, partners) -> tuple[torch.Tensor, list[int]]:
    """As the paper has it, share x_i + (1 - share) x_j, coordinate by coordinate of the valid frames."""
    x_nctvm, lengths = clips.x.double(), clips.lengths.tolist()
    out, longest = torch.zeros_like(x_nctvm), []
    for clip, (share, partner) in enumerate(zip(shares, partners, strict=True)):
        for frame in range(lengths[clip]):
            out[clip, :, frame] += share * x_nctvm[clip, :, frame]
        for frame in range(lengths[partner]):
            out[clip, :, frame] += (1 - share) * x_nctvm[partner, :, frame]
        longest.append(max(lengths[clip], lengths[partner]))
    return out, longest


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 999), st.integers(1, 2))
def test_mixing_against_loops(lengths, seed, bodies):
    clips = random_clips(LAYOUT, lengths, bodies=bodies, seed=seed)
    source = torch.Generator().manual_seed(seed)
    share_n = torch.rand(len(lengths), generator=source)
    partner_n = torch.randperm(len(lengths), generator=source)
    found = mix(clips, share_n, partner_n)
    x_nctvm, longest = mixed_by_loops(clips, share_n.tolist(), partner_n.tolist())
    torch.testing.assert_close(found.x.double(), x_nctvm, atol=1e-6, rtol=1e-5)
    assert found.lengths.tolist() == longest
    assert torch.equal(found.seen, clips.seen | clips.seen[partner_n])
    targets = torch.eye(len(lengths))
    expected = share_n[:, None] * targets + (1 - share_n)[:, None] * targets[partner_n]
    torch.testing.assert_close(mix_rows(targets, share_n, partner_n), expected)


def test_a_whole_share_mixes_nothing():
    clips = random_clips(LAYOUT, [3, 5, 4])
    order = torch.tensor([2, 0, 1])
    assert torch.equal(mix(clips, torch.ones(3), order).x, clips.x)
    assert torch.equal(mix(clips, torch.zeros(3), order).x, clips.x[order])
    torch.testing.assert_close(mix(clips, torch.rand(3), torch.arange(3)).x, clips.x)
