"""Every random draw comes from a generator seeded by what it is for, so that order never matters."""

import hashlib

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A seed of 63 bits from the run's `seed` and a purpose such as ("contrast", epoch, step, "input")."""
    digest = hashlib.blake2b(repr((seed, *purpose)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))
