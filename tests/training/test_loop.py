import itertools
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
from tiny import PRETEXTS, pretext_task, recipe_tree, same, tiny_recipe, tiny_store

from ssl_skeleton.errors import Stopped, UserError
from ssl_skeleton.pretext.base import Pretext
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import Checkpoints, load_checkpoint
from ssl_skeleton.training.config import TrainingConfig
from ssl_skeleton.training.loop import Standing, train
from ssl_skeleton.training.schedule import AdamWConfig, SGDConfig

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
        assert line.pop("clips_per_second") >= 0  # 0 where none was left of an epoch
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


def at_end(epoch: int, then):
    """A report that does something at the end of that epoch of the last stage."""

    def report(standing: Standing) -> None:
        if (standing.stage, standing.epoch, standing.step) == ("main", epoch, standing.steps):
            then()

    return report


def kill_after(epoch: int):
    def kill():
        raise Killed

    return at_end(epoch, kill)


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

    def signal_then():
        signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        run.pretrain(at_end(last_epoch, signal_then))
    assert equal(whole("contrast"), resumed(run))


def trained(folder: Path, store: Path, pretext: str, config: TrainingConfig, stop_after: int = 0) -> dict:
    """The state, and the log without time, of a pretext trained alone; stopped after every so many steps."""
    forward, steps = Pretext.forward, []

    def counted(self, views):
        steps.append(1)
        if stop_after and len(steps) % (stop_after * config.accumulate) == 0:
            signal.raise_signal(signal.SIGTERM)
        return forward(self, views)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretext, "forward", counted)
        while True:
            try:
                train(pretext_task(pretext, store), config, folder)
                break
            except Stopped:
                continue
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    kept = vars(load_checkpoint(folder / "checkpoints" / "main.pt", "main"))
    return {"state": kept, "loss": [line["loss"] for line in lines], "lr": [line["lr"] for line in lines]}


@pytest.mark.parametrize(
    ("pretext", "changes"),
    [
        *((pretext, {}) for pretext in PRETEXTS),
        ("contrast", {"accumulate": 3, "optimiser": SGDConfig(lr=0.01, nesterov=True)}),
        ("reconstruct", {"precision": "bf16", "optimiser": AdamWConfig()}),
        ("fuse_joint", {"precision": "bf16", "accumulate": 3}),
        ("contrast", {"precision": "fp16"}),
        ("fuse_joint", {"precision": "fp16", "accumulate": 3, "optimiser": AdamWConfig()}),
    ],
)
def test_stopping_after_every_step_changes_nothing(pretext, changes, store, tmp_path):
    config = TrainingConfig(epochs=2, batch=6, optimiser=SGDConfig(lr=0.01), clip_gradient=1.0)
    config = config.model_copy(update=changes)
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    expected = trained(tmp_path / "whole", store, pretext, config)
    found = trained(tmp_path / "stopped", store, pretext, config, stop_after=1)
    assert found.keys() == expected.keys()
    assert same(found, expected)
    assert (expected["state"]["scaler"] != {}) is (config.precision == "fp16")


def test_a_checkpoint_within_an_epoch_is_gone_on_from(store, tmp_path):
    class Lost(Exception):
        pass

    def lose(standing: Standing) -> None:
        if (standing.epoch, standing.step) == (2, 4):
            raise Lost

    config = TrainingConfig(epochs=2, batch=5, checkpoint_steps=3, optimiser=SGDConfig(lr=0.01))
    for folder in ("whole", "lost"):
        (tmp_path / folder).mkdir()
    expected = trained(tmp_path / "whole", store, "contrast", config)
    with pytest.raises(Lost):
        train(pretext_task("contrast", store), config, tmp_path / "lost", report=lose)
    kept = load_checkpoint(tmp_path / "lost" / "checkpoints" / "main.pt", "main")
    assert (kept.epoch, kept.step) == (1, 3)  # 27 clips: six steps an epoch, and this is the ninth
    assert same(trained(tmp_path / "lost", store, "contrast", config), expected)


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


def test_every_step_is_reported(store, whole, tmp_path):
    seen: list[Standing] = []
    run = Run.start(whole("contrast").recipe, tmp_path / "run")
    with signal_at(STEPS + 3, signal.SIGTERM), pytest.raises(Stopped):
        run.pretrain(seen.append)
    assert [(at.epoch, at.step) for at in seen] == [
        *((1, step) for step in range(1, 6)),
        (2, 1),
        (2, 2),
        (2, 3),
    ]
    Run.start(run.recipe, run.folder, resume=True).pretrain(seen.append)
    assert [(at.epoch, at.step) for at in seen[8:10]] == [(2, 4), (2, 5)]
    assert all((at.stage, at.epochs, at.steps) == ("main", EPOCHS, STEPS) for at in seen)
    assert all(at.clips_per_second > 0 and at.seconds_left >= 0 for at in seen)
    assert seen[-1].seconds_left == 0
    assert equal(whole("contrast"), run)
    ends = [at.values for at in seen if at.step == at.steps]
    lines = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    assert [{"stage": "main", "epoch": epoch, **values} for epoch, values in enumerate(ends, 1)] == lines


def test_values_within_an_epoch_are_means_so_far(store, tmp_path, monkeypatch):
    losses, seen, forward = [], [], Pretext.forward

    def noted(self, views):
        parts = forward(self, views)
        losses.append(parts["loss"].item())
        return parts

    monkeypatch.setattr(Pretext, "forward", noted)
    Run.start(tiny_recipe(store, epochs=1), tmp_path / "run").pretrain(seen.append)
    for step in range(1, STEPS):
        assert seen[step - 1].values["loss"] == pytest.approx(sum(losses[:step]) / step)
    assert seen[-1].values["loss"] == pytest.approx((4 * sum(losses[:4]) + 2 * losses[4]) / 18)


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


@contextmanager
def poisoned_at(step: int) -> Iterator[list[int]]:
    """Make the loss of that step (counted from 1) not a number; gives the clips of the step."""
    forward, steps, index = Pretext.forward, [], []

    def poisoned(self, views):
        steps.append(1)
        parts = forward(self, views)
        if len(steps) < step:
            return parts
        index.extend(views["input"].index.tolist())
        return parts | {"loss": parts["loss"] * math.nan}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretext, "forward", poisoned)
        yield index


def test_a_loss_that_is_not_finite_stops_the_run(store, tmp_path):
    run = Run.start(tiny_recipe(store), tmp_path / "run")
    with poisoned_at(STEPS + 3) as index, pytest.raises(UserError) as error:
        run.pretrain()
    message, kept = str(error.value), run.folder / "checkpoints" / "main.not-finite.pt"
    assert message.startswith("stage main, epoch 2, step 3: a loss is not finite (loss nan, contrast ")
    names = ", ".join(run.store.names[clip] for clip in index)
    mend = "lower the learning rate or clip gradients, and go on with --resume-anyway"
    assert message.endswith(f"the batch has {names}; the state is in {kept}; {mend}")
    assert state(run)["epoch"] == 1
    poisoned = torch.load(kept, weights_only=True)
    assert (poisoned["epoch"], poisoned["step"], poisoned["index"].tolist()) == (1, 2, index)
    assert all(tensor.isfinite().all() for tensor in poisoned["pretext"].values())


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


def with_observers(patch: pytest.MonkeyPatch, *observers) -> None:
    """Let runs be looked at by these alone."""
    patch.setattr("ssl_skeleton.runs.run.observers", lambda *words: list(observers))


@every_pretext
def test_observers_add_to_the_log_and_change_nothing_else(pretext, whole, tmp_path, monkeypatch):
    def meddle(epoch, pretext, board):
        torch.manual_seed(0)
        pretext.eval()
        board.add_scalar("mine", epoch, epoch)
        return {"seen": 10.0 * epoch}

    with_observers(monkeypatch, meddle, lambda epoch, pretext, board: {"twice": 2.0 * epoch})
    run = Run.start(whole(pretext).recipe, tmp_path / "run")
    run.pretrain()
    lines = log(run)
    own = [(line["epoch"], line.pop("seen"), line.pop("twice")) for line in lines]
    assert own == [(epoch, 10.0 * epoch, 2.0 * epoch) for epoch, *_ in own]
    plain = [
        {name: line[name] for name in found} for line, found in zip(log(whole(pretext)), lines, strict=True)
    ]
    assert lines == plain
    assert same(state(run), state(whole(pretext)))


def test_a_signal_while_observing_is_heard_after_the_epoch_is_logged(whole, tmp_path, monkeypatch):
    def slow(epoch, pretext, board):
        if epoch == 2:
            signal.raise_signal(signal.SIGUSR1)
        return {}

    run = Run.start(whole("contrast").recipe, tmp_path / "run")
    with monkeypatch.context() as patch:
        with_observers(patch, slow)
        with pytest.raises(Stopped, match="stage main, epoch 3, step 0") as stopped:
            run.pretrain()
    assert stopped.value.signal == signal.SIGUSR1
    assert len(log(run)) == 2
    assert same(state(whole("contrast")), state(resumed(run)))


def test_a_second_ctrl_c_leaves_at_once(whole, tmp_path):
    run, forward = Run.start(whole("contrast").recipe, tmp_path / "run"), Pretext.forward

    def impatient(self, views):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return forward(self, views)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretext, "forward", impatient)
        with pytest.raises(KeyboardInterrupt):
            run.pretrain()
    assert not (run.folder / "checkpoints").exists()
    assert equal(whole("contrast"), resumed(run))


def test_a_signal_while_saving_lets_it_be_saved(whole, tmp_path, monkeypatch):
    save, times = Checkpoints.save, itertools.count(1)

    def interrupted(self, *given):
        if next(times) == 2:
            signal.raise_signal(signal.SIGTERM)
        save(self, *given)

    run = Run.start(whole("contrast").recipe, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        with pytest.raises(Stopped, match="stage main, epoch 3, step 1"):
            run.pretrain()
    assert equal(whole("contrast"), resumed(run))
