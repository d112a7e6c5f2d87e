"""What can happen to the folders and files of a run that trains: it ends in one line, and loses nothing."""

import errno
import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from forks import Running, start
from killing import Kill, recipe, strike, write_recipe
from same_runs import differences
from tiny import tiny_store

from ssl_skeleton.data.store import DATA_FILES
from ssl_skeleton.training.checkpoint import load_checkpoint

LONG = 60  # epochs: the run lasts until something happens to it


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store").parent


@pytest.fixture(scope="module")
def whole(stores, tmp_path_factory) -> Path:
    """A run to which nothing happened."""
    folder = tmp_path_factory.mktemp("whole")
    assert train(folder, stores / "store").code() == 0
    return folder / "run"


def train(folder: Path, store: Path, *, epochs: int = 2, residence: str = "device", **options) -> Running:
    tree = recipe(store, "cross_view", epochs)
    tree["data"]["residence"] = residence
    folder.mkdir(exist_ok=True)
    return start(write_recipe(folder, tree), folder, folder / "said.txt", **options)


@pytest.fixture
def begun(stores, tmp_path) -> Iterator[Running]:
    """A run that trains and has saved something."""
    running = train(tmp_path, stores / "store", epochs=LONG)
    wait_for(tmp_path / "run" / "checkpoints" / "cml.pt", running)
    yield running
    if running.code(0) is None:
        os.kill(running.pid, signal.SIGKILL)
        running.code()


def wait_for(path: Path, running: Running) -> None:
    while not path.exists():
        assert running.code(0) is None
        time.sleep(0.001)


def said_last(folder: Path) -> str:
    """The line of error that a run ended with; nothing else may look like one."""
    lines = (folder / "said.txt").read_text().splitlines()
    assert lines[-1].startswith("error: "), lines
    assert not any("Traceback" in line or "Exception" in line for line in lines)
    return lines[-1]


@pytest.mark.parametrize("largest", [500, 1500, 30_000, 100_000])
def test_a_file_that_may_grow_no_more(largest, stores, whole, tmp_path):
    """A limit of the process is met by any file, as a full disk is; it needs no rights to be set."""
    assert train(tmp_path, stores / "store", largest=largest).code() == 2
    line = said_last(tmp_path)
    assert f"cannot be written ({os.strerror(errno.EFBIG)}); larger files are not allowed here" in line
    assert train(tmp_path, stores / "store").code() == 0
    assert differences(tmp_path / "run", whole) == []


def test_a_run_folder_that_is_moved_away_is_not_made_again(begun, tmp_path):
    (tmp_path / "run").rename(tmp_path / "moved")
    assert begun.code() == 2
    assert f"{tmp_path}/run" in said_last(tmp_path)
    assert not (tmp_path / "run").exists()
    before = load_checkpoint(tmp_path / "moved" / "checkpoints" / "cml.pt", "cml")
    (tmp_path / "moved").rename(tmp_path / "run")
    (tmp_path / "said.txt").unlink()
    again = start(tmp_path / "recipe.yaml", tmp_path, tmp_path / "said.txt")
    stop = Kill(signal.SIGTERM, "saving", 0.0)
    assert strike(again, tmp_path / "run", stop, tmp_path / "said.txt").code == 128 + signal.SIGTERM
    after = load_checkpoint(tmp_path / "run" / "checkpoints" / "cml.pt", "cml")
    assert (after.epoch, after.step) > (before.epoch, before.step)


def test_two_runs_cannot_write_one_folder_until_one_of_them_is_dead(begun, stores, tmp_path):
    log = tmp_path / "run" / "log.jsonl"
    wait_for(log, begun)
    other = start(tmp_path / "recipe.yaml", tmp_path, tmp_path / "other.txt")
    assert other.code() == 2
    holder = f"{begun.pid} on {socket.gethostname()}"
    wanted = f"{tmp_path}/run: another process ({holder}) is writing it; wait for it to end, or end it"
    assert (tmp_path / "other.txt").read_text().endswith(f"error: {wanted}\n")
    assert begun.code(0) is None
    os.kill(begun.pid, signal.SIGKILL)
    begun.code()
    assert (tmp_path / "run" / ".lock").exists()  # but nobody holds it
    lines = len(log.read_text().splitlines())
    again = start(tmp_path / "recipe.yaml", tmp_path, tmp_path / "again.txt")
    while len(log.read_text().splitlines()) <= lines:
        assert again.code(0) is None
        time.sleep(0.001)
    os.kill(again.pid, signal.SIGTERM)
    assert again.code() == 128 + signal.SIGTERM
    assert not (tmp_path / "run" / ".lock").exists()


def test_two_new_runs_begun_at_once_in_one_folder(stores, whole, tmp_path):
    """Whoever comes first makes the run; the other one refuses, or waits for its end in vain."""
    cfg = write_recipe(tmp_path, recipe(stores / "store", "cross_view", 2))
    both = [start(cfg, tmp_path, tmp_path / f"{number}.txt") for number in range(2)]
    codes = sorted(one.code() or 0 for one in both)
    assert codes in ([0, 0], [0, 2])  # one after the other, or one of them refused
    assert differences(tmp_path / "run", whole) == []


def test_a_checkpoint_of_another_stage(stores, whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.copy(whole / "checkpoints" / "inf.pt", tmp_path / "run" / "checkpoints" / "cml.pt")
    assert train(tmp_path, stores / "store").code() == 2
    place = tmp_path / "run" / "checkpoints" / "cml.pt"
    assert said_last(tmp_path) == f"error: {place}: is of stage 'inf', not of 'cml'; was it renamed?"


def test_a_damaged_checkpoint_is_mended_by_an_older_one(stores, whole, tmp_path):
    folder = tmp_path / "run" / "checkpoints"
    shutil.copytree(whole, tmp_path / "run")
    newest = folder / "inf.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert train(tmp_path, stores / "store").code() == 2
    assert "put a copy of an older one in its place" in said_last(tmp_path)
    shutil.copy(folder / "inf-epoch-0001.pt", newest)
    assert train(tmp_path, stores / "store").code() == 0
    assert differences(tmp_path / "run", whole) == []


@pytest.mark.parametrize("residence", ["device", "host", "mapped"])
def test_a_store_that_vanishes_while_a_run_trains(residence, stores, tmp_path):
    """What is open stays open; a run that goes on later says what is missing."""
    store = Path(shutil.copytree(stores / "store", tmp_path / "store"))
    running = train(tmp_path, store, residence=residence)
    wait_for(tmp_path / "run" / "checkpoints" / "cml.pt", running)
    shutil.rmtree(store)
    assert running.code() == 0
    assert train(tmp_path, store, residence=residence).code() == 2
    assert said_last(tmp_path).startswith(f"error: {store}: no such folder")


@pytest.mark.parametrize("residence", ["device", "mapped"])
def test_a_store_that_is_prepared_again_while_a_run_trains(residence, stores, whole, tmp_path):
    """A store is replaced as a whole: who reads the older one goes on with that."""
    store = Path(shutil.copytree(stores / "store", tmp_path / "store"))
    running = train(tmp_path, store, residence=residence)
    wait_for(tmp_path / "run" / "checkpoints" / "cml.pt", running)
    store.rename(tmp_path / "older")
    tiny_store(store, "utd_mhad")
    assert running.code() == 0
    for stage in ("cml", "inf"):
        log = (tmp_path / "run" / "log.jsonl").read_text()
        assert log.count(f'"stage": "{stage}"') == 2


def test_frames_that_are_cut_off_under_a_run_that_maps_them(stores, tmp_path):
    """The system ends the process at once, and no handler could say why; what was saved is there."""
    store = Path(shutil.copytree(stores / "store", tmp_path / "store"))
    assert "frames.npy" in DATA_FILES
    running = train(tmp_path, store, epochs=LONG, residence="mapped")
    wait_for(tmp_path / "run" / "checkpoints" / "cml.pt", running)
    os.truncate(store / "frames.npy", 0)
    assert running.code() == -signal.SIGBUS
    load_checkpoint(tmp_path / "run" / "checkpoints" / "cml.pt", "cml")
    assert train(tmp_path, store, epochs=LONG, residence="mapped").code() == 2
    assert said_last(tmp_path).startswith(f"error: {store}/frames.npy: damaged (")
