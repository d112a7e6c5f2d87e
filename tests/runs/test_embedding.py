import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import CLIPS, put_checkpoint, recipe_tree, tiny_recipe, tiny_store, write_recordings

from ssl_skeleton.data.preparation import temporary
from ssl_skeleton.data.preparation.temporary import Recordings
from ssl_skeleton.data.store import meta_sum, open_store, sha256
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation import features as features_module
from ssl_skeleton.evaluation.features import split_features
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.embedding import (
    embed,
    embed_clips,
    embed_recordings,
    encoder_sum,
    named_clips,
    prepared_for,
    run_of,
)
from ssl_skeleton.runs.probing import on_store, representations, sources
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint


def no_bar(readings, total, done):
    return readings


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def run(store, tmp_path_factory) -> Run:
    """A finished run of two stages that sees clips at their own rate; both make the representation."""
    tree = recipe_tree(store, "fuse", epochs=1)
    tree["representation"] = {"stages": ["teacher", "main"], "pooling": "mean_max"}
    tree["data"]["frames"] = None
    run = Run.start(Recipe.from_tree(tree, "recipe"), tmp_path_factory.mktemp("runs") / "fuse")
    run.pretrain()
    return run


@pytest.fixture
def copied(run, tmp_path) -> Path:
    return Path(shutil.copytree(run.folder, tmp_path / "run"))


def bits(features: np.ndarray) -> list:
    return features.view(np.int32).tolist()


@pytest.mark.parametrize("split", ["cross_view", "cross_view_dev"])
def test_features_are_those_of_the_evaluators_to_the_bit(split, run, store):
    run = on_store(run, store, split)
    expected = split_features(run.packed, run.splits[0], representations(run)["trained"]())
    every = embed(run)
    for part in ("train", "test"):
        clips = getattr(run.splits[0], part)
        found = embed(run, part)
        assert bits(found.features) == bits(getattr(expected, part)) == bits(every.features[clips])
        assert found.names == tuple(run.store.names[clip] for clip in clips)
    assert every.names == run.store.names
    assert len(every) == CLIPS


def test_what_is_known_of_clips_comes_along(run):
    found, store = embed(run), open_store(run.store.path)
    assert found.columns.keys() == store.columns.keys()
    assert all(np.array_equal(found.columns[name], store.columns[name]) for name in store.columns)
    assert found.class_names == [store.meta.classes[label] for label in store.labels]
    meta = found.meta
    assert (meta.clips, meta.dim) == found.features.shape
    assert meta.origin.run == str(run.folder.resolve())
    assert meta.origin.recipe_sum == sha256(run.folder / "recipe.yaml")
    assert (meta.origin.epoch, meta.seen["stages"]) == (1, {"teacher": 1, "main": 1})
    assert meta.seen["streams"] == {"teacher": ["joint"], "main": ["joint"]}
    assert (meta.seen["pooling"], meta.seen["frames"], meta.seen["bodies"]) == ("mean_max", None, 1)
    assert (meta.store.path, meta.store.name) == (str(store.path.resolve()), "store")
    assert (meta.store.sum, meta.store.part) == (meta_sum(store.meta.to_tree()), "all")
    assert meta.environment["torch"]


def test_they_are_encoded_in_the_batches_of_the_evaluators(run, monkeypatch):
    monkeypatch.setattr(features_module, "_ON_CPU", 3)
    sizes, encode = [], features_module.represent
    monkeypatch.setattr(
        features_module, "represent", lambda *seen: sizes.append(len(seen[1].x)) or encode(*seen)
    )
    split_features(run.packed, run.splits[0], representations(run)["trained"]())
    of_evaluators = list(sizes)
    sizes.clear()
    embed(run)
    assert sizes[: len(of_evaluators)] == of_evaluators  # behind these the clips of no part
    assert max(sizes) == 3


def test_batches_change_no_more_than_rounding(run):
    expected, found = embed(run, batch=256).features, embed(run, batch=4).features
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_clips_by_name_in_any_order(run):
    clips = named_clips(run.store, ["clip07", "clip02", "clip07"])
    assert clips.tolist() == [7, 2, 7]
    found, every = embed_clips(run, [clips]), embed(run)
    assert found.names == ("clip07", "clip02", "clip07")
    np.testing.assert_allclose(found.features, every.features[clips], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="holds no clip 'clip7'; did you mean 'clip"):
        named_clips(run.store, ["clip7"])


def test_a_store_with_other_joints_is_mapped(run, store, tmp_path):
    """Joints go by their names: in another order, and with more of them, features are the same."""
    other = Path(shutil.copytree(store, tmp_path / "other"))
    meta = json.loads((other / "meta.json").read_text())
    layout = meta["layout"] | {"name": "other", "joints": ["tail", *reversed(meta["layout"]["joints"])]}
    layout["bones"]["tail"] = layout["root"]
    (other / "meta.json").write_text(json.dumps(meta | {"layout": layout}))
    frames_rvc = np.load(store / "frames.npy")[:, ::-1]
    tail_r1c = np.full_like(frames_rvc[:, :1], 7)
    np.save(other / "frames.npy", np.concatenate([tail_r1c, frames_rvc], axis=1))
    found, expected = embed(on_store(run, other)), embed(on_store(run, store))
    assert (found.meta.seen["layout"], found.meta.store.layout) == ("kinect_v1_20", "other")
    assert bits(found.features) == bits(expected.features)


def test_a_store_of_another_sensor(run, tmp_path):
    found = embed(on_store(run, tiny_store(tmp_path / "other", layout="kinect_v2_25")))
    assert (found.meta.seen["layout"], found.meta.store.layout) == ("kinect_v1_20", "kinect_v2_25")
    assert found.features.shape == embed(run).features.shape


def test_a_store_that_cannot_be_seen(run, tmp_path):
    flat = tiny_store(tmp_path / "flat", coordinates=("x", "y", "confidence"))
    with pytest.raises(UserError, match="has x, y, confidence, but the run sees x, y, z"):
        embed(on_store(run, flat))
    with pytest.raises(UserError, match="split all: has no test part"):
        embed(on_store(run, run.store.path), "test")
    with pytest.raises(UserError, match="no such folder"):
        embed(on_store(run, tmp_path / "nowhere"))


def test_recordings_are_embedded_as_the_store_of_them(run, tmp_path):
    recordings = Recordings([write_recordings(tmp_path / "recordings")], "nw_ucla")
    with prepared_for(run, recordings, no_bar) as (store, result):
        kept = Path(shutil.copytree(store.path, tmp_path / "store"))
        found = embed_recordings(run, store, recordings)
        where = store.path
    assert not where.exists()
    assert not any(result.skipped.values())
    expected = embed(on_store(run, kept))
    assert bits(found.features) == bits(expected.features)
    assert found.names == expected.names
    assert found.class_names == expected.class_names
    assert found.meta.store.path == str((tmp_path / "recordings").resolve())
    assert (found.meta.store.name, found.meta.store.dataset) == ("recordings", "nw_ucla")


def test_recordings_that_the_run_cannot_see_are_not_read(run, tmp_path, monkeypatch):
    """The error names them, and not the store that they would have become."""
    folder = tmp_path / "flat"
    folder.mkdir()
    np.save(folder / "wave.npy", np.ones((4, 20, 2)))
    about = tmp_path / "about.yaml"
    about.write_text("dataset: mine\nlayout: kinect_v1_20\nfps: 30\ncoordinates: image\n")
    monkeypatch.setattr(temporary, "prepare_store", None)
    with pytest.raises(UserError) as caught, prepared_for(run, Recordings([folder], about=about), no_bar):
        pass
    assert str(caught.value).startswith(f"{folder}: has x, y, confidence, but the run sees x, y, z")


def test_a_run_on_several_stores_is_used_on_each(store, tmp_path):
    other = tiny_store(tmp_path / "other", "utd_mhad")
    data = {"store": [str(store), str(other)], "split": "all", "layout": "common_15", "frames": 6}
    run = Run.start(
        Recipe.from_tree(recipe_tree(store, epochs=1) | {"data": data}, "recipe"), tmp_path / "run"
    )
    run.pretrain()
    for path in (store, other):
        found = embed(on_store(run, path))
        assert found.meta.store.path == str(path.resolve())
        assert found.meta.seen["layout"] == "common_15"
    with pytest.raises(UserError, match="say which one"):
        embed(run)


def sum_of(folder: Path, *overrides: str) -> str:
    run = Run.open(folder, overrides)
    return encoder_sum(run, sources(run, trained=True))


def test_the_sum_is_of_what_decides_a_feature(run, copied, store):
    """Neither where a run lies, nor on which store and device it is used, nor how long it took, is."""
    first = sum_of(run.folder)
    assert sum_of(copied) == first
    assert sum_of(copied, "data.split=all", "data.residence=host", "device=cpu") == first
    other = on_store(Run.open(copied), store)
    assert encoder_sum(other, sources(other, trained=True)) == first
    (copied / "log.jsonl").unlink()
    assert sum_of(copied) == first
    path = copied / "checkpoints" / "teacher.pt"
    kept = load_checkpoint(path, "teacher")
    name = next(name for name in kept.pretext if name.startswith("encoder.") and kept.pretext[name].dim())
    kept.pretext[name].view(torch.int32).view(-1)[0] ^= 1  # the last bit of one weight
    put_checkpoint(path, kept)
    assert sum_of(copied) != first


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("frames: null", "frames: 5"),
        ("pooling: mean_max", "pooling: max"),
        ("center: first_frame", "center: none"),
    ],
)
def test_what_clips_look_like_is_in_the_sum(word, other, run, copied):
    text = (copied / "recipe.yaml").read_text()
    assert word in text
    (copied / "recipe.yaml").write_text(text.replace(word, other))
    assert sum_of(copied) != sum_of(run.folder)


def test_a_default_that_a_later_version_adds_is_not(run, copied):
    """A key that an older recipe does not have, and that is as it always was, makes no other sum."""
    text = (copied / "recipe.yaml").read_text()
    lines = [line for line in text.splitlines() if "repair" not in line and "residence" not in line]
    lines = [
        line
        for line in lines
        if line.strip().split(":")[0] not in ("drop_phantoms", "fix_swaps", "fill_gaps", "smooth")
    ]
    (copied / "recipe.yaml").write_text("\n".join(lines))
    assert sum_of(copied) == sum_of(run.folder)


def test_the_run_of_an_index(run, copied, tmp_path):
    origin, index = embed(run).meta.origin, tmp_path / "index"
    assert run_of(origin, index).folder == run.folder
    assert run_of(origin, index, copied).folder == copied
    moved = replace_run(origin, tmp_path / "gone")
    with pytest.raises(
        UserError, match=r"index: its run is not at .*gone any more; name its folder with --run"
    ):
        run_of(moved, index)
    assert run_of(moved, index, copied).folder == copied
    with pytest.raises(UserError, match="not a run"):
        run_of(origin, index, tmp_path)


def replace_run(origin, folder: Path):
    return origin.model_copy(update={"run": str(folder)})


def test_a_run_that_was_trained_again_is_refused(run, store, tmp_path):
    origin = embed(run).meta.origin
    again = Run.start(replace(run).recipe.model_copy(update={"seed": 1}), tmp_path / "again")
    again.pretrain()
    with pytest.raises(UserError, match=r"again: has other weights, or another representation, than that"):
        run_of(origin, tmp_path / "index", again.folder)
    one = Run.start(tiny_recipe(store, epochs=1), tmp_path / "one")
    with pytest.raises(UserError, match="no such checkpoint"):
        run_of(origin, tmp_path / "index", one.folder)
