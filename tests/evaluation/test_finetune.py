import math
import statistics
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import one_line
from hypothesis import given
from hypothesis import strategies as st
from tiny import ENCODER, tiny_store

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig
from ssl_skeleton.encoders.st_gcn import STGCNConfig
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation import finetune
from ssl_skeleton.evaluation.features import Source, labels_of_test, raw_encoding, split_features
from ssl_skeleton.evaluation.finetune import (
    FinetuneConfig,
    Lesson,
    check_lesson,
    draw_labelled,
    finetune_scores,
    probe_scores,
)
from ssl_skeleton.evaluation.linear import LinearConfig, linear_probe

CLASSES = ("still", "slow", "fast")
FAST = FinetuneConfig.from_tree({"epochs": 3, "batch": 4}, "finetune")
GCN = STGCNConfig(width=0.125, depth=0.25, dropout=0.2)
# The tiny store has nine clips of each class, one class after another.
SPLIT = Split("some", train=np.arange(27)[np.arange(27) % 3 < 2], test=np.arange(2, 27, 3))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return open_store(tiny_store(tmp_path_factory.mktemp("stores") / "store"))


@pytest.fixture(scope="module")
def packed(store) -> PackedClips:
    return PackedClips(store, bodies=1)


def changed(config: FinetuneConfig = FAST, **values) -> FinetuneConfig:
    return FinetuneConfig.from_tree(config.to_tree() | values, "finetune")


def lesson(packed: PackedClips, *, split: Split = SPLIT, seed: int = 0, frames: int | None = 6) -> Lesson:
    return Lesson(packed, split, SamplingConfig(frames=frames), len(CLASSES), seed)


def learn(told: Lesson, config: FinetuneConfig = FAST, *encoders, report=lambda standing: None):
    """Scores and logs of encoders that begin anew in every repeat."""

    def start(repeat: int) -> list[Source]:
        torch.manual_seed(repeat)
        built = [encoder.build(told.packed.layout, 3, 1) for encoder in encoders or (ENCODER,)]
        return [Source(one, ViewConfig(augment=config.augment), "mean_max") for one in built]

    return finetune_scores(
        told,
        start,
        config,
        what="it",
        report=report,
    )


def spy(monkeypatch, name: str) -> list[tuple]:
    """The arguments of every call of a function that finetune.py uses."""
    calls, function = [], getattr(finetune, name)

    def noted(*args, **kwargs):
        calls.append(args)
        return function(*args, **kwargs)

    monkeypatch.setattr(finetune, name, noted)
    return calls


@pytest.mark.parametrize("encoders", [(ENCODER,), (GCN,), (ENCODER, GCN)], ids=["gru", "gcn", "both"])
def test_it_learns_to_tell_classes_apart(encoders, packed):
    config = changed(epochs=20, batch=6, optimiser={"name": "adamw", "lr": 0.02}, augment={})
    scores, (log,) = learn(lesson(packed, frames=None), config, *encoders)
    assert scores["top1"] >= 8 / 9
    assert log[-1]["loss"] < log[0]["loss"] / 3
    assert log[-1]["accuracy"] > 0.8
    assert np.array(scores["confusion"]).sum() == 9


def test_it_learns_with_everything_turned_on(packed):
    config = changed(
        epochs=25,
        batch=6,
        optimiser={"name": "adamw", "lr": 0.02},
        schedule={"name": "step", "milestones": [20]},
        layer_decay=0.8,
        label_smoothing=0.1,
        mixup=0.2,
        augment={"crop": 0.9, "noise": 0.01, "flip": 0.5},
    )
    assert learn(lesson(packed, frames=None), config)[0]["top1"] >= 7 / 9


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=60),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.integers(0, 99),
)
def test_the_share_of_every_class_is_exact(labels, one, other, seed):
    few, more = sorted((one, other))

    def drawn(share: float) -> list[int]:
        return draw_labelled(np.array(labels), share, torch.Generator().manual_seed(seed)).tolist()

    places = drawn(few)
    assert places == sorted(set(places))
    counts = Counter(labels[place] for place in places)
    assert counts == {label: max(1, round(few * count)) for label, count in Counter(labels).items()}
    assert set(places) <= set(drawn(more)) <= set(drawn(1.0)) == set(range(len(labels)))


def test_every_repeat_draws_other_labels(packed):
    told = lesson(packed)
    draws = {tuple(told.draw(changed(labels=0.5), repeat)) for repeat in range(5)}
    assert len(draws) == 5
    assert tuple(lesson(packed, seed=1).draw(changed(labels=0.5), 0)) not in draws
    assert told.draw(FAST, 3).tolist() == list(range(18))


def test_clips_without_a_given_label_are_not_learned_from(packed, monkeypatch):
    calls, told, config = spy(monkeypatch, "make_views"), lesson(packed), changed(labels=0.4, repeats=1)
    learn(told, config)
    seen = Counter(clip for _, index, _, _, draws in calls if draws is not None for clip in index.tolist())
    assert seen == dict.fromkeys(SPLIT.train[told.draw(config, 0)].tolist(), 3)  # once an epoch
    assert Counter(packed.labels[list(seen)].tolist()) == {0: 2, 1: 2, 2: 2}


def test_one_seed_gives_one_result(packed):
    config = changed(mixup=0.5, labels=0.7)
    first, again = (learn(lesson(packed), config, GCN) for _ in range(2))
    assert first == again
    assert learn(lesson(packed, seed=1), config, GCN)[1] != first[1]


def test_what_else_draws_random_numbers_changes_nothing(packed):
    config = changed(mixup=0.5, batch=6)
    noted = learn(lesson(packed), config, GCN, report=lambda standing: torch.rand(7))
    assert noted == learn(lesson(packed), config, GCN)


def test_every_repeat_has_its_own_batches_and_augmentations(packed, monkeypatch):
    views, orders = spy(monkeypatch, "Draws"), spy(monkeypatch, "epoch_order")
    learn(lesson(packed), changed(repeats=2, epochs=2, batch=9))
    views_of, order_of = ([source for source, _ in views], [source for _, source in orders])
    for sources, draws in ((views_of, 2 * 2 * 2), (order_of, 2 * 2)):
        seeds = [source.initial_seed() for source in sources]
        assert len(seeds) == len(set(seeds)) == draws


def test_a_repeat_does_not_depend_on_those_before_it(packed):
    scores, logs = learn(lesson(packed), changed(repeats=3, labels=0.5))
    alone, (log,) = learn(lesson(packed), changed(labels=0.5, repeats=1))
    assert logs[0] == log
    assert len({str(each) for each in logs}) == 3
    assert scores["repeats"]["top1"][0] == alone["top1"]
    assert alone["repeats"] == {name: [alone[name]] for name in ("top1", "balanced")}
    assert "std" not in alone
    values = scores["repeats"]["top1"]
    assert scores["top1"] == pytest.approx(np.mean(values))
    assert scores["std"]["top1"] == pytest.approx(np.std(values, ddof=1))
    assert np.array(scores["confusion"]).sum() == 3 * 9


def rankings(told: Lesson, monkeypatch) -> tuple[list, list]:
    with monkeypatch.context() as patch:
        calls = spy(patch, "classification_scores")
        _, logs = learn(told)
    return [ranking.tolist() for ranking, *_ in calls], logs


@pytest.mark.parametrize("part", ["test", "validation"])
def test_labels_that_are_not_of_the_training_part_change_no_answer(part, packed, monkeypatch):
    split = replace(SPLIT, test=SPLIT.test[:5], validation=SPLIT.test[5:])
    answers, logs = rankings(lesson(packed, split=split), monkeypatch)
    poisoned = packed.labels.clone()
    poisoned[getattr(split, part)] = (poisoned[getattr(split, part)] + 1) % 3
    before = learn(lesson(packed, split=split))[0]
    monkeypatch.setattr(packed, "labels", poisoned)
    found, found_logs = rankings(lesson(packed, split=split), monkeypatch)
    assert found == answers
    assert (found_logs == logs) is (part == "test")
    assert (learn(lesson(packed, split=split))[0] == before) is (part == "validation")


def test_the_test_part_teaches_nothing_and_is_answered(store, packed, monkeypatch):
    _, logs = learn(lesson(packed))
    frames_rvc, told = packed.frames.x_rvc.clone(), []
    for clip, first, _, frames in store.tracks:
        if clip in SPLIT.test:
            frames_rvc[first : first + frames] = torch.nan
    monkeypatch.setattr(packed.frames, "x_rvc", frames_rvc)
    with pytest.raises(UserError, match=r"answers are not finite; lower evaluation\.finetune\.optimiser\.lr"):
        learn(lesson(packed), report=told.append)
    assert [one.values["loss"] for one in told if one.step == one.steps] == [log["loss"] for log in logs[0]]


def test_the_validation_part_is_logged_and_no_more(packed):
    split = replace(SPLIT, test=SPLIT.test[:5], validation=SPLIT.test[5:])
    scores, (log,) = learn(lesson(packed, split=split))
    without, (bare,) = learn(lesson(packed, split=replace(SPLIT, test=SPLIT.test[:5])))
    assert scores == without
    assert [values.keys() - before.keys() for values, before in zip(log, bare, strict=True)] == [
        {"validation"}
    ] * 3
    assert log[-1]["validation"] in [right / 4 for right in range(5)]
    known = lesson(packed, split=replace(SPLIT, test=SPLIT.test[5:]))
    assert learn(known)[0]["top1"] == log[-1]["validation"]


def test_all_encoders_see_one_crop_and_test_clips_are_whole(packed, monkeypatch):
    calls, drawn = spy(monkeypatch, "make_views"), spy(monkeypatch, "Draws")
    config = changed(epochs=2, batch=9)
    learn(lesson(packed), config, ENCODER, ENCODER)
    assert [draws is not None for *_, draws in calls] == [True] * 4 + [False]
    assert len({source.initial_seed() for source, _ in drawn}) == len(drawn) == 4
    assert all([view.augment for view in views] == [config.augment] * 2 for _, _, _, views, _ in calls)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_the_loss_is_that_of_the_mixed_and_smoothed_labels(alpha, smoothing, packed, monkeypatch):
    mixes, losses, cross_entropy = spy(monkeypatch, "mix"), [], torch.nn.functional.cross_entropy

    def noted(logits_nc, target_nc, label_smoothing):
        loss = cross_entropy(logits_nc, target_nc, label_smoothing=label_smoothing)
        losses.append((logits_nc.detach().double(), target_nc, loss.item()))
        return loss

    monkeypatch.setattr(finetune.functional, "cross_entropy", noted)
    learn(lesson(packed), changed(mixup=alpha, label_smoothing=smoothing), ENCODER, ENCODER)
    assert len(mixes) == (2 * len(losses) if alpha else 0)
    shares = []
    for step, (logits_nc, target_nc, loss) in enumerate(losses):
        if alpha:
            (clips, share_n, partner_n), (_, *other) = mixes[2 * step : 2 * step + 2]
            assert torch.equal(share_n, other[0])
            assert torch.equal(partner_n, other[1])
            assert sorted(partner_n.tolist()) == list(range(len(clips)))
            labels = torch.eye(3)[clips.label]
            expected = share_n[:, None] * labels + (1 - share_n[:, None]) * labels[partner_n]
            torch.testing.assert_close(target_nc, expected)
            shares += share_n.tolist()
        smooth_nc = (1 - smoothing) * target_nc.double() + smoothing / 3
        by_hand = -(smooth_nc * logits_nc.log_softmax(dim=1)).sum(dim=1).mean()
        assert loss == pytest.approx(by_hand.item(), abs=1e-6)
        if not alpha:
            assert sorted(target_nc.flatten().tolist()) == [0.0] * 2 * len(target_nc) + [1.0] * len(target_nc)
    if alpha:  # Beta(0.3, 0.3) has variance 1 / (4 (2 * 0.3 + 1))
        assert len(set(shares)) == len(shares) == 54
        assert statistics.pstdev(shares) == pytest.approx(math.sqrt(1 / 6.4), abs=0.07)


def test_the_rate_follows_schedule_and_depth(packed, monkeypatch):
    optimisers, rates = spy(monkeypatch, "set_rates"), []
    decay = changed(
        epochs=2, batch=9, layer_decay=0.5, schedule={"name": "cosine"}, optimiser={"name": "sgd", "lr": 0.1}
    )
    learn(lesson(packed), decay, report=lambda told: told.step == 2 and rates.append(told.values["lr"]))
    expected = [0.1 * 0.5 * (1 + math.cos(math.pi * (step + 0.5) / 4)) for step in range(4)]
    assert [rate for _, rate, _ in optimisers] == pytest.approx(expected)
    assert rates == pytest.approx(expected[1::2])
    groups = optimisers[-1][0].param_groups
    assert [group["lr"] for group in groups] == pytest.approx(
        [expected[-1] * 0.5**depth for depth in range(4)]
    )


@given(st.integers(1, 200), st.integers(1, 9), st.floats(0, 50), st.sampled_from(["cosine", "step"]))
def test_no_step_is_without_a_rate_and_a_tenth_at_most_rises(epochs, steps, warmup, kind):
    config = changed(epochs=epochs, schedule={"name": kind, "warmup": warmup})
    rates = [config.rate(epoch, step, steps) for epoch in range(epochs) for step in range(steps)]
    assert min(rates) > 0
    assert max(rates) <= config.optimiser.lr
    assert rates.index(max(rates)) <= len(rates) / 10 + 0.5  # half a step
    if kind == "cosine":
        highest = rates.index(max(rates))
        assert rates[highest:] == sorted(rates[highest:], reverse=True)


def test_short_trainings_end_at_a_low_rate():
    config = FinetuneConfig(epochs=5)
    rates = [config.rate(epoch, 0, 1) / config.optimiser.lr for epoch in range(5)]
    assert rates[0] > 0.9
    assert rates[-1] < 0.1
    with_long = [FinetuneConfig().rate(epoch, 0, 1) for epoch in range(100)]
    assert with_long.index(max(with_long)) == 5  # a usual length keeps its warm-up


def test_few_labels_are_drawn_several_times():
    assert (changed().times, changed(labels=0.5).times, changed(labels=0.5, repeats=1).times) == (1, 5, 1)


def test_every_step_is_told(packed):
    told = []
    _, logs = learn(lesson(packed), changed(repeats=2), report=told.append)
    names = ["it, repeat 1 of 2,", "it, repeat 2 of 2,"]
    assert [(one.stage, one.epoch, one.epochs, one.step, one.steps) for one in told] == [
        (name, epoch, 3, step, 5) for name in names for epoch in (1, 2, 3) for step in range(1, 6)
    ]
    for log, one in zip([*logs[0], *logs[1]], told[4::5], strict=True):
        assert one.values.items() >= log.items()
        assert one.values.keys() - log.keys() == {"lr", "clips_per_second"}
    left = [one.seconds_left for one in told]
    assert (left[14], left[29]) == (0, 0)
    assert min(left[:14]) > 0 < min(one.clips_per_second for one in told)


def test_a_loss_that_is_not_finite_ends_it(packed):
    broken = changed(optimiser={"name": "sgd", "lr": 1e38}, schedule={"name": "step"})
    with pytest.raises(UserError) as caught:
        learn(lesson(packed), broken)
    assert one_line(caught.value).startswith("it 1/3, step ")
    assert "the loss is not finite (" in str(caught.value)
    assert str(caught.value).endswith("; lower evaluation.finetune.optimiser.lr")


def test_the_probe_learns_from_the_same_clips(packed, monkeypatch):
    told, probe = lesson(packed), LinearConfig(epochs=5)
    features = split_features(packed, SPLIT, raw_encoding(packed, told.sampling, ViewConfig()))
    calls = spy(monkeypatch, "linear_probe")
    scores = probe_scores(told, features, changed(labels=0.5, repeats=3), probe)
    assert len({seed for *_, seed in calls}) == 3  # of what is held out, and of the order of batches
    truth = labels_of_test(packed, SPLIT)
    for repeat, (few, classes, config, seed) in enumerate(calls):
        kept = told.draw(changed(labels=0.5), repeat)
        assert np.array_equal(few.train, features.train[kept])
        assert np.array_equal(few.train_labels, features.train_labels[kept])
        assert np.array_equal(few.test, features.test)
        assert scores["repeats"]["top1"][repeat] == linear_probe(few, classes, config, seed)(truth)["top1"]
    whole = probe_scores(told, features, FAST, probe)
    assert whole["top1"] == linear_probe(features, 3, probe, 0)(truth)["top1"]
    assert whole.keys() == {"top1", "balanced", "interval", "per_class", "confusion", "predicted", "repeats"}


@pytest.mark.parametrize(
    ("split", "poison", "message"),
    [
        (SPLIT, None, None),
        (replace(SPLIT, test=SPLIT.test[:0]), None, "split some: has no test part"),
        (SPLIT, -1, "split some: some clips have no label"),
        (replace(SPLIT, train=SPLIT.train[:12]), None, "split some: test clips show 'fast', and no training"),
        (Split("some", train=np.arange(18), test=np.arange(18, 21)), None, "test clips show 'fast'"),
        (
            Split("some", train=np.arange(9), test=np.arange(9, 12)),
            None,
            "training clips show 'still' alone, but fine-tuning needs two classes",
        ),
        (Split("some", train=np.arange(18), test=np.arange(9)), None, None),  # a class that nobody shows
    ],
)
def test_what_cannot_be_learned(split, poison, message, packed):
    labels = packed.labels.numpy().copy()
    if poison is not None:
        labels[split.train[3]] = poison
    if message is None:
        check_lesson(labels, split, CLASSES)
        return
    with pytest.raises(UserError) as caught:
        check_lesson(labels, split, CLASSES)
    assert message in one_line(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs: "),
        ({"labels": 0.0}, "labels: "),
        ({"labels": 2.0}, r"labels: a share of at most 1, which is all, not 2; 2 % are 0\.02"),
        ({"layer_decay": 0.0}, "layer_decay: "),
        ({"layer_decay": 1.5}, "layer_decay: "),
        ({"label_smoothing": 1.0}, "label_smoothing: "),
        ({"mixup": -0.1}, "mixup: "),
        ({"repeats": 0}, "repeats: "),
        ({"optimizer": {}}, "unknown key 'optimizer'; did you mean 'optimiser'"),
        ({"augment": {"crop": 0.0}}, r"augment\.crop: "),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(UserError, match=message):
        changed(**change)


def test_results_of_other_shares_have_other_names():
    assert changed().evaluator(from_scratch=False) == "finetune"
    assert changed(labels=0.05).evaluator(from_scratch=False) == "finetune_0.05"
    assert changed(labels=1).evaluator(from_scratch=True) == "finetune_scratch"
    assert changed(labels=0.1).evaluator(from_scratch=True) == "finetune_scratch_0.1"
