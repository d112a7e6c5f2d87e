from importlib.util import find_spec

import pytest
import torch


@pytest.fixture(scope="module", params=["torch", "triton"])
def kernel(request):
    if request.param == "triton" and find_spec("triton") is None:
        pytest.skip("triton is not installed")
    return request.param


@pytest.fixture(scope="module")
def device(kernel):
    return torch.device("cuda" if kernel == "triton" and torch.cuda.is_available() else "cpu")
