import copy
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import PRETEXTS, listed, pretext_task, same, tiny_store
from torch import Tensor, nn

from ssl_skeleton.data.clips import Clips
from ssl_skeleton.encoders import AnyEncoder
from ssl_skeleton.encoders.base import Encoder
from ssl_skeleton.encoders.gru import GRUConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.pretext.base import Pretext
from ssl_skeleton.training import step as step_module
from ssl_skeleton.training.batches import batches
from ssl_skeleton.training.checkpoint import Checkpoint
from ssl_skeleton.training.config import TrainingConfig
from ssl_skeleton.training.schedule import AdamWConfig, SGDConfig
from ssl_skeleton.training.signals import Asked
from ssl_skeleton.training.step import NotFinite, Step
from ssl_skeleton.training.task import Task

PLAIN = SGDConfig(lr=0.1, momentum=0.0, weight_decay=0.0)
every_pretext = pytest.mark.parametrize("pretext", PRETEXTS)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture
def plain_encoder(monkeypatch) -> None:
    """Tiny pretexts without BatchNorm, which knows the other clips of a micro-batch."""
    monkeypatch.setattr("tiny.ENCODER", GRUConfig(hidden=8, layers=2, dropout=0.3))


def made(task: Task, config: TrainingConfig, steps: int = 1) -> tuple[Step, list[dict[str, float]]]:
    """The first steps of a task, and their values."""
    step = Step(task, config)
    every = zip(range(steps), batches(task, config.batch, 0), strict=False)
    return step, [step(batch, 0, Asked()) for _, batch in every]


def checkpoint_of(step: Step) -> Checkpoint:
    return Checkpoint(stage="main", epoch=0, step=1, totals={}, **copy.deepcopy(step.state()))


IN_BATCH = [name for name, tree in PRETEXTS.items() if tree.get("in_batch")]


# Where other clips of the batch are negatives, those of a micro-batch are fewer: see the next test.
@pytest.mark.parametrize("pretext", [name for name in PRETEXTS if name not in IN_BATCH])
@pytest.mark.parametrize("accumulate", [2, 5])
@pytest.mark.usefixtures("plain_encoder")
def test_micro_batches_learn_what_their_batch_learns(pretext, accumulate, store):
    config = TrainingConfig(batch=7, optimiser=PLAIN)
    whole, expected = made(pretext_task(pretext, store), config, steps=4)  # the last has 6 clips
    parts, found = made(
        pretext_task(pretext, store), config.model_copy(update={"accumulate": accumulate}), steps=4
    )
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
    torch.testing.assert_close(parts.state()["pretext"], whole.state()["pretext"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pretext", IN_BATCH)
def test_negatives_in_the_batch_are_those_of_the_micro_batch(pretext, store, monkeypatch):
    monkeypatch.setattr("tiny.ENCODER", GRUConfig(hidden=8, layers=2, dropout=0.0))
    task, reference = pretext_task(pretext, store), pretext_task(pretext, store)
    config = TrainingConfig(batch=7, optimiser=PLAIN, accumulate=2)
    before = copy.deepcopy(task.pretext.state_dict())
    _, [found] = made(task, config)
    batch = next(iter(batches(reference, 7, 0)))
    parts = []
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        views = {name: view.rows(rows) for name, view in batch.views.items()}
        parts.append(reference.pretext(views)["loss"] * len(batch.index[rows]) / 7)
    assert found["loss"] == pytest.approx(sum(parts).item(), rel=1e-5)
    sum(parts).backward()
    for name, weight in reference.pretext.named_parameters():
        if weight.requires_grad:
            expected = before[name] - 0.1 * weight.grad
            torch.testing.assert_close(task.pretext.state_dict()[name], expected, rtol=1e-4, atol=1e-6)
    _, [whole] = made(pretext_task(pretext, store), config.model_copy(update={"accumulate": 1}))
    assert whole["loss"] > found["loss"]  # of more negatives


@settings(max_examples=50, deadline=None)
@given(batch=st.integers(1, 40), data=st.data())
def test_micro_batches_share_out_the_clips_of_a_batch(batch, data):
    class Counting(Step):
        def __init__(self, config: TrainingConfig) -> None:
            self.config = config

    accumulate = data.draw(st.integers(1, batch))
    clips = data.draw(st.integers(1, batch))
    views = {"input": Clips(torch.zeros(clips, 1, 1, 1, 1), *[torch.zeros(clips).long()] * 3)}
    given_batch = step_module.Batch(0, torch.arange(clips), views)
    found = Counting(TrainingConfig(batch=batch, accumulate=accumulate))._micro_batches(given_batch)
    assert sorted(place for _, places in found for place in places) == list(range(clips))
    assert all([*range(clips)][rows] == [*places] for rows, places in found)
    assert max(len(places) for _, places in found) <= math.ceil(batch / accumulate)
    assert min(len(places) for _, places in found) >= 1
    if clips == batch:
        assert len(found) == accumulate


def test_a_step_is_plain_gradient_descent(store, monkeypatch):
    """Against autograd and the rule of the optimiser, written out."""
    monkeypatch.setattr("tiny.ENCODER", GRUConfig(hidden=8, dropout=0.0, input_norm="batch"))
    task, reference = pretext_task("joint", store), pretext_task("joint", store)
    config = TrainingConfig(
        batch=9, optimiser=SGDConfig(lr=0.5, momentum=0.0, weight_decay=0.1), lr_of_batch=18
    )
    before = copy.deepcopy(task.pretext.state_dict())
    made(task, config)
    batch = next(iter(batches(reference, 9, 0)))
    loss = reference.pretext(batch.views)["loss"]
    names = [name for name, weight in reference.pretext.named_parameters() if weight.requires_grad]
    weights = [dict(reference.pretext.named_parameters())[name] for name in names]
    gradients = dict(zip(names, torch.autograd.grad(loss, weights), strict=True))
    after = task.pretext.state_dict()
    for name, gradient in gradients.items():
        expected = before[name] - 0.25 * (gradient + 0.1 * before[name])
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-6)


@every_pretext
def test_every_trained_weight_has_a_gradient(pretext, store):
    """Ranks wait for the gradients of all weights that are trained."""
    step, _ = made(pretext_task(pretext, store), TrainingConfig(batch=5))
    assert all(weight.grad is not None for weight in step.pretext.parameters() if weight.requires_grad)
    assert all(weight.grad is None for weight in step.pretext.parameters() if not weight.requires_grad)


@pytest.mark.parametrize(
    "encoder", listed(AnyEncoder), ids=lambda config: config.model_fields["name"].default
)
def test_every_weight_of_an_encoder_has_a_gradient(encoder, store, monkeypatch):
    small = {"width": 0.1, "depth": 0.1}
    tree = {name: value for name, value in small.items() if name in encoder.model_fields}
    if "encoder" in encoder.model_fields:  # one around another
        tree["encoder"] = {"name": "st_gcn", **small}
    monkeypatch.setattr("tiny.ENCODER", encoder.from_tree(tree, "encoder"))
    step, _ = made(pretext_task("contrast", store, frames=16), TrainingConfig(batch=3))
    missing = [name for name, weight in step.pretext.encoder.named_parameters() if weight.grad is None]
    assert not missing


def poison(monkeypatch: pytest.MonkeyPatch, value: float, name: str = "loss") -> None:
    forward = Pretext.forward

    def poisoned(self: Pretext, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        parts = forward(self, views)
        return parts | {name: parts[name] * 0 + value}

    monkeypatch.setattr(Pretext, "forward", poisoned)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "contrast_accuracy"])
def test_no_weight_moves_by_what_is_not_finite(value, name, store, monkeypatch):
    poison(monkeypatch, value, name)
    task = pretext_task("contrast", store)
    before = {name: weight.clone() for name, weight in task.pretext.named_parameters()}
    with pytest.raises(NotFinite, match=rf"a loss is not finite \(.*{name} {value:g}"):
        made(task, TrainingConfig(batch=5))
    assert same(before, dict(task.pretext.named_parameters()))


def overflow_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Make the gradients, not the loss, infinite in these steps, from 1."""
    forward, count = Pretext.forward, []

    def overflowing(self: Pretext, views: Mapping[str, Clips]) -> dict[str, Tensor]:
        count.append(1)
        parts = forward(self, views)
        if not steps or len(count) in steps:
            parts["loss"].register_hook(lambda slope: slope * math.inf)
        return parts

    monkeypatch.setattr(Pretext, "forward", overflowing)


def test_a_step_in_which_fp16_overflows_is_left_out(store, monkeypatch):
    config = TrainingConfig(batch=6, precision="fp16", optimiser=PLAIN, clip_gradient=1.0)
    task = pretext_task("contrast", store)
    step = Step(task, config)
    overflow_at(monkeypatch, 2)
    scales, moved = [step.scaler.get_scale()], []
    for batch in batches(task, 6, 0):
        before = [weight.clone() for weight in task.pretext.encoder.parameters()]
        step(batch, 0, Asked())
        moved.append(not same(before, list(task.pretext.encoder.parameters())))
        scales.append(step.scaler.get_scale())
    assert moved == [True, False, True, True, True]
    assert scales == [2.0**16, 2.0**16, 2.0**15, 2.0**15, 2.0**15, 2.0**15]


def test_fp16_that_overflows_for_ever_stops(store, monkeypatch):
    config = TrainingConfig(batch=27, precision="fp16", optimiser=PLAIN)
    task = pretext_task("reconstruct", store)
    step = Step(task, config)
    (batch,) = batches(task, 27, 0)
    overflow_at(monkeypatch)
    for _ in range(26):  # from 2^16 to 2^-10
        step(batch, 0, Asked())
    with pytest.raises(NotFinite, match="overflow fp16 at every scale; choose precision bf16"):
        step(batch, 0, Asked())


def test_the_loss_scale_is_gone_on_with(store, tmp_path):
    config = TrainingConfig(batch=6, precision="fp16")
    step, _ = made(pretext_task("contrast", store), config, steps=2)
    kept = checkpoint_of(step)
    assert kept.scaler == {"scale": 2.0**16, "_growth_tracker": 2.0}
    again = Step(pretext_task("contrast", store), config)
    kept.scaler["growth_factor"] = 0.0  # an option, which a file of strangers has no say in
    again.load(kept, tmp_path)
    assert again.scaler.get_growth_factor() == 2.0
    del kept.scaler["growth_factor"]
    assert again.state()["scaler"] == kept.scaler
    assert made(pretext_task("reconstruct", store), TrainingConfig(batch=6))[0].state()["scaler"] == {}


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_encoders_compute_in_less_and_all_that_is_kept_in_float32(precision, store):
    seen = []
    task = pretext_task("joint", store)
    task.pretext.encoder.register_forward_hook(
        lambda encoder, given, features: seen.append(torch.get_autocast_dtype("cpu"))
    )
    step, values = made(task, TrainingConfig(batch=6, precision=precision))
    _, expected = made(pretext_task("joint", store), TrainingConfig(batch=6))
    assert seen == [{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]]
    assert not torch.is_autocast_enabled("cpu")
    assert values[0] == pytest.approx(expected[0], rel=0.05, abs=0.01)
    state = step.state()
    floats = [tensor for tensor in state["pretext"].values() if tensor.is_floating_point()]
    memory = [tensor for entry in state["optimiser"]["state"].values() for tensor in entry.values()]
    assert {tensor.dtype for tensor in [*floats, *memory]} == {torch.float32}


@pytest.mark.parametrize("config", [SGDConfig(), AdamWConfig()])
def test_a_checkpoint_of_unfused_optimisers_is_gone_on_from(config, store, tmp_path, monkeypatch):
    training = TrainingConfig(batch=9, optimiser=config)
    with monkeypatch.context() as patch:
        patch.setattr("ssl_skeleton.training.schedule._has_fused", lambda parameters: None)
        older, _ = made(pretext_task("joint", store), training)
    kept = checkpoint_of(older)
    assert kept.optimiser["param_groups"][0]["fused"] is None
    task = pretext_task("joint", store)
    step = Step(task, training)
    step.load(kept, tmp_path)
    assert step.optimiser.param_groups[0]["fused"]
    _, second, _ = batches(task, 9, 0)
    assert step(second, 0, Asked()) == older(second, 0, Asked())
    torch.testing.assert_close(step.state()["pretext"], older.state()["pretext"])


def test_another_optimiser_is_refused(store, tmp_path):
    older, _ = made(pretext_task("joint", store), TrainingConfig(batch=9))
    step = Step(pretext_task("joint", store), TrainingConfig(batch=9, optimiser=AdamWConfig()))
    with pytest.raises(UserError, match="of another optimiser than the recipe's, adamw"):
        step.load(checkpoint_of(older), tmp_path)


@pytest.fixture
def quick_compiler(monkeypatch) -> None:
    """Capture graphs as torch compiles them, and run them as they are: C++ compilers take minutes."""
    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_module(module, backend="aot_eager"))


@pytest.mark.usefixtures("quick_compiler")
def test_compiled_encoders_learn_the_same_under_the_same_names(store, monkeypatch):
    monkeypatch.setattr("tiny.ENCODER", GRUConfig(hidden=8, layers=1, dropout=0.0))
    found = []
    for compiled in (False, True):
        config = TrainingConfig(batch=9, optimiser=PLAIN, compile=compiled)
        step, values = made(pretext_task("fuse_contrast", store), config, steps=3)
        encoders = [part for part in step.pretext.modules() if isinstance(part, Encoder)]
        assert len(encoders) == 3  # the student's, its momentum twin, the teacher's
        assert all((encoder._compiled_call_impl is not None) is compiled for encoder in encoders)
        found.append((values, step.state()["pretext"]))
    torch.testing.assert_close(*found)


def test_a_machine_that_cannot_compile_says_so(store, monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no C++ compiler found")

    compile_module = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda module: compile_module(module, backend=broken))
    with pytest.raises(UserError, match=r"training\.compile: torch cannot compile here \(.*set it to false"):
        made(pretext_task("reconstruct", store), TrainingConfig(batch=9, compile=True))


def test_ranks_need_a_clip_for_every_micro_batch(store, monkeypatch):
    monkeypatch.setattr("ssl_skeleton.ranks.world_size", lambda: 4)
    with pytest.raises(UserError, match="batch: 7 clips are too few for 2 micro-batches on each of 4 ranks"):
        Step(pretext_task("contrast", store), TrainingConfig(batch=7, accumulate=2))
