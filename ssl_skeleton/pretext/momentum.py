"""The momentum twin: a copy that follows slowly and is never trained (He et al., arXiv 1911.05722)."""

import copy
from typing import TypeVar

import torch
from torch import nn

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def momentum_twin(module: ModuleT) -> ModuleT:
    """A copy of `module` whose parameters take no gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(twin: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move each parameter of `twin` towards `module`: twin = momentum * twin + (1 - momentum) * module.

    Buffers (BatchNorm statistics) stay the twin's own, since it sees another stream.
    """
    torch._foreach_lerp_([*twin.parameters()], [*module.parameters()], 1 - momentum)
