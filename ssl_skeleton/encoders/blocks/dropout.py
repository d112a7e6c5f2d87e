"""Dropout that gives a clip the same draws in any batch, and does not outweigh the convolutions beside it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property

import torch
from torch import Generator, Tensor, nn

from ssl_skeleton import ranks
from ssl_skeleton.ops.kernel import use_triton

_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by size in bytes
_ODD = 0x9E3779B97F4A7C15  # times places, numbers far apart (the golden ratio; Knuth, TAOCP 3, 6.4)


class _Scope:
    """Where the seeds of calls come from; and the bodies that dropout meets, bool (N, M), if not clips."""

    def __init__(self, calls: Generator | None = None, taken_nm: Tensor | None = None) -> None:
        self.calls, self.taken_nm = calls, taken_nm

    def seeds(self, rows: int, device: torch.device) -> Tensor:
        """The seeds of one call, int64 (K,), for K = `rows`; each row has its own."""
        call = int(torch.empty((), dtype=torch.int64).random_(generator=self.calls))
        place_k = self._bodies
        if place_k is None:
            held = ranks.places(rows)
            place_k = torch.arange(held.start, held.stop, held.step, device=device)
        if len(place_k) != rows:
            raise ValueError(f"{rows} rows of features, but {len(place_k)} clips or bodies to drop them for")
        return place_k * (_ODD - 2**64) + call  # modulo 2^64, as integers are

    @cached_property
    def _bodies(self) -> Tensor | None:
        """The places of the bodies among all that the clips of the global batch could have."""
        if self.taken_nm is None:
            return None
        clips, most = self.taken_nm.shape
        held = ranks.places(clips)
        clip_k, body_k = self.taken_nm.nonzero(as_tuple=True)
        return (held.start + held.step * clip_k) * most + body_k


_scopes = [_Scope()]


@contextmanager
def seeded(seed: int, places: range) -> Iterator[None]:
    """Within it, all draws come from `seed`, for the clips at these places of a global batch.

    So parts of a batch, one after another or on several ranks, meet what the whole batch meets. What draws
    by itself, as a compiled graph does, draws something else for every part.
    """
    torch.manual_seed(seed + places.start)
    with ranks.holding(places), _within(_Scope(torch.Generator().manual_seed(seed))):
        yield


def dropout_of(taken_nm: Tensor) -> AbstractContextManager[None]:
    """Within it, features (K, ...) are of the K bodies of clips, bool (N, M), and not of clips (N, ...)."""
    if torch.compiler.is_compiling():  # which draws by itself
        return nullcontext()
    return _within(_Scope(_scopes[-1].calls, taken_nm))


@contextmanager
def _within(scope: _Scope) -> Iterator[None]:
    _scopes.append(scope)
    try:
        yield
    finally:
        _scopes.pop()


class Dropout(nn.Dropout):
    """Dropout (Srivastava et al., JMLR 2014) of features (N, ...) of clips, or (K, ...) of their bodies.

    Every clip, and every body of a clip, has draws of its own. So they depend neither on the others nor on
    how far they are padded, and a batch meets the same draws on one rank as on many. A compiled graph draws
    by itself, and so does a GPU without Triton; and a CPU draws other numbers than a GPU.

    Torch draws its mask on a CPU one number at a time, which takes longer than a temporal convolution,
    forward and backward together. Here one draw of 64 bits is cut into integers of the features' size. Those
    below a threshold become the bits of 0, others the bits of 1 / (1 - p), and are then read as features:
    nothing is converted. With features of 16 bits the share is exact to 1 / 65536.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Features of any shape; in training a share `p` of them is zero, the rest times 1 / (1 - p)."""
        if not self.training or self.p in (0, 1) or torch.compiler.is_compiling():
            return super().forward(x)
        rows = len(x) if x.ndim else 1
        if use_triton("auto", x):
            from ssl_skeleton.ops.dropout_triton import dropped  # noqa: PLC0415 (loads Triton)

            return dropped(x, _scopes[-1].seeds(rows, x.device), self.p)
        if x.device.type != "cpu":
            return super().forward(x)
        integers = _INTEGERS[x.element_size()]
        numbers = x.numel() // max(rows, 1)
        draws_kd = _draws(rows, -(-numbers * x.element_size() // 8)).view(integers)[:, :numbers]
        range_ = torch.iinfo(integers)
        threshold = min(range_.min + round(self.p * 2**range_.bits), range_.max)
        kept_bits = torch.tensor(1 / (1 - self.p), dtype=x.dtype).view(integers)
        mask_kd = draws_kd.ge_(threshold).mul_(kept_bits).view(x.dtype)
        return x * mask_kd.view(x.shape)


def _draws(rows: int, size: int) -> Tensor:
    """Random 64-bit integers (K, `size`) for K = `rows`, each row by a generator of its own."""
    seeds_k = _scopes[-1].seeds(rows, torch.device("cpu")) >> 32  # torch takes no more bits than these
    generator, draws_kd = torch.Generator(), torch.empty(rows, size, dtype=torch.int64)
    for seed, draws_d in zip(seeds_k.tolist(), draws_kd, strict=True):
        generator.manual_seed(seed % 2**32)
        draws_d.random_(torch.iinfo(torch.int64).min, None, generator=generator)  # all 64 bits
    return draws_kd
