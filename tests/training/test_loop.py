import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import PRETEXTS, recipe_tree, same, tiny_recipe, tiny_store

from ssl_skeleton.errors import UserError
from ssl_skeleton.pretext.base import Pretext
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint
from ssl_skeleton.training.loop import Stopped

EPOCHS, STEPS = 4, 5  # 18 clips in batches of 4
every_pretext = pytest.mark.parametrize("pretext", PRETEXTS)


class Killed(Exception):
    """Stands for a crash."""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def whole(store, tmp_path_factory):
    """Gives the run of a pretext that was never stopped."""
    runs = {}

    def find(pretext: str) -> Run:
        if pretext not in runs:
            runs[pretext] = Run.start(tiny_recipe(store, pretext), tmp_path_factory.mktemp("runs") / pretext)
            runs[pretext].pretrain()
        return runs[pretext]

    return find


def log(run: Run) -> list[dict]:
    """The run's log without what only the clock knows."""
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("seconds") > 0
        assert line.pop("clips_per_second") > 0
    return lines


def state(run: Run) -> dict:
    """Everything that the last stage's checkpoint holds."""
    return vars(load_checkpoint(run.folder / "checkpoints" / "main.pt", "main"))


def resumed(run: Run) -> Run:
    again = Run.start(run.recipe, run.folder, resume=True)
    again.pretrain()
    return again


def equal(one: Run, other: Run) -> bool:
    return log(one) == log(other) and same(state(one), state(other))


def kill_after(last_epoch: int):
    def watch(stage, epoch, values):
        if stage.name == "main" and epoch == last_epoch:
            raise Killed

    return watch


@contextmanager
def signal_at(step: int, number: int) -> Iterator[None]:
    """Send a signal during that step (counted from 1) of the run."""
    forward, steps = Pretext.forward, []

    def counted(self, views):
        steps.append(1)
        if len(steps) == step:
            signal.raise_signal(number)
        return forward(self, views)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretext, "forward", counted)
        yield


@every_pretext
def test_one_seed_gives_one_run(pretext, whole, tmp_path):
    again = Run.start(whole(pretext).recipe, tmp_path / "run")
    again.pretrain()
    assert equal(whole(pretext), again)
    assert [line["epoch"] for line in log(again) if line["stage"] == "main"] == [1, 2, 3, 4]


def test_another_seed_gives_another(store, whole, tmp_path):
    other = Run.start(tiny_recipe(store, seed=1), tmp_path / "run")
    other.pretrain()
    assert log(other)[0]["loss"] != log(whole("contrast"))[0]["loss"]
    assert not same(state(other)["pretext"], state(whole("contrast"))["pretext"])


@every_pretext
@pytest.mark.parametrize("epoch", [1, 3])
def test_going_on_after_an_epoch(pretext, epoch, whole, tmp_path):
    run = Run.start(whole(pretext).recipe, tmp_path / "run")
    with pytest.raises(Killed):
        run.pretrain(kill_after(epoch))
    assert state(run)["epoch"] == epoch
    assert equal(whole(pretext), resumed(run))


@every_pretext
@pytest.mark.parametrize(
    ("step", "number"), [(2, signal.SIGTERM), (STEPS, signal.SIGINT), (2 * STEPS + 3, signal.SIGINT)]
)
def test_going_on_after_a_signal(pretext, step, number, whole, tmp_path):
    before = signal.getsignal(number)
    run = Run.start(whole(pretext).recipe, tmp_path / "run")
    with signal_at(step, number), pytest.raises(Stopped) as stopped:
        run.pretrain()
    assert stopped.value.signal == number
    assert signal.getsignal(number) == before
    assert equal(whole(pretext), resumed(run))


@pytest.mark.parametrize("last_epoch", [2, EPOCHS])
def test_a_signal_between_epochs_is_heard(last_epoch, whole, tmp_path):
    run = Run.start(whole("contrast").recipe, tmp_path / "run")

    def watch(stage, epoch, values):
        if epoch == last_epoch:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        run.pretrain(watch)
    assert equal(whole("contrast"), resumed(run))


def test_log_lines_beyond_the_checkpoint_are_taken_back(store, whole, tmp_path):
    tree = recipe_tree(store, "fuse")
    tree["stages"][1]["training"]["checkpoint_every"] = 2
    run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path / "run")
    with pytest.raises(Killed):
        run.pretrain(kill_after(3))
    assert (state(run)["epoch"], len(log(run))) == (2, 1 + 3)
    with (run.folder / "log.jsonl").open("a") as file:
        file.write('{"stage": "main", "ep')  # killed while it wrote
    assert equal(whole("fuse"), resumed(run))


def test_the_board_shows_every_epoch_once_after_going_on(whole, tmp_path):
    recipe = whole("contrast").recipe
    training = recipe.stages[0].training.model_copy(update={"checkpoint_every": 2})
    stage = recipe.stages[0].model_copy(update={"training": training})
    run = Run.start(recipe.model_copy(update={"stages": (stage,)}), tmp_path / "run")
    with pytest.raises(Killed):
        run.pretrain(kill_after(3))
    assert state(run)["epoch"] == 2  # epoch 3 is on the board but comes again
    began = int(time.time())
    while int(time.time()) == began:  # a board's files are read in order of the second they began in
        time.sleep(0.05)
    resumed(run)
    board = EventAccumulator(str(run.folder / "tensorboard" / "main")).Reload()
    lines = log(run)
    for name in ("loss", "lr", "contrast_accuracy"):
        events = board.Scalars(name)
        assert [event.step for event in events] == [1, 2, 3, 4]
        assert [event.value for event in events] == pytest.approx([line[name] for line in lines], rel=1e-6)


def test_progress_wraps_the_batches_of_every_epoch(store, whole, tmp_path):
    seen = []

    def progress(batches, total, what):
        seen.append((what, total, 0))
        for count, batch in enumerate(batches, 1):
            seen[-1] = (what, total, count)
            yield batch

    run = Run.start(whole("contrast").recipe, tmp_path / "run")
    with signal_at(STEPS + 3, signal.SIGTERM), pytest.raises(Stopped):
        run.pretrain(progress=progress)
    assert seen == [("main 1/4", STEPS, STEPS), ("main 2/4", STEPS, 4)]  # stopped before the fourth
    seen.clear()
    again = Run.start(run.recipe, run.folder, resume=True)
    again.pretrain(progress=progress)
    assert seen == [("main 2/4", 2, 2), ("main 3/4", STEPS, STEPS), ("main 4/4", STEPS, STEPS)]
    assert equal(whole("contrast"), again)


def test_a_finished_run_is_left_alone(whole):
    run = whole("contrast")
    files = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    resumed(run)
    assert files == {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_the_log_holds_means_over_clips(store, tmp_path, monkeypatch):
    seen, forward = [], Pretext.forward

    def noted(self, views):
        parts = forward(self, views)
        seen.append((float(parts["loss"].detach()), len(views["input"])))
        return parts

    monkeypatch.setattr(Pretext, "forward", noted)
    run = Run.start(tiny_recipe(store, epochs=1), tmp_path / "run")
    run.pretrain()
    assert [clips for _, clips in seen] == [4, 4, 4, 4, 2]
    mean = sum(loss * clips for loss, clips in seen) / 18
    assert log(run)[0]["loss"] == pytest.approx(mean)


def test_every_training_clip_is_seen_once_an_epoch_in_new_order(store, tmp_path, monkeypatch):
    seen, forward = [], Pretext.forward

    def noted(self, views):
        seen.extend(views["input"].index.tolist())
        return forward(self, views)

    monkeypatch.setattr(Pretext, "forward", noted)
    run = Run.start(tiny_recipe(store, epochs=2), tmp_path / "run")
    run.pretrain()
    assert sorted(seen[:18]) == sorted(seen[18:]) == run.splits[0].train.tolist()
    assert seen[:18] != seen[18:]


def test_a_loss_that_is_not_finite_stops_the_run(store, tmp_path, monkeypatch):
    forward, steps = Pretext.forward, []

    def poisoned(self, views):
        steps.append(1)
        parts = forward(self, views)
        return parts | {"loss": parts["loss"] * math.nan} if len(steps) == STEPS + 3 else parts

    monkeypatch.setattr(Pretext, "forward", poisoned)
    run = Run.start(tiny_recipe(store), tmp_path / "run")
    with pytest.raises(UserError) as error:
        run.pretrain()
    message = str(error.value)
    assert message.startswith("stage main, epoch 2, step 2: a loss is not finite (loss nan, contrast ")
    assert "\n" not in message
    assert state(run)["epoch"] == 1
    poisoned_state = load_checkpoint(run.folder / "checkpoints" / "main.not-finite.pt", "main")
    assert (poisoned_state.epoch, poisoned_state.step) == (1, 2)
    assert str(run.folder / "checkpoints" / "main.not-finite.pt") in message


def test_gradients_are_clipped(store, tmp_path):
    moved = []
    for limit in (None, 1e-3):
        tree = recipe_tree(store, epochs=1)
        tree["stages"][0]["training"] |= {
            "clip_gradient": limit,
            "batch": 18,
            "schedule": {"name": "step"},
            "optimiser": {"name": "sgd", "lr": 1.0, "momentum": 0.0, "weight_decay": 0.0},
        }
        run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path / str(limit))
        start = run.build_pretext(run.recipe.stages[0]).state_dict()
        run.pretrain()
        after = state(run)["pretext"]
        trained = [name for name in start if name.startswith(("encoder.gru", "encoder.norm.w", "head."))]
        moved.append(torch.cat([(after[name] - start[name]).flatten() for name in trained]).norm().item())
    assert moved[0] > 1e-2
    assert moved[1] <= 1.01e-3


def test_the_rate_follows_the_schedule(whole):
    # Four fifths into each epoch: one epoch of warmup, then half a cosine over three.
    expected = [0.01 * 16 / 18] + [
        0.01 * 0.5 * (1 + math.cos(math.pi * (epoch + 16 / 18) / 3)) for epoch in range(3)
    ]
    assert [line["lr"] for line in log(whole("contrast"))] == pytest.approx(expected)
