"""Which implementation of an operation runs."""

import os
from importlib.util import find_spec
from typing import Literal

from torch import Tensor

from ssl_skeleton.errors import UserError

Kernel = Literal["auto", "torch", "triton"]

_INSTALLED = find_spec("triton") is not None


def use_triton(kernel: Kernel, x: Tensor) -> bool:
    """Whether the Triton kernel takes this tensor: with `auto`, on a GPU where Triton is installed.

    Raises UserError when Triton is asked for by name and cannot run. On a CPU it runs in its interpreter
    (environment variable TRITON_INTERPRET=1, set before Triton is loaded), which is slow and made for tests.
    """
    if kernel != "triton":
        return kernel == "auto" and x.is_cuda and _INSTALLED
    if not _INSTALLED:
        raise UserError("kernel: triton is not installed; install ssl-skeleton[gpu], or choose 'torch'")
    if not x.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise UserError("kernel: triton needs a GPU, and the features are on the CPU; choose 'auto'")
    return True
