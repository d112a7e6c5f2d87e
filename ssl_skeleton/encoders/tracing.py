"""What encoders do for graphs that are compiled or exported for any number of frames."""

import torch
from torch import Tensor
from torch.nn import functional


def exporting() -> bool:
    """Whether `torch.export` looks on, and not torch.compile."""
    return torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()


def padded(x_nctvm: Tensor, multiple: int) -> Tensor:
    """In such a graph, clips with frames added to their end until T is a multiple; else as they are.

    The T' of a strided convolution and that of a slice come from different expressions of T, which are known
    to be equal only where the strides divide it. An exported graph also has to know that T' is never 1, nor
    T' - 1, which it would treat differently, so there are three multiples at least.
    """
    if not torch.compiler.is_compiling():
        return x_nctvm
    frames = x_nctvm.shape[2]
    steps = (frames + multiple - 1) // multiple
    if exporting():
        # The same, or three. In this form torch knows that it is more than two, as it does not of a maximum.
        beyond_two = torch.sym_max(frames - 2 * multiple, 1)  # type: ignore[no-untyped-call]
        steps = 2 + (beyond_two + multiple - 1) // multiple
    return functional.pad(x_nctvm, (0, 0, 0, 0, 0, steps * multiple - frames))
