import subprocess
import sys

import pytest
import torch

from ssl_skeleton.errors import UserError
from ssl_skeleton.ops.kernel import use_triton

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # as if it were not installed
import torch
from ssl_skeleton.errors import UserError
from ssl_skeleton.ops.graph_shift import graph_shift, non_local_index
from ssl_skeleton.ops.temporal_shift import temporal_shift
x = torch.ones(1, 2, 3, 4)
assert graph_shift(x, non_local_index(3, 4)).equal(x)
assert temporal_shift(x, torch.zeros(4)).equal(x)
try:
    graph_shift(x, non_local_index(3, 4), kernel="triton")
except UserError as error:
    assert "ssl-skeleton[gpu]" in str(error)
else:
    sys.exit("no error")
"""

# A GPU is needed to run a kernel, but not to compile it.
COMPILED = """
import triton.language as tl
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ssl_skeleton.ops import graph_shift_triton as graph, temporal_shift_triton as temporal

TYPES = (
    dict.fromkeys(["x", "out", "grad", "grad_x"], "*bf16")
    | dict.fromkeys(["scale", "sums", "frames", "joints", "frame_sums", "joint_sums"], "*fp32")
    | dict.fromkeys(["index", "takers"], "*i64")
)

def build(kernel, **constants):
    constants["WIDE"] = tl.float32
    types = TYPES | dict.fromkeys(constants, "constexpr")
    signature = {name: types.get(name, "i32") for name in kernel.arg_names}
    built = compile(ASTSource(kernel, signature, constants), target=GPUTarget("cuda", 80, 32))
    assert built.metadata.shared <= 48 * 1024, (kernel, built.metadata.shared)  # every GPU has as much

for there in (False, True):
    build(graph._forward, SCALED=there, BV=32, BC=64)
    build(graph._backward, SCALED=there, BD=8, BV=32, BC=8)
    build(temporal._forward, STRIDE=2, ACROSS=there, BT=64, BC=64)
    build(temporal._backward, STRIDE=2, ACROSS=there, BT=64, BC=64)
"""


def run(code, monkeypatch, tmp_path):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr


def test_without_triton_the_reference_serves(monkeypatch, tmp_path):
    run(WITHOUT_TRITON, monkeypatch, tmp_path)


def test_the_kernels_compile_for_a_gpu(monkeypatch, tmp_path):
    pytest.importorskip("triton", reason="triton is not installed")
    run(COMPILED, monkeypatch, tmp_path)


def test_the_choice_follows_the_device(monkeypatch):
    x = torch.ones(1)
    assert not use_triton("auto", x)
    assert not use_triton("torch", x)
    pytest.importorskip("triton", reason="triton is not installed")
    assert use_triton("auto", torch.empty(1, device="meta")) is False
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(UserError, match="needs a GPU"):
        use_triton("triton", x)
    if torch.cuda.is_available():
        assert use_triton("auto", x.cuda())
