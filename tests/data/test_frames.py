"""Where frames are is a matter of the machine: batches are the same."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import LAYOUT, recordings, seeds, stored, without_joints, write_store
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import Recording, Track
from ssl_skeleton.data.repair import RepairConfig
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout

RESIDENCES = ("device", "host", "mapped")
shares = st.floats(0, 1, width=32)


def assert_same(one: Clips, other: Clips) -> None:
    for name in ("x", "lengths", "index", "label", "seen"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name


@given(
    recordings(most_clips=3),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([None, "common_15", "openni_15"]),
    st.tuples(st.integers(1, 3), st.sampled_from(["stored", "moving"]), st.booleans()),
    st.data(),
)
@settings(max_examples=40, deadline=None)
def test_batches_are_the_same_wherever_frames_are(clips, missing, layout, how, data):
    clips, (bodies, order, twice) = without_joints(clips, len(clips), missing), how
    target = load_layout(layout) if layout else None
    index = torch.tensor(data.draw(st.lists(st.integers(0, len(clips) * (1 + twice) - 1), min_size=1)))
    window = data.draw(st.none() | st.just(torch.rand(len(index), 2)))
    frames = data.draw(st.none() | st.integers(1, 9))
    with stored(clips) as store:
        stores = [store, store] if twice else [store]
        device, *others = (
            PackedClips(stores, bodies, layout=target, order=order, residence=where) for where in RESIDENCES
        )
        for packed in others:
            assert_same(packed.gather(index, frames, window), device.gather(index, frames, window))
            assert_same(packed.loop(index, frames or 5, window), device.loop(index, frames or 5, window))
            assert packed.device == device.device
            assert torch.equal(packed.labels, device.labels)


@given(recordings(most_clips=4), st.none() | st.integers(1, 9), st.integers(1, 3), seeds)
@settings(max_examples=30, deadline=None)
def test_ranks_together_have_the_batch(clips, frames, ranks, seed):
    """Each rank's clips are those of the whole batch, padded to the longest of all."""
    source = torch.Generator().manual_seed(seed)
    index, window = (torch.arange(len(clips)).repeat(2), torch.rand(2 * len(clips), 2, generator=source))
    places = torch.arange(len(index)).tensor_split(ranks)
    with stored(clips) as store:
        packed = PackedClips(store, 2)
    for draw in (packed.gather, packed.loop):
        if draw == packed.loop and frames is None:
            continue
        whole = draw(index, frames, window)
        for mine in (*places, slice(0, 1)):
            part = draw(index, frames, window, mine)
            assert torch.equal(part.x, whole.x[mine])
            assert torch.equal(part.lengths, whole.lengths[mine])
            assert torch.equal(part.index, index[mine])
            assert torch.equal(part.seen.expand(whole.seen[mine].shape), whole.seen[mine])


def test_what_stays_in_its_file_cannot_be_repaired():
    with stored([Recording("a", 1, [Track(0, np.ones((1, 20, 3), np.float32))])]) as store:
        PackedClips(store, 1, mend=RepairConfig(), residence="mapped")
        with pytest.raises(UserError, match=r"data\.residence: mapped reads .* choose device or host, or"):
            PackedClips(store, 1, mend=RepairConfig(fill_gaps=1), residence="mapped")


@pytest.mark.parametrize("residence", RESIDENCES)
def test_what_is_not_finite_is_refused_wherever_it_stays(residence):
    with stored([Recording("a", 9, [Track(0, np.ones((9, 20, 3), np.float32))])]) as store:
        wrong = np.array(store.frames_rvc)
        wrong[7, 3, 1] = -np.inf
        with pytest.raises(UserError, match=r"frames.npy: row 7 is not finite"):
            PackedClips(replace(store, frames_rvc=wrong), 1, residence=residence)


def test_more_frames_than_memory_holds_are_refused_with_a_mend():
    with stored([Recording("a", 1, [Track(0, np.ones((1, 20, 3), np.float32))])]) as store:
        endless = np.broadcast_to(store.frames_rvc, (1 << 46, 20, 3))
        with pytest.raises(UserError, match=r"frames take .* GB, .* data\.residence=mapped"):
            PackedClips(replace(store, frames_rvc=endless), 1)


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Store:
    """A store of 60 MB: 500 clips of 500 frames."""
    x_tvc = np.random.default_rng(0).normal(size=(500, 20, 3)).astype(np.float32)
    out = tmp_path_factory.mktemp("long") / "store"
    write_store(out, [Recording(str(n), 500, [Track(0, x_tvc)]) for n in range(500)])
    return open_store(out)


def most_held(work: Callable[[], object]) -> int:
    """The bytes of memory that `work` took of its own at any time, which what is mapped from files is not."""

    def held() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))

    seen, done = [held()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            seen.append(held())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        kept = work()
        seen.append(held())
        del kept
    finally:
        done.set()
        watcher.join()
    return max(seen) - seen[0]


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="only Linux tells what is held")
@pytest.mark.parametrize(("residence", "least", "most"), [("device", 0.95, 1.2), ("mapped", 0.0, 0.15)])
def test_memory_holds_the_frames_once_or_not_at_all(long, residence, least, most, monkeypatch):
    """However many stores there are, though they are looked through, and every clip is drawn."""
    monkeypatch.setattr("ssl_skeleton.data.store._BLOCK", 1 << 13)
    size = 2 * long.frames_rvc.nbytes

    def work() -> Sequence[object]:
        packed = PackedClips([long, long], 1, order="moving", residence=residence)
        for index in torch.randperm(1000).split(250):
            packed.gather(index, 8)
        return [packed]

    assert least * size <= most_held(work) <= most * size


def test_a_body_without_changes_is_read_where_it_lies():
    """Nothing is copied between the file and the gather."""
    clips = [Recording("a", 5, [Track(0, np.ones((5, len(LAYOUT.joints), 3), np.float32))])]
    with stored(clips) as store:
        packed = PackedClips(store, 1, residence="mapped")
        table_lvc, place_s = packed.frames.lookup(torch.tensor([3, 1]))
        assert table_lvc.data_ptr() == store.frames_rvc.ctypes.data
        assert place_s.tolist() == [3, 1]
