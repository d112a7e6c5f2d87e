import os
from importlib.util import find_spec

import pytest
import torch

# Before anything loads Triton: without a GPU, its kernels run in the interpreter, on the CPU.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="module", params=["torch", "triton"])
def kernel(request):
    if request.param == "triton" and find_spec("triton") is None:
        pytest.skip("triton is not installed")
    return request.param


@pytest.fixture(scope="module")
def device(kernel):
    return torch.device("cuda" if kernel == "triton" and torch.cuda.is_available() else "cpu")
