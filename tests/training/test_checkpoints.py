"""What is kept of a stage: the newest checkpoint, the last ones, the best one."""

import re
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from builders import one_line

from ssl_skeleton import files
from ssl_skeleton.errors import UserError
from ssl_skeleton.training import checkpoint as reading
from ssl_skeleton.training.checkpoint import Checkpoint, Checkpoints, load_checkpoint


def checkpoint(epoch: int, step: int = 0) -> Checkpoint:
    state = {"weight": torch.full((2, 2), float(epoch)), "count": torch.tensor(step)}
    return Checkpoint("stage", epoch, step, state, {}, {"loss": 1.5} if step else {})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def epochs_of(folder: Path) -> dict[str, int]:
    return {name: load_checkpoint(folder / "checkpoints" / name, "stage").epoch for name in names(folder)}


def test_by_default_there_is_one_file(tmp_path):
    checkpoints = Checkpoints(tmp_path, "stage")
    for epoch in (1, 2, 3):
        checkpoints.save(checkpoint(epoch), 1 / epoch)
        checkpoints.save(checkpoint(epoch, 2))
    assert checkpoints.path == tmp_path / "checkpoints" / "stage.pt"
    assert names(tmp_path) == ["stage.pt"]
    assert checkpoints.load().best is None


@pytest.mark.parametrize("lowered", [1, 2, 3])
def test_what_is_kept_no_more_goes_with_the_next_save(lowered, tmp_path):
    for epoch in (1, 2, 3):
        Checkpoints(tmp_path, "stage", keep=3, keep_best=True).save(checkpoint(epoch), 1 / epoch)
        Checkpoints(tmp_path, "stage-2", keep=3).save(checkpoint(epoch), 1 / epoch)
    Checkpoints(tmp_path, "stage", keep=lowered).save(checkpoint(3, 1))
    kept = {f"stage-epoch-{epoch:04}.pt" for epoch in (1, 2, 3)[3 - lowered :]} if lowered > 1 else set()
    others = {"stage-2.pt", *(f"stage-2-epoch-{epoch:04}.pt" for epoch in (1, 2, 3))}
    assert {*names(tmp_path)} == {"stage.pt", "stage-best.pt", *kept, *others}


LOSSES = (3.0, 1.0, 2.0, 1.0, 0.5, 0.7)


def keep_all(folder: Path, first: int = 0, last: int = len(LOSSES)) -> Checkpoints:
    checkpoints = Checkpoints(folder, "stage", keep=2, keep_best=True)
    checkpoints.load()
    for epoch, loss in list(enumerate(LOSSES, 1))[first:last]:
        checkpoints.save(checkpoint(epoch), loss)
        checkpoints.save(checkpoint(epoch, 2))  # a signal in mid-epoch
    return checkpoints


@pytest.mark.parametrize("stopped", range(len(LOSSES) + 1))
@pytest.mark.parametrize("links", [True, False])
def test_the_last_and_the_best_are_kept(stopped, links, tmp_path, monkeypatch):
    if not links:
        monkeypatch.setattr(
            Path, "hardlink_to", lambda path, target: (_ for _ in ()).throw(PermissionError(1, "no"))
        )
    (tmp_path / "checkpoints").mkdir()
    other = tmp_path / "checkpoints" / "stage-epoch-0001x.pt"
    other.write_text("mine")
    keep_all(tmp_path, last=stopped)
    checkpoints = keep_all(tmp_path, first=stopped)
    assert other.read_text() == "mine"
    other.unlink()
    wanted = {"stage-best.pt": 5, "stage-epoch-0005.pt": 5, "stage-epoch-0006.pt": 6, "stage.pt": 6}
    assert epochs_of(tmp_path) == wanted
    assert checkpoints.load().best == 0.5
    assert load_checkpoint(tmp_path / "checkpoints" / "stage-best.pt", "stage").step == 0


def test_one_that_is_changed_and_saved_again_remembers_the_best(tmp_path):
    keep_all(tmp_path)
    found = Checkpoints(tmp_path, "stage", keep=2, keep_best=True).load()
    Checkpoints(tmp_path, "stage", keep=2, keep_best=True).save(found)
    assert Checkpoints(tmp_path, "stage").load().best == 0.5


def test_equal_losses_keep_the_first(tmp_path):
    keep_all(tmp_path, last=4)
    assert epochs_of(tmp_path)["stage-best.pt"] == 2


class Killed(BaseException):
    """Stands for a kill: nothing is cleaned after it."""


@pytest.mark.parametrize("moment", range(40))
def test_a_kill_between_any_two_steps_of_a_save_loses_nothing(moment, tmp_path, monkeypatch):
    """Every call to the system of the saves may be the last one."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        (folder / "checkpoints").mkdir(parents=True)
        keep_all(folder, last=2)
    keep_all(whole, first=2)
    calls = []

    def counted(call):
        def called(*words, **options):
            calls.append(call)
            if len(calls) > moment:
                raise Killed  # and every later one, so that no clean-up runs
            return call(*words, **options)

        return called

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "hardlink_to"), (Path, "replace"), (Path, "unlink"), (files.os, "fsync")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        with suppress(Killed):
            keep_all(broken, first=2)
    newest = load_checkpoint(broken / "checkpoints" / "stage.pt", "stage")
    assert newest.epoch >= 2
    with files.locked(broken):
        keep_all(broken, first=newest.epoch)
    assert epochs_of(broken) == epochs_of(whole)


def test_what_a_killed_write_left_is_removed_and_nothing_else(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    mine = [
        ".stage.pt.backup",
        "stage.pt.tmp",
        ".stage.pt.short.tmp",
        ".x.abcdefgh.tmp.gz",
        "notes.abcdefgh.tmp",
    ]
    for name in (*mine, ".stage.pt.abcd_123.tmp", ".other.pt.00000000.tmp"):
        (folder / name).write_text("x")
    (folder / ".a.abcdefgh.tmp").mkdir()
    Checkpoints(tmp_path, "stage").save(checkpoint(1))
    assert names(tmp_path) == sorted([*mine, ".a.abcdefgh.tmp", "stage.pt"])


def test_a_run_folder_that_is_gone_is_not_made_again(tmp_path):
    checkpoints = Checkpoints(tmp_path / "run", "stage")
    with pytest.raises(UserError, match=re.escape(f"{tmp_path}/run: the run folder is gone")):
        checkpoints.save(checkpoint(1))
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_never_take_the_place_of_good_ones(tmp_path):
    checkpoints, bad = Checkpoints(tmp_path, "stage", keep=2, keep_best=True), checkpoint(2)
    checkpoints.save(checkpoint(1), 1.0)
    bad.pretext["weight"][1, 1] = torch.inf
    with pytest.raises(UserError) as error:
        checkpoints.save(bad, 0.5)
    aside = tmp_path / "checkpoints" / "stage.not-finite.pt"
    line = one_line(error.value)
    assert line.startswith("stage stage, epoch 2, step 0: weight is not finite; the state is")
    assert str(aside) in str(error.value)
    kept = torch.load(aside, weights_only=True)
    assert (kept["epoch"], kept["step"], kept["index"]) == (2, 0, None)
    aside.unlink()
    assert epochs_of(tmp_path) == dict.fromkeys(("stage.pt", "stage-best.pt", "stage-epoch-0001.pt"), 1)


def test_an_evaluation_that_reads_while_a_run_writes_sees_a_whole_file(tmp_path, monkeypatch):
    """The file may be replaced between any two calls of the reader."""
    checkpoints = Checkpoints(tmp_path, "stage")
    checkpoints.save(checkpoint(1))
    read = reading.read_tensor_file

    def replaced(path):
        checkpoints.save(checkpoint(2))
        return read(path)

    monkeypatch.setattr(reading, "read_tensor_file", replaced)
    assert checkpoints.load().epoch == 2


def test_a_failed_save_keeps_the_one_before(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    checkpoints = Checkpoints(tmp_path, "stage", keep=2, keep_best=True)
    checkpoints.save(checkpoint(1), 1.0)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.pt")}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError) as error:
        checkpoints.save(checkpoint(2), 0.5)
    path = tmp_path / "checkpoints" / "stage.pt"
    assert one_line(error.value) == (
        f"{path}: cannot be written (No space left on device); free some space on that disk; "
        "the one before is kept; then go on with --resume"
    )
    assert load_checkpoint(path, "stage").epoch == 1
    assert {path: path.read_bytes() for path in path.parent.iterdir()} == before
