"""One process of several that train together: torchrun starts them, each is a rank.

Nothing else touches torch.distributed. Without torchrun there is one rank, and everything here does nothing.
"""

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed.rendezvous import rendezvous

from ssl_skeleton.errors import UserError

_JOINING = timedelta(minutes=10)  # how long a rank waits for others to start
_SILENCE = timedelta(hours=2)  # how long others may work alone; who dies is missed at once
_PATIENCE = 3.0  # seconds in which other ranks meet an error that all of them meet
_GONE = "a rank is gone, and the others cannot go on without it; go on with --resume"

Item = TypeVar("Item")
Result = TypeVar("Result")


class RankLost(UserError):
    """Another rank is gone, or does not answer."""

    def __init__(self) -> None:
        super().__init__(_GONE)


@dataclass(frozen=True)
class _Rank:
    rank: int = 0
    ranks: int = 1
    store: Any = None  # where ranks tell each other what they met; a dist.Store
    works: Iterator[int] = field(default_factory=itertools.count)  # of the main rank alone, counted by all


_stands = [_Rank()]  # the last is where this process stands
_held: list[range] = []  # the last are the clips at hand


def world_size() -> int:
    """How many ranks there are."""
    return _stands[-1].ranks


def rank() -> int:
    """The number of this rank, from 0."""
    return _stands[-1].rank


def is_main() -> bool:
    """Whether this is rank 0, the one that writes files and speaks."""
    return rank() == 0


def share(count: int) -> slice:
    """This rank's part of the `count` rows of a global batch: rank by rank, one after another.

    Where there are fewer rows than ranks, every rank takes all of them (`sharing`).
    """
    place = _stands[-1]
    if count < place.ranks:
        return slice(0, count)
    return slice(place.rank * count // place.ranks, (place.rank + 1) * count // place.ranks)


def sharing(count: int) -> AbstractContextManager[None]:
    """Work on a global batch of `count` rows, of which this rank has its `share`.

    No rank goes without rows: where there are fewer rows than ranks, all compute the same, each `alone`.
    """
    return alone() if count < world_size() else nullcontext()


def alone() -> AbstractContextManager[None]:
    """Work of this rank without the others, who may be doing something else: as if it were the only one."""
    return _with_last(_stands, _Rank())


def holding(places: range) -> AbstractContextManager[None]:
    """Within it, the clips at hand are those at these places of the global batch."""
    return _with_last(_held, places)


def places(clips: int) -> range:
    """The places of the clips at hand in the global batch; of a batch by itself, from 0 on."""
    return _held[-1] if _held else range(clips)


@contextmanager
def started() -> Iterator[None]:
    """Where torchrun started several ranks, let each know its number, and meet the others at their store."""
    with _meeting():
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1 or _stands[-1].store is not None:
        yield
        return
    with _meeting():
        store, number, _ = next(rendezvous("env://", timeout=_JOINING))
    with _with_last(_stands, _Rank(number, ranks, store)):
        yield


@contextmanager
def joined(device: torch.device) -> Iterator[None]:
    """Where torchrun started several ranks, let them compute together on their devices.

    They speak over gloo on CPUs and over NCCL on GPUs. Raises UserError where they cannot.
    """
    with started():
        if world_size() == 1:
            yield
            return
        if device.type not in ("cpu", "cuda"):
            raise UserError(f"device: several ranks cannot work together on {device.type}; choose cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        backend = "nccl" if device.type == "cuda" else "gloo"
        with _meeting():
            dist.init_process_group(
                backend, store=_stands[-1].store, rank=rank(), world_size=world_size(), timeout=_SILENCE
            )
            dist.all_reduce(torch.zeros((), device=device))  # none may leave before all are connected
        yield
        total(torch.zeros((), device=device))  # the store ends with the main rank, and others may read it
        dist.destroy_process_group()  # after an error it could wait for those who are gone


def total(x: Tensor) -> Tensor:
    """The sum over all ranks of tensors of one shape; gradients add up over ranks likewise."""
    if world_size() == 1:
        return x
    summed: Tensor = _Total.apply(x)  # type: ignore[no-untyped-call]
    return summed


class _Total(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(x: Tensor) -> Tensor:
    summed = x.clone(memory_format=torch.contiguous_format)
    with _together():
        dist.all_reduce(summed)
    return summed


@torch.no_grad()
def stacked(x: Tensor) -> Tensor:
    """What every rank gives, all of one shape, behind each other (ranks, ...); nothing flows back."""
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    if len(parts) == 1:
        return x.detach()[None]
    with _together():
        dist.all_gather(parts, x.contiguous())
    return torch.stack(parts)


def gather_rows(x_nd: Tensor, *, flowing: bool = False) -> Tensor:
    """The rows of all ranks, those of rank 0 first; every rank gives tensors (N, ...) with an N of its own.

    Nothing flows back through it, unless it is `flowing`: then gradients add up over ranks.
    """
    if world_size() == 1:
        return x_nd if flowing else x_nd.detach()
    counts = stacked(torch.tensor(len(x_nd), device=x_nd.device)).tolist()
    if flowing and x_nd.requires_grad:
        before = sum(counts[: rank()])
        others = x_nd.new_zeros(sum(counts) - len(x_nd), *x_nd.shape[1:])
        return total(torch.cat([others[:before], x_nd, others[before:]]))
    padded = x_nd.new_zeros(max(counts), *x_nd.shape[1:])
    padded[: len(x_nd)] = x_nd.detach()
    return torch.cat([part[:count] for part, count in zip(stacked(padded), counts, strict=True)])


def on_main(work: Callable[[], Result]) -> Result | None:
    """What the main rank does `alone`, while the others wait for it and get None.

    All ranks call it at once, and meet a UserError of the main rank's together.
    """
    place = _stands[-1]
    if place.ranks == 1:
        return work()
    key = f"main-{next(place.works)}"
    if place.rank > 0:
        _wait_for_main(place, key)
        return None
    fault = _GONE
    try:
        with alone():
            done = work()
        fault = ""
    except UserError as error:
        fault = str(error)
        raise
    finally:
        place.store.set(key, fault.encode(errors="surrogateescape"))
    return done


def _wait_for_main(place: _Rank, key: str) -> None:
    try:
        while not place.store.check([key]):
            time.sleep(0.01)  # and not within the store: a signal is heard between two looks
        fault = place.store.get(key).decode(errors="surrogateescape")
    except RuntimeError as error:
        raise RankLost from error
    if fault == _GONE:
        raise RankLost
    if fault:
        raise UserError(fault)


def is_lost(error: BaseException) -> bool:
    """Whether an error, as of a backward pass, comes from a rank that is gone."""
    words = str(error)
    return isinstance(error, dist.DistError) or "gloo" in words or "NCCL" in words


def agreed(line: str) -> str:
    """What this rank should print of the line with which it ends.

    That is the line, when all ranks end with it, but nothing when another rank prints it. Where this rank
    ends by itself, its number comes first.
    """
    place = next((place for place in reversed(_stands) if place.store is not None), None)
    if place is None:
        return line
    try:
        return _agreed(place, line)
    except RuntimeError:  # the store is gone with its rank
        return f"rank {place.rank}: {line}"


def _agreed(place: _Rank, line: str) -> str:
    key = "told-" + blake2b(line.encode(errors="surrogateescape"), digest_size=8).hexdigest()
    first = place.store.add(key, 1) == 1
    if _GONE in line:  # whoever is gone may have said why
        return line if first and place.store.add("told", 0) == 0 else ""
    if not first:
        _wait(lambda: place.store.add(f"{key}-printed", 0) > 0)
        return ""
    place.store.add("told", 1)
    by_all = _wait(lambda: place.store.add(key, 0) == place.ranks)
    place.store.add(f"{key}-printed", 1)
    return line if by_all else f"rank {place.rank}: {line}"


def _wait(reached: Callable[[], bool]) -> bool:
    """Whether it came to that before patience ended."""
    until = time.monotonic() + _PATIENCE
    while not reached():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@contextmanager
def _with_last(those: list[Item], item: Item) -> Iterator[None]:
    those.append(item)
    try:
        yield
    finally:
        those.pop()


@contextmanager
def _meeting() -> Iterator[None]:
    """Where ranks find each other; UserError when they do not.

    A signal ends the process at once: Python's own handlers would wait until the others are there.
    """
    main = threading.current_thread() is threading.main_thread()  # no other can set handlers
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    try:
        yield
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        found = os.environ["WORLD_SIZE"]
        raise UserError(
            f"WORLD_SIZE is {found}, but the ranks cannot meet ({reason}); start them with torchrun"
        ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _together() -> Iterator[None]:
    """What all ranks do at once; RankLost when one of them does not."""
    try:
        yield
    except RuntimeError as error:
        if is_lost(error):
            raise RankLost from error
        raise
