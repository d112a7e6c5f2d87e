"""Stores from strangers: whatever their files are, opening one takes little memory and ends with one line."""

import os
import struct
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import LAYOUT, NUMBERS, change_meta, examples, one_line, refusal_of, write_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.inspection.checking import check_store
from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.recording import Recording, Track
from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError

FILES = ("meta.json", "clips.csv", "frames.npy", "tracks.npy")
GIGABYTE = 1 << 30


@pytest.fixture
def folder(tmp_path) -> Path:
    """A store of two clips with two tracks each, 2 + 1 and 3 + 2 rows."""
    clips = []
    for name, frames in (("a", 2), ("b", 3)):
        x_tvc = np.random.default_rng(frames).normal(size=(frames, 20, 3)).astype(np.float32)
        clips.append(Recording(name, frames, [Track(0, x_tvc), Track(1, x_tvc[1:])]))
    write_store(tmp_path / "store", clips)
    return tmp_path / "store"


def check_and_open(folder: Path) -> None:
    with suppress(UserError), pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssl_skeleton.data.inspection.checking.sha256", lambda path: "")  # sums take time
        assert check_store(folder)
    open_store(folder)


def refusal(folder: Path) -> str:
    return refusal_of(check_and_open, folder, most=10e6)


def header_of(path: Path, array: np.ndarray) -> bytes:
    np.save(path, array)
    return path.read_bytes()[: -array.nbytes]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", ["inside", "outside", "nowhere"])
def test_a_link_is_refused_wherever_it_leads(folder, name, where):
    file = folder / name
    target = {"inside": folder / f"real-{name}", "outside": folder.parent / name, "nowhere": folder / "gone"}[
        where
    ]
    file.rename(target)
    file.symlink_to(target)
    if where == "nowhere":
        target.unlink()
    message = refusal(folder)
    if name == "meta.json" and where == "nowhere":
        assert "not a prepared store" in message
    else:
        assert f"{name}: is a link; put the file itself there, or prepare the store again" in message


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_plain_file_is_refused(folder, name, kind):
    """Opening a pipe would wait for ever."""
    (folder / name).unlink()
    (folder / name).mkdir() if kind == "folder" else os.mkfifo(folder / name)
    assert f"{name}: is no plain file" in refusal(folder)


def test_a_store_may_lie_behind_a_link(folder):
    (folder.parent / "link").symlink_to(folder)
    assert len(open_store(folder.parent / "link")) == 2


@pytest.mark.parametrize("name", ["meta.json", "clips.csv"])
def test_a_text_that_is_far_too_long_is_not_read(folder, name):
    """The files are sparse: they take no room on the disk, but would take it in memory."""
    with (folder / name).open("r+b") as file:
        file.truncate(20 * GIGABYTE)
    assert f"{name}: {20 * GIGABYTE} bytes are too many for" in refusal(folder)


@pytest.mark.parametrize("name", ["frames.npy", "tracks.npy"])
def test_an_array_is_exactly_as_long_as_it_says(folder, name):
    with (folder / name).open("ab") as file:
        file.write(b"\0")
    assert f"{name}: damaged" in refusal(folder)
    with (folder / name).open("r+b") as file:
        file.truncate(20 * GIGABYTE)
    assert f"{name}: damaged" in refusal(folder)


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_that_is_far_too_long_is_not_read(folder, version):
    with (folder / "frames.npy").open("wb") as file:
        file.write(b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<I", 2**32 - 1))
        file.truncate(5 * GIGABYTE)
    assert "frames.npy: damaged (its header is too long)" in refusal(folder)


@pytest.mark.parametrize("version", [(2, 0), (3, 0)])
def test_a_later_version_of_the_format_is_read(folder, version):
    frames_rvc = np.load(folder / "frames.npy")
    with (folder / "frames.npy").open("wb") as file:
        np.lib.format.write_array(file, frames_rvc, version)
    assert np.array_equal(open_store(folder).frames_rvc, frames_rvc)


def test_frames_the_other_way_round_are_refused(folder):
    """They would be copied as a whole at every gather."""
    np.save(folder / "frames.npy", np.asfortranarray(np.load(folder / "frames.npy")))
    assert "frames.npy: damaged" in refusal(folder)


@pytest.mark.parametrize(
    "shape",
    [(-8, 20, 3), (2**62, 20, 3), (2**61, 2**61, 4), (8, 20, -3), (2**63, 1), (8, 0, 3), (True, 20, 3)],
)
def test_counts_that_no_file_has_are_refused(folder, shape):
    data = (folder / "frames.npy").read_bytes()
    old = str((8, 20, 3)).encode()
    at = data.index(old)
    new = str(shape).encode()
    end = data.index(b"\n", at)
    changed = data[:at] + new + data[at + len(old) : end].rstrip() + b" " * (len(old) - len(new))
    header = (changed + b" " * 128)[:127] + b"\n"
    (folder / "frames.npy").write_bytes(header + data[128:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, when a product overflows
        assert "frames.npy: " in refusal(folder)
        change_meta(folder, rows=shape[0])
        refusal(folder)


def test_a_clip_longer_than_any_recording_is_refused(folder):
    """Drawn at its own rate, it would take that many frames of memory."""
    table = (folder / "clips.csv").read_text().replace(",2,2\n", ",999999999999,2\n")
    (folder / "clips.csv").write_text(table)
    assert "a track does not fit its clip or the frames" in refusal(folder)


@pytest.mark.parametrize(
    "rows", [[0, 0, 3, 6], [0, 2, 3, 5], [0, 2, 4, 6], [3, 0, 2, 5], [1, 3, 4, 7], [0, 2, 3, 0]], ids=str
)
def test_tracks_share_the_frames_out(folder, rows):
    """Tracks that lie over each other could make few frames into work without end."""
    tracks = np.load(folder / "tracks.npy")
    assert tracks[:, 1].tolist() == [0, 2, 3, 6]
    tracks[:, 1] = rows
    np.save(folder / "tracks.npy", tracks)
    assert "a track does not fit its clip or the frames" in refusal(folder)


def test_frames_of_no_track_are_refused(folder):
    frames_rvc = np.load(folder / "frames.npy")
    np.save(folder / "frames.npy", np.concatenate([frames_rvc, frames_rvc[:1]]))
    change_meta(folder, rows=9)
    assert "a track does not fit its clip or the frames" in refusal(folder)


@given(st.data())
@settings(
    max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_number_of_a_store_does_harm(folder, data):
    """Counts, sizes and places, in any file: refused, or good for a batch wherever the frames stay."""
    good = {name: (folder / name).read_bytes() for name in FILES}
    try:
        name = data.draw(st.sampled_from(FILES))
        if name == "tracks.npy":
            tracks = np.load(folder / name)
            place = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
            tracks[place] = data.draw(st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 9))
            np.save(folder / name, tracks)
        elif name == "meta.json":
            key = data.draw(st.sampled_from(["clips", "tracks", "rows", "bodies", "format"]))
            change_meta(folder, **{key: data.draw(st.integers(-(2**70), 2**70) | st.integers(-1, 12))})
        else:
            changed = bytearray(good[name])
            start = data.draw(st.integers(0, min(len(changed), 128) - 1))
            number = data.draw(st.sampled_from(NUMBERS))
            changed[start : start + len(number)] = number
            (folder / name).write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                drawn = [
                    PackedClips(open_store(folder), 2, residence=where).gather(torch.arange(2), 4)
                    for where in ("device", "mapped")
                ]
            except UserError as error:
                one_line(error)
                return
        assert torch.equal(drawn[0].x, drawn[1].x)
        assert drawn[0].x.isfinite().all()
        assert drawn[0].x.shape[3] == len(LAYOUT.joints)
    finally:
        for name, content in good.items():
            (folder / name).write_bytes(content)
