"""Encoders as graphs: compiled by torch.compile, or exported to ONNX for any number of clips and frames."""

import copy
import os
import shutil

import pytest
import torch
from contracts.test_encoders import LAYOUT, TREES, some_absent, trained
from onnxruntime import InferenceSession, SessionOptions
from pydantic import TypeAdapter
from tiny import listed, random_clips
from torch.export import Dim

from ssl_skeleton.data.clips import frame_mask
from ssl_skeleton.encoders import AnyEncoder
from ssl_skeleton.encoders.blocks.dropout import Dropout
from ssl_skeleton.encoders.inserts import AnyInsert

# Whether torch.compile makes one graph of an encoder. All of them can be exported to ONNX.
ONE_GRAPH = {
    "gru": False,  # torch.compile leaves recurrent layers to the kernels that a library has for them
    "st_gcn": True,
    "agcn": True,
    "ctr_gcn": True,
    "shift_gcn": True,
    "efficient_gcn": True,
    "two_rate": True,
}
INSERTS = tuple({"name": config.model_fields["name"].default, "blocks": (2,)} for config in listed(AnyInsert))
USUAL = {name: TREES[name] for name in ONE_GRAPH} | {
    "efficient_gcn": TREES["efficient_gcn"] | {"branches": ("bone",)},  # a third of the graph
    "inserts": TREES["st_gcn"] | {"inserts": INSERTS},
}
DEEP = bool(os.environ.get("SSL_SKELETON_DEEP"))
CONFIGS = {
    name: TypeAdapter(AnyEncoder).validate_python(tree)
    for name, tree in (USUAL | TREES if DEEP else USUAL).items()
}
every_encoder = pytest.mark.parametrize("config", list(CONFIGS.values()), ids=CONFIGS)
EXPORTED = {name: config for name, config in CONFIGS.items() if DEEP or name != "st_gcn"}  # others hold it
every_exported = pytest.mark.parametrize("config", list(EXPORTED.values()), ids=EXPORTED)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*Tensor.masked_scatter:UserWarning",  # in the GRU, behind the end of its first graph
    "ignore:.*torch.jit.script_method:DeprecationWarning",
    "ignore:.*treespec, LeafSpec:FutureWarning",
    "ignore:.*axis name. clips will not be used:UserWarning",  # of `lengths`: it has that name already
)


@pytest.fixture(autouse=True)
def forget_graphs():
    torch.compiler.reset()


def settled(config):
    """A trained encoder whose training draws nothing at random."""
    encoder = trained(config, LAYOUT, 2)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.GRU):
            module.dropout = 0.0
    return encoder


def batch(lengths, seed=0):
    """Clips that lack some bodies, with garbage in their padding; and their lengths."""
    clips = some_absent(random_clips(LAYOUT, lengths, bodies=2, seed=seed))
    valid_nt = frame_mask(clips.lengths, max(lengths))
    return torch.where(valid_nt[:, None, :, None, None], clips.x, torch.nan), clips.lengths


def assert_features_alike(compiled, encoder, *, one_graph=True):
    """Both give the same features; other lengths make no other graph."""
    with torch.no_grad():
        assert_close(compiled(*batch([13, 5, 1])), encoder(*batch([13, 5, 1])))
        with torch._dynamo.config.patch(error_on_recompile=one_graph):
            assert_close(compiled(*batch([2, 13, 13], 1)), encoder(*batch([2, 13, 13], 1)))


def assert_trains_alike(compiled, encoder):
    """Both give the same features in training, the same gradients and the same statistics."""
    compiled.double().train()  # since single precision may put a feature on the other side of a ReLU
    encoder.double().train()
    for seed in (2, 3):
        x_nctvm, lengths_n = batch([13, 5, 1], seed)
        found_ntd, expected_ntd = (one(x_nctvm.double(), lengths_n) for one in (compiled, encoder))
        weights_ntd = torch.randn_like(expected_ntd)
        (found_ntd * weights_ntd).sum().backward()
        (expected_ntd * weights_ntd).sum().backward()
        torch.testing.assert_close(found_ntd, expected_ntd)
    for found, (name, expected) in zip(compiled.parameters(), encoder.named_parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, msg=lambda text, name=name: f"{name}: {text}")
    torch.testing.assert_close(list(compiled.buffers()), list(encoder.buffers()))


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def test_the_table_names_every_encoder():
    assert ONE_GRAPH.keys() == {config.model_fields["name"].default for config in listed(AnyEncoder)}


@every_encoder
def test_it_compiles(config):
    encoder, one_graph = settled(config), ONE_GRAPH[config.name]
    backend = "aot_eager" if DEEP else "eager"
    compiled = torch.compile(copy.deepcopy(encoder), backend=backend, fullgraph=one_graph)
    assert_features_alike(compiled, encoder, one_graph=one_graph)
    assert_trains_alike(compiled, encoder)


@pytest.mark.skipif(shutil.which("c++") is None, reason="there is no C++ compiler")
def test_it_compiles_to_machine_code():
    encoder = settled(CONFIGS["st_gcn"])
    compiled = torch.compile(copy.deepcopy(encoder), fullgraph=True)
    assert_features_alike(compiled, encoder)
    if DEEP:
        assert_trains_alike(compiled, encoder)


def test_dropout_compiles():
    torch.manual_seed(0)
    dropped = torch.compile(Dropout(0.3), backend="aot_eager", fullgraph=True)(torch.ones(10_000))
    assert set(dropped.tolist()) == {0.0, float(torch.tensor(1 / 0.7))}
    assert float(dropped.mean()) == pytest.approx(1, abs=0.05)


def exported(encoder) -> torch.onnx.ONNXProgram:
    clips, frames = Dim("clips"), Dim("frames")
    return torch.onnx.export(
        encoder,
        batch([13, 5, 1]),
        dynamic_shapes={"x_nctvm": {0: clips, 2: frames}, "lengths": {0: clips}},
        dynamo=True,
        opset_version=18,
        verbose=False,
    )


def session_of(program) -> InferenceSession:
    options = SessionOptions()
    options.intra_op_num_threads = 1
    return InferenceSession(program.model_proto.SerializeToString(), options)


@every_exported
@torch.no_grad()
def test_it_can_be_exported(config):
    encoder = trained(config, LAYOUT, 2)
    program = exported(encoder)
    assert_close(program.exported_program.module()(*batch([2])), encoder(*batch([2])))  # torch's own format
    session = session_of(program)
    assert [node.shape for node in session.get_inputs()] == [["clips", 3, "frames", 25, 2], ["clips"]]
    assert [node.shape for node in session.get_outputs()] == [["clips", "frames", encoder.dim]]
    for seed, lengths in enumerate(
        ([13, 5, 1], [1], [1, 1, 1, 1], [2], [3, 2], [4], [15, 16, 17], [1, 33], [300, 299])
    ):
        x_nctvm, lengths_n = batch(lengths, seed)
        x_nctvm[:, :, 0] *= seed % 2  # clips may begin with nobody, and be nobody's
        (found,) = session.run(None, {"x_nctvm": x_nctvm.numpy(), "lengths": lengths_n.numpy()})
        assert_close(torch.from_numpy(found), encoder(x_nctvm, lengths_n))
