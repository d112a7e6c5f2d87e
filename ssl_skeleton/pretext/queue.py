"""The queue of MoCo: keys of earlier batches, first in, first out."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ssl_skeleton import ranks


class KeyQueue(nn.Module):
    """`size` unit vectors of `dim`, random at first; part of the state, so that a resumed run goes on."""

    keys_kd: Tensor
    oldest: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys_kd", functional.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("oldest", torch.zeros((), dtype=torch.int64))
        self._noted: list[tuple[Tensor, Tensor]] = []

    def note(self, keys_nd: Tensor) -> None:
        """Remember the keys (N, D) of this rank's clips until `push_noted`."""
        if len(self.keys_kd):
            places_n = torch.tensor(ranks.places(len(keys_nd)), device=keys_nd.device)
            self._noted.append((places_n, keys_nd.detach()))

    def push_noted(self) -> None:
        """Push the keys of the global batch, noted since the last time, on all ranks.

        They go in the order of the batch: so the queue is the same on every rank, for any number of ranks.
        """
        if self._noted:
            places, keys = zip(*self._noted, strict=True)
            order_n = ranks.gather_rows(torch.cat(places)).argsort()
            self.push(ranks.gather_rows(torch.cat(keys))[order_n])
            self._noted.clear()

    @torch.no_grad()
    def push(self, keys_nd: Tensor) -> None:
        """Replace the oldest keys by `keys_nd` (N, D); of more than fit, the last are kept."""
        size = len(self.keys_kd)
        slots = (self.oldest + torch.arange(len(keys_nd), device=keys_nd.device)) % size
        kept = slice(max(0, len(keys_nd) - size), None)
        self.keys_kd[slots[kept]] = keys_nd[kept].to(self.keys_kd.dtype)
        self.oldest.copy_((self.oldest + len(keys_nd)) % size)
