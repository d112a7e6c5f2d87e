"""Real runs are killed by real signals at random moments, go on, and end as if they had never been killed."""

import json
import shutil
import signal
import struct
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from faults import Tally, kill_runs, main, table
from forks import SAVING, start
from killing import STAGES, Kill, Struck, draw_kills, recipe, torment, write_recipe
from same_runs import differences, read_board, read_log
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import put_checkpoint, tiny_store

from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint

KILLS, APART = 34, 3
EPOCHS = [1, 2, 3]


@dataclass(frozen=True)
class Killed:
    """What came of all kills; the runs of forks, and one whose processes were started by themselves."""

    folder: Path
    tally: Tally
    apart: list[Struck]
    faults: list[str]

    @property
    def whole(self) -> Path:
        """The run that was never killed."""
        return self.folder / "whole" / "run"

    @property
    def runs(self) -> list[Path]:
        """Those that were."""
        return sorted(self.folder.glob("runs-*/run"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Killed:
    folder = tmp_path_factory.mktemp("killed")
    cfg = write_recipe(folder, recipe(tiny_store(folder / "store"), "cross_view"))
    apart = iter(
        [
            Kill(signal.SIGKILL, "saving", 0.001, 2),
            Kill(signal.SIGTERM, "saving", 0.05, 1),
            Kill(signal.SIGKILL, "between", 0.02),
        ]
    )
    with ThreadPoolExecutor(1) as pool:
        alone: Future = pool.submit(torment, cfg, folder / "apart", apart, APART, apart=True)
        tally = kill_runs(folder, cfg, KILLS, seed=0)
        return Killed(folder, tally, *alone.result())


def test_every_run_ends_as_if_it_had_never_been_killed(killed):
    print(table(killed.tally))
    assert killed.tally.faults == []
    assert killed.tally.identical == killed.tally.runs == len(killed.runs) >= 4
    assert killed.tally.kills >= 30


def test_kills_hit_at_every_moment_and_with_every_signal(killed):
    signals, places = Counter(), Counter()
    for hit, count in killed.tally.hits.items():
        number, _, place = hit.partition(" ")
        signals[number] += count
        places[place] += count
    assert signals["SIGKILL"] >= 10
    assert all(signals[one.name] >= 3 for one in SAVING)
    assert all(places[place] >= 1 for place in ("start", "training", "saving", "between stages"))


def test_processes_that_were_started_by_themselves(killed):
    assert killed.faults == []
    assert [one.code for one in killed.apart] == [-signal.SIGKILL, 128 + signal.SIGTERM, -signal.SIGKILL]
    assert differences(killed.folder / "apart" / "run", killed.whole) == []


def test_tensorboard_shows_every_epoch_once(killed):
    for stage in STAGES:
        board = read_board(killed.whole / "tensorboard" / stage)
        assert {"loss", "lr", "feature_std"} <= board.keys()
        assert all([step for step, _ in points] == EPOCHS for points in board.values())
        # A board reads files in order of the second they began in: forks can be faster, real starts are not.
        shown = EventAccumulator(str(killed.folder / "apart" / "run" / "tensorboard" / stage)).Reload()
        for name, points in board.items():
            assert [(event.step, event.value) for event in shown.Scalars(name)] == points


def test_the_log_has_every_epoch_once(killed):
    lines = [(line["stage"], line["epoch"]) for line in read_log(killed.whole)]
    assert lines == [(stage, epoch) for stage in STAGES for epoch in EPOCHS]


def test_an_evaluation_is_unaffected(killed):
    few = ["evaluation.knn.k=[1, 3]"]
    found = [evaluate(Run.open(folder, few), "knn") for folder in (killed.whole, *killed.runs[:2])]
    assert found[0] == found[1] == found[2]
    assert 0 <= found[0]["top1"] <= 1


def test_a_run_that_is_finished_is_left_alone(killed):
    before = {path: path.read_bytes() for path in killed.whole.rglob("*") if path.is_file()}
    output = killed.folder / "output.txt"
    assert start(killed.folder / "recipe.yaml", killed.folder / "whole", output).code() == 0
    assert "is trained already" in output.read_text()
    assert {path: path.read_bytes() for path in killed.whole.rglob("*") if path.is_file()} == before


# --- the measure itself


@pytest.fixture
def copied(killed, tmp_path) -> Path:
    return Path(shutil.copytree(killed.whole, tmp_path / "run"))


def test_a_copy_of_a_run_is_no_different(copied, killed):
    assert differences(copied, killed.whole) == []


@pytest.mark.parametrize("part", ["pretext", "optimiser"])
def test_one_bit_of_a_checkpoint_is_a_difference(part, copied, killed):
    path = copied / "checkpoints" / "inf-best.pt"
    found = load_checkpoint(path, "inf")
    tensor = (
        found.pretext["encoder.norm.weight"] if part == "pretext" else found.optimiser["state"][0]["exp_avg"]
    )
    tensor.view(torch.int32).view(-1)[0] ^= 1
    put_checkpoint(path, found)
    assert differences(copied, killed.whole) == ["inf-best.pt is another one"]


def test_a_line_too_few_or_another_is_a_difference(copied, killed):
    log = copied / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    for changed in (
        lines[1:],
        [*lines, lines[-1]],
        [lines[0].replace('"epoch": 1', '"epoch": 2'), *lines[1:]],
    ):
        log.write_text("".join(changed))
        assert differences(copied, killed.whole) == ["log.jsonl is another one"]


def test_a_file_too_many_or_too_few_is_a_difference(copied, killed):
    (copied / "checkpoints" / "inf-epoch-0002.pt").unlink()
    (copied / ".log.jsonl.abcdefgh.tmp").write_text("x")
    missing = ["checkpoints/inf-epoch-0002.pt", ".log.jsonl.abcdefgh.tmp"]
    assert differences(copied, killed.whole) == [f"files: {sorted(missing)}"]


def test_scalars_that_come_twice_are_a_difference(copied, killed):
    (events,) = (copied / "tensorboard" / "cml").iterdir()
    events.with_name(f"{events.name}.again").write_bytes(events.read_bytes()[_first(events) :])
    assert differences(copied, killed.whole) == ["tensorboard/cml shows something else"]


def _first(events: Path) -> int:
    """Where the scalars begin: after the version, which comes twice, and the start of the session."""
    content, place = events.read_bytes(), 0
    for _ in range(3):
        (length,) = struct.unpack_from("<Q", content, place)
        place += 8 + 4 + length + 4
    return place


def test_the_command(tmp_path, capsys):
    out = tmp_path / "faults.json"
    assert main(["--kills", "2", "--jobs", "1", "--out", str(out)]) == 0
    assert "2 kills of 1 runs; 1 ended as if never killed" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert (found["kills"], sum(found["hits"].values()), found["faults"]) == (2, 2, [])


def test_the_same_seed_draws_the_same_kills():
    one, same, other = (draw_kills(seed, 2.0) for seed in (0, 0, 1))
    drawn = [next(one) for _ in range(50)]
    assert drawn == [next(same) for _ in range(50)] != [next(other) for _ in range(50)]


def test_an_exit_that_is_not_the_signals_is_a_fault(tmp_path):
    kill = Kill(signal.SIGTERM, "any", 0.0)
    for code, place, said, wrong in [
        (143, "training", "stopped", False),
        (0, "training", "trained", False),
        (-signal.SIGTERM, "training", "", True),
        (1, "start", "Traceback", True),
        (143, "training", "Traceback (most recent call last)", True),
        (2, "training", "error: damaged", True),
        (143, "training", "stopped at stage cml, epoch 2, step 1; the state is saved", True),
    ]:
        assert (Struck(kill, code, place, said).fault(tmp_path) is not None) is wrong
