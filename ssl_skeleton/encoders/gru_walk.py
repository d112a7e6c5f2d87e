"""The frames of one direction of a GRU layer, one by one: forwards for its states, backwards for the slopes.

A frame takes a dozen small operations, and Python would take longer to call them than they take. TorchScript
runs the loop without it, and without its lock, so that both directions go at the same time. The loops are
Python all the same, and PYTORCH_JIT=0 lets Python run them.

Gates lie in the order U_n h + c_n, r, z, n, as in `gru_layer.py`. Rows (K, ...) are those of frames, the
states have N rows more before them, with which clips start.
"""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier

import torch
from torch import Tensor


def advance(
    gate_kg: Tensor, state_rh: Tensor, hidden_hg: Tensor, sizes: list[int], wide: torch.dtype
) -> None:
    """Fill the states (N + K, H) behind the first N, frame by frame of so many clips each.

    Of the gates (K, 4 H), c_n and what comes from the inputs is given; what comes from the states is added.
    They are opened where they have the bits of `wide`, in which gates and states are computed.
    """
    clips, size = sizes[0], state_rh.shape[1]
    h_nh = torch.zeros([clips, size], dtype=wide)
    room_ng = torch.empty([clips, 4 * size], dtype=wide)
    first, before = 0, 0
    for count in sizes:
        given, room, h = gate_kg[first : first + count], room_ng[:count], h_nh[:count]
        heard = given[:, : 3 * size]
        torch.addmm(heard, state_rh[before : before + count], hidden_hg, out=heard)
        room.copy_(given)
        room[:, size : 3 * size].sigmoid_()
        new = room[:, 3 * size :]
        torch.addcmul(new, room[:, size : 2 * size], room[:, :size], out=new)
        new.tanh_()
        torch.lerp(new, h, room[:, 2 * size : 3 * size], out=h)
        before = clips + first
        state_rh[before : before + count].copy_(h)
        if gate_kg.dtype == wide:
            given.copy_(room)
        first += count


def retreat(  # noqa: PLR0917 (TorchScript takes tensors, no objects that hold them)
    slope_kh: Tensor,
    gate_kg: Tensor,
    state_rh: Tensor,
    hidden_gh: Tensor,
    kept_kg: Tensor,
    bias_tg: Tensor,
    given_ng: Tensor,
    sizes: list[int],
    wide: torch.dtype,
) -> None:
    """From the slopes by the states (K, H), find those by what opens the gates, (K, 4 H).

    `bias` (T, 4 H) are their sums over the clips of each frame, and `given` (N, 3 H), where it has clips,
    those over the frames of each clip, without the ones by U_n h + c_n. The rest is as `advance` left it.
    """
    clips, size = sizes[0], state_rh.shape[1]
    d_nh = torch.zeros([clips, size], dtype=wide)
    less_nh, some_nh, room_nh = torch.empty_like(d_nh), torch.empty_like(d_nh), torch.empty_like(d_nh)
    gate_ng, by_ng = torch.empty([clips, 4 * size], dtype=wide), torch.empty([clips, 4 * size], dtype=wide)
    product_nh = torch.empty([clips, size], dtype=state_rh.dtype)
    first = len(slope_kh)
    for step in range(len(sizes)):
        frame = len(sizes) - 1 - step
        count = sizes[frame]
        first -= count
        before = 0 if frame == 0 else clips + first - sizes[frame - 1]
        d, less, some, room = d_nh[:count], less_nh[:count], some_nh[:count], room_nh[:count]
        gate, by, kept = gate_ng[:count], by_ng[:count], kept_kg[first : first + count]
        gate.copy_(gate_kg[first : first + count])
        heard, reset = gate[:, :size], gate[:, size : 2 * size]
        update, new = gate[:, 2 * size : 3 * size], gate[:, 3 * size :]
        if gate_kg.dtype != wide:
            gate[:, size : 3 * size].sigmoid_()
            torch.addcmul(new, reset, heard, out=new)
            new.tanh_()
        by_heard, by_reset = by[:, :size], by[:, size : 2 * size]
        by_update, by_new = by[:, 2 * size : 3 * size], by[:, 3 * size :]
        room.copy_(slope_kh[first : first + count])
        d.add_(room)
        torch.addcmul(d, d, update, value=-1, out=less)  # d (1 - z)
        torch.mul(less, new, out=some)
        torch.addcmul(less, some, new, value=-1, out=by_new)  # d (1 - z) (1 - n^2)
        torch.mul(by_new, reset, out=by_heard)
        torch.mul(by_heard, heard, out=some)
        torch.addcmul(some, some, reset, value=-1, out=by_reset)
        room.copy_(state_rh[before : before + count])
        torch.sub(room, new, out=some)  # h - n
        torch.mul(some, update, out=some)
        torch.mul(some, less, out=by_update)
        torch.sum(by, [0], out=bias_tg[frame])
        if len(given_ng) > 0:
            given_ng[:count].add_(by[:, size:])
        kept.copy_(by)
        product = product_nh[:count]
        torch.mm(kept[:, : 3 * size], hidden_gh, out=product)
        room.copy_(product)
        torch.addcmul(room, d, update, out=d)


def each_direction(walk: Callable[..., None], *given: object) -> None:
    """Walk every direction: tensors (D, ...) are split along it, and all else is the same for each.

    With several threads, directions share them: each has a thread of its own, or as many as there are for it.
    """
    scripted = _scripted(walk)
    directions = next(len(x) for x in given if isinstance(x, Tensor))
    each = [[x[d] if isinstance(x, Tensor) else x for x in given] for d in range(directions)]
    threads = torch.get_num_threads()
    if directions == 1 or threads == 1:
        for words in each:
            scripted(*words)
        return
    done = [_workers(directions, threads).submit(scripted, *words) for words in each]
    for walked in done:
        walked.result()


@cache
def _scripted(walk: Callable[..., None]) -> Callable[..., None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what is to follow it holds Python's lock
        scripted: Callable[..., None] = torch.jit.script(walk)
    return scripted


@cache
def _workers(directions: int, threads: int) -> ThreadPoolExecutor:
    """As many workers as there are directions, which share `threads`."""
    own = max(1, threads // directions)
    workers = ThreadPoolExecutor(directions, "direction", lambda: torch.set_num_threads(own))
    all_there = Barrier(directions)  # else one could take all that is submitted, and others begin later
    try:
        for started in [workers.submit(all_there.wait) for _ in range(directions)]:
            started.result()
    finally:
        all_there.abort()  # nobody waits on, should Ctrl-C have come between
        torch.set_num_threads(threads)  # a worker sets what threads have that begin later, too
    return workers


os.register_at_fork(after_in_child=_workers.cache_clear)  # a fork has no workers
