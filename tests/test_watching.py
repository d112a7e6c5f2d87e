import errno
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import one_line
from matplotlib.image import imread
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import CLIPS, pretext_task, recipe_tree, same, tiny_recipe, tiny_store

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.store import Store, open_store
from ssl_skeleton.data.views.view import make_view
from ssl_skeleton.encoders.pooling import represent
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.health import effective_rank, feature_std, uniformity
from ssl_skeleton.pretext.base import INPUT, Pretext
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint
from ssl_skeleton.training.task import Task
from ssl_skeleton.watching import WatchConfig, observers

NOTHING = {"health": 0, "knn": 0, "projector": 0, "views": 0}
EVERYTHING = {"health": 1, "knn": 1, "projector": 1, "views": 1, "clips": 8}
HEALTH = ["feature_std", "effective_rank", "alignment", "uniformity"]


class Board:
    """A board that is not looked at."""

    def __init__(self, folder: Path) -> None:
        self.log_dir, self.figures = str(folder), []

    def add_figure(self, tag, figure, epoch) -> None:
        self.figures.append((tag, epoch))


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return open_store(tiny_store(tmp_path_factory.mktemp("stores") / "store"))


def watch(task: Task, stores, folder: Path, epochs: int = 1, pooling="mean", **changes) -> list[dict]:
    """What the observers say after each epoch."""
    looking = observers(WatchConfig(**{**NOTHING, **changes}), task, pooling, stores)
    board, found = Board(folder), []
    for epoch in range(1, epochs + 1):
        values = {}
        for observe in looking:
            values |= observe(epoch, task.pretext, board)
        found.append(values)
    return found


def plain_features(task: Task, index: torch.Tensor, pooling="mean") -> np.ndarray:
    """Features of whole clips, one clip at a time."""
    rows = []
    with torch.no_grad():
        for clip in index:
            view = task.pretext.views[INPUT].view
            clips = make_view(task.packed, clip[None], task.sampling, view, None)
            rows.append(represent(task.pretext.encoder.eval(), clips, pooling))
    return torch.cat(rows).numpy()


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def trained(store: Store, folder: Path, pretext: str, looked_at: dict) -> Path:
    """The folder of a run of two epochs; its encoder has BatchNorms and dropout."""
    tree = recipe_tree(store.path, pretext, epochs=2)
    tree["encoder"] |= {"dropout": 0.3}
    Run.start(Recipe.from_tree(tree | {"watch": looked_at}, "recipe"), folder).pretrain()
    return folder


@pytest.mark.parametrize("pretext", ["contrast", "fuse_joint"])
def test_being_watched_changes_nothing(pretext, store, tmp_path):
    watched = trained(store, tmp_path / "watched", pretext, EVERYTHING)
    alone = trained(store, tmp_path / "alone", pretext, NOTHING)
    clock = {"seconds", "clips_per_second"}
    for line, bare in zip(lines(watched), lines(alone), strict=True):
        assert line.keys() - bare.keys() == {*HEALTH, "knn_train"}
        assert {name: line[name] for name in bare.keys() - clock} == {
            name: bare[name] for name in bare.keys() - clock
        }
    states = [
        vars(load_checkpoint(folder / "checkpoints" / "main.pt", "main")) for folder in (watched, alone)
    ]
    assert same(*states)


def test_everything_is_on_the_board(store, tmp_path):
    folder = trained(store, tmp_path / "run", "contrast", {**EVERYTHING, "views": 2})
    board = EventAccumulator(str(folder / "tensorboard" / "main")).Reload()
    for name in (*HEALTH, "knn_train", "loss"):
        shown = [(event.step, event.value) for event in board.Scalars(name)]
        assert shown == [(line["epoch"], pytest.approx(line[name], rel=1e-6)) for line in lines(folder)]
    (picture,) = board.Images("views")
    assert picture.step == 2
    (tmp_path / "views.png").write_bytes(picture.encoded_image_string)
    assert imread(tmp_path / "views.png").std() > 0.01
    config = (folder / "tensorboard" / "main" / "projector_config.pbtxt").read_text()
    assert re.findall(r'tensor_name: "(.*)"', config) == ["epoch-0001", "epoch-0002"]
    points = np.loadtxt(folder / "tensorboard" / "main" / "epoch-0002" / "tensors.tsv")
    assert points.shape == (8, 16)


@pytest.mark.parametrize("pooling", ["mean", "mean_max"])
def test_health_is_that_of_the_features(pooling, store, tmp_path):
    task = pretext_task("reconstruct_two_streams", store.path)  # which augments nothing
    (values,) = watch(task, [store], tmp_path, health=1, pooling=pooling)
    features_nd = plain_features(task, torch.arange(CLIPS), pooling)
    assert values == {
        "feature_std": pytest.approx(feature_std(features_nd), rel=1e-4),
        "effective_rank": pytest.approx(effective_rank(features_nd), rel=1e-4),
        "alignment": pytest.approx(0, abs=1e-9),
        "uniformity": pytest.approx(uniformity(features_nd), rel=1e-4),
    }


def test_alignment_is_between_two_draws_which_stay_the_same(store, tmp_path):
    task = pretext_task("contrast", store.path)
    one, again = watch(task, [store], tmp_path, epochs=2, health=1)
    assert one == again
    assert one["alignment"] > 0.01
    (other,) = watch(replace(task, seed=1), [store], tmp_path, health=1)
    assert other["alignment"] != one["alignment"]


def flatten(pretext: Pretext, *, line: bool) -> None:
    """Let the encoder answer with the same feature always, or with one on a line."""

    def flat(module, given, features_ntd):
        offset = features_ntd[..., :1] if line else 0
        return torch.ones_like(features_ntd) + offset * torch.arange(features_ntd.shape[-1])

    pretext.encoder.register_forward_hook(flat)


@pytest.mark.parametrize(("line", "how"), [(False, "they hardly differ"), (True, "they lie on a line")])
def test_a_collapse_is_told_when_it_begins(line, how, store, tmp_path, capsys):
    task = pretext_task("contrast", store.path)
    (observe,) = observers(WatchConfig(), task, "mean", [store])
    observe(1, task.pretext, Board(tmp_path))
    assert capsys.readouterr().err == ""
    for epoch in (2, 5):
        flatten(task.pretext, line=line)
        observe(epoch, task.pretext, Board(tmp_path))
        observe(epoch + 1, task.pretext, Board(tmp_path))
        said = capsys.readouterr().err
        assert said.startswith(f"warning: stage main, epoch {epoch}: the features have collapsed: {how} (")
        assert said.count("\n") == 1
        task.pretext.encoder._forward_hooks.clear()
        observe(epoch + 2, task.pretext, Board(tmp_path))
        assert capsys.readouterr().err == ""


def test_knn_finds_the_nearest_other_clip(store, tmp_path):
    task = pretext_task("contrast", store.path)
    (values,) = watch(task, [store], tmp_path, knn=1)
    rows = plain_features(task, torch.arange(CLIPS)).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    likeness = rows @ rows.T - 9 * np.eye(CLIPS)
    right = store.labels[likeness.argmax(axis=1)] == store.labels
    assert values == {"knn_train": pytest.approx(right.mean())}


def test_classes_of_two_stores_are_never_the_same(store, tmp_path):
    """Every clip's nearest one is itself in the other store, whose class 0 is another class."""
    tiny_store(tmp_path / "again")
    stores = [store, open_store(tmp_path / "again")]
    task = pretext_task("contrast", store.path)
    packed = PackedClips(stores, 1)
    both = replace(task, packed=packed, parts=[torch.arange(CLIPS), torch.arange(CLIPS, 2 * CLIPS)])
    assert watch(both, stores, tmp_path, knn=1) == [{"knn_train": 0.0}]


def test_knn_without_labels_is_refused(store, tmp_path, monkeypatch):
    task = pretext_task("contrast", store.path)
    labels = task.packed.labels.clone()
    labels[2:] = -1
    labels[1] = labels[0]
    monkeypatch.setattr(task.packed, "labels", labels)
    assert watch(task, [store], tmp_path, knn=1) == [{"knn_train": 1.0}]  # of the two with labels
    labels[1] = -1
    with pytest.raises(UserError, match=r"watch\.knn: needs labels, .* have none; set it to 0"):
        watch(task, [store], tmp_path, knn=1)
    watch(task, [store], tmp_path, health=1)


def test_knn_without_labels_is_refused_before_a_folder_is_made(tmp_path):
    tiny_store(tmp_path / "store", labelled=False)
    recipe = tiny_recipe(tmp_path / "store", watch={"knn": 5})
    with pytest.raises(UserError) as refused:
        Run.start(recipe, tmp_path / "run")
    assert one_line(refused.value).startswith("watch.knn: ")
    assert not (tmp_path / "run").exists()


def test_some_training_clips_are_looked_at_the_same_ones_always(store, tmp_path, monkeypatch):
    seen = []

    def noted(packed, index, *rest):
        seen.append(sorted(index.tolist()))
        return make_view(packed, index, *rest)

    monkeypatch.setattr("ssl_skeleton.watching.make_view", noted)
    part = torch.arange(0, CLIPS, 2)
    task = replace(pretext_task("contrast", store.path), parts=[part])
    watch(task, [store], tmp_path, epochs=2, health=1, knn=1, projector=1, clips=8)
    assert len(seen) == 2 * 4
    assert all(clips == seen[0] for clips in seen)
    assert len(set(seen[0])) == 8
    assert set(seen[0]) <= set(part.tolist())
    seen.clear()
    watch(replace(task, name="other"), [store], tmp_path, health=1, clips=8)
    watch(replace(task, seed=1), [store], tmp_path, health=1, clips=8)
    assert seen[0] == seen[1] != seen[2]
    watch(task, [store], tmp_path, health=1, clips=500)
    assert seen[-1] == part.tolist()


def test_health_takes_an_eighth_of_the_clips(store, tmp_path, monkeypatch):
    seen = []

    def noted(packed, index, *rest):
        seen.extend(index.tolist())
        return make_view(packed, index, *rest)

    monkeypatch.setattr("ssl_skeleton.watching.make_view", noted)
    task = pretext_task("contrast", store.path)
    watch(task, [store], tmp_path, health=1)
    assert sorted(seen) == sorted(2 * list(range(CLIPS)))  # there are so few
    monkeypatch.setattr("ssl_skeleton.watching._FEW", 2)
    seen.clear()
    watch(task, [store], tmp_path, health=1)
    assert len(seen) == 2 * 3
    monkeypatch.setattr("ssl_skeleton.watching._FEW", 20)
    seen.clear()
    watch(task, [store], tmp_path, health=1, clips=8)
    assert len(seen) == 2 * 8


def test_each_looks_at_its_own_epochs(store, tmp_path):
    task = pretext_task("contrast", store.path)
    found = watch(task, [store], tmp_path, epochs=6, health=2, knn=3, projector=5)
    assert [sorted(values) for values in found] == [
        [],
        sorted(HEALTH),
        ["knn_train"],
        sorted(HEALTH),
        [],
        sorted([*HEALTH, "knn_train"]),
    ]
    assert [path.name for path in sorted(tmp_path.iterdir()) if path.is_dir()] == ["epoch-0005"]
    assert observers(WatchConfig(**NOTHING), task, "mean", [store]) == []


def test_each_part_keeps_its_mode_and_its_statistics(store, tmp_path):
    task = pretext_task("fuse_joint", store.path)
    task.pretext.train()
    frozen = next(part for part in task.pretext.encoder.modules() if "Norm" in type(part).__name__)
    frozen.eval()
    modes = {name: part.training for name, part in task.pretext.named_modules()}
    state = {name: value.clone() for name, value in task.pretext.state_dict().items()}
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    watch(task, [store], tmp_path, health=1, knn=1, projector=1, views=1)
    assert modes == {name: part.training for name, part in task.pretext.named_modules()}
    assert len(set(modes.values())) == 2
    assert same(state, dict(task.pretext.state_dict()))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(parameter.grad is None for parameter in task.pretext.parameters())


def test_one_training_clip_has_no_spread(store, tmp_path):
    task = replace(pretext_task("contrast", store.path), parts=[torch.tensor([3])])
    assert observers(WatchConfig(), task, "mean", [store]) == []


def test_a_full_disk_is_one_line(store, tmp_path, monkeypatch):
    def full(*given):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ssl_skeleton.watching.add_points", full)
    with pytest.raises(UserError) as stopped:
        watch(pretext_task("contrast", store.path), [store], tmp_path, projector=1)
    said = one_line(stopped.value)
    assert said.startswith(f"{tmp_path}: cannot be written (No space left on device); ")
    assert said.endswith("; then go on with --resume")


def test_features_that_are_not_finite_are_told(store, tmp_path):
    task = pretext_task("contrast", store.path)
    task.pretext.encoder.register_forward_hook(lambda *given: given[-1] * torch.nan)
    with pytest.raises(UserError, match="not finite"):
        watch(task, [store], tmp_path, health=1)


def test_a_compiled_encoder_is_not_compiled_again(store, tmp_path):
    task, compiled = pretext_task("contrast", store.path), []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    task.pretext.encoder.compile(backend=backend)
    watch(task, [store], tmp_path, health=1)
    assert not compiled
    assert task.pretext.training
    clips = make_view(task.packed, torch.arange(4), task.sampling, task.pretext.views[INPUT].view, None)
    task.pretext.encoder(clips.x, clips.lengths)
    assert compiled
