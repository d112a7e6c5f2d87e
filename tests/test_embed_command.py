import csv
import json
import shutil
import signal
from pathlib import Path

import commands
import numpy as np
import pytest
from commands import snapshot
from mediapipe_files import world_landmarks
from tiny import recipe_tree, tiny_recipe, tiny_store, write_recordings

from ssl_skeleton import embed
from ssl_skeleton.evaluation.search import embeddings as embeddings_module
from ssl_skeleton.evaluation.search.embeddings import read_embeddings
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.embedding import embed as embed_run
from ssl_skeleton.runs.run import Run

pytestmark = pytest.mark.usefixtures("place")
OWN = {"dataset": "mine", "fps": 30, "layout": "kinect_v1_20", "names": "{label}_s{subject}"}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory) -> Path:
    """The folder of a finished run."""
    run = Run.start(tiny_recipe(store, epochs=1), tmp_path_factory.mktemp("runs") / "run")
    run.pretrain()
    return run.folder


def run(*words) -> int:
    return commands.run(embed, *words)


def refused(capsys, *words) -> str:
    return commands.refused(capsys, embed, *words)


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_store_is_embedded(folder, store, capsys):
    before = snapshot(folder)
    assert run("--run", folder, "--out", "out") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(f"out: 27 clips of {store}, 16 features each, ")
    assert printed.out.endswith(" clips/s\n")
    expected = embed_run(Run.open(folder))
    with np.load("out/embeddings.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["features"].view(np.int32), expected.features.view(np.int32))
        assert arrays["names"].tolist() == list(expected.names)
    assert [line["class"] for line in lines_of(Path("out/clips.csv"))] == expected.class_names
    assert {path.name for path in Path("out").iterdir()} == {"embeddings.npz", "clips.csv", "meta.json"}
    assert snapshot(folder) == before


def test_one_store_is_embedded_at_a_time(folder, store, capsys):
    words = ["--run", folder, "--store", store, "--store", store, "--out", "x"]
    assert "argument --store: stands twice; give it once" in refused(capsys, *words)


def test_a_part_of_a_split(folder, store, capsys):
    whole = embed_run(Run.open(folder))
    for part, cameras in (("train", {"1", "2"}), ("test", {"3"})):
        assert run("--run", folder, "--part", part, "--out", part) == 0
        assert {line["camera"] for line in lines_of(Path(part, "clips.csv"))} == cameras
        found = read_embeddings(Path(part))
        assert (found.meta.store.split, found.meta.store.part) == ("cross_view", part)
        rows = [whole.names.index(name) for name in found.names]
        assert np.array_equal(found.features, whole.features[rows])
    assert (
        run("--run", folder, "--store", store, "--split", "cross_view", "--part", "test", "--out", "same")
        == 0
    )
    assert np.array_equal(read_embeddings(Path("same")).features, found.features)
    assert "has no split 'cross_vew'" in refused(
        capsys, "--run", folder, "--split", "cross_vew", "--out", "x"
    )
    assert "has no validation part" in refused(capsys, "--run", folder, "--part", "validation", "--out", "x")
    words = ["--run", folder, "--store", store, "--part", "test", "--out", "x"]
    assert "split all: has no test part" in refused(capsys, *words)
    assert not Path("x").exists()


def test_a_store_with_other_joints_and_no_labels(folder, tmp_path, capsys):
    other = tiny_store(tmp_path / "it's, other", layout="kinect_v2_25", labelled=False)
    assert run("--run", folder, "--store", other, "--out", "out", "device=cpu") == 0
    found = read_embeddings(Path("out"))
    assert set(found.class_names) == {""}
    assert found.meta.store.name == "it's, other"
    flat = tiny_store(tmp_path / "flat", coordinates=("x", "y", "confidence"))
    assert "but the run sees x, y, z" in refused(capsys, "--run", folder, "--store", flat, "--out", "x")


def write_table(folder: Path) -> Path:
    """A table with a line for each joint, as docs/own_data.md describes it, and its about file."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["clip,frame,body,joint,x,y,z"]
    for clip in ('"walk, fast"', '"walk ""slowly"""', "hüpfen €"):
        for frame, joint in np.ndindex(6, 20):
            x, y, z = rng.normal(size=3)
            lines.append(f"{clip},{frame},0,{joint},{x:.4f},{0.1 * joint + 0.1 * y:.4f},{z:.4f}")
    (folder / "walks.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "labels.csv").write_text('clip,label\n"walk, fast","walk, fast"\n', encoding="utf-8")
    about = OWN | {"labels": "labels.csv", "unit": 1}
    del about["names"]
    (folder / "about.yaml").write_text(json.dumps(about))
    return folder


def test_a_table_of_ones_own_with_any_names(folder, tmp_path, capsys):
    own = write_table(tmp_path / "own")
    words = ["--run", folder, "--source", own / "walks.csv", "--about", own / "about.yaml"]
    assert run(*words, "--out", "out") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"out: 3 clips of {own / 'walks.csv'}, 16 features each, ")
    assert second == "skipped none of 1 files"
    names = ["walk, fast", 'walk "slowly"', "hüpfen €"]
    assert [line["name"] for line in lines_of(Path("out/clips.csv"))] == names
    assert [line["class"] for line in lines_of(Path("out/clips.csv"))] == ["walk, fast", "", ""]
    with np.load("out/embeddings.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == names
        assert arrays["lengths"].tolist() == [6, 6, 6]
    assert lines_of(Path("out/skipped.csv")) == []


def test_arrays_of_ones_own_of_which_one_is_damaged(folder, tmp_path, capsys):
    own = tmp_path / "own"
    own.mkdir()
    (tmp_path / "about.yaml").write_text(json.dumps(OWN))
    for number in range(3):
        x_tvc = np.random.default_rng(number).normal(0, 0.3, (8, 20, 3))
        np.save(own / f"wave_s{number + 1}.npy", x_tvc)
    (own / "sit_s4.npy").write_bytes(b"no array")
    words = ["--run", folder, "--source", own, "--about", tmp_path / "about.yaml", "--out", "out"]
    line = refused(capsys, *words)
    assert "more than 5% of the 4 files" in line
    assert "--max-damaged allows more" in line
    assert not Path("out").exists()
    assert run(*words, "--max-damaged", 0.5) == 0
    _, second = capsys.readouterr().out.splitlines()
    assert second.startswith("skipped 1 damaged: sit_s4.npy: not a .npy file")
    (skipped,) = lines_of(Path("out/skipped.csv"))
    assert skipped["what"].startswith("sit_s4.npy: ")
    assert [line["subject"] for line in lines_of(Path("out/clips.csv"))] == ["1", "2", "3"]


def test_json_of_an_estimator_and_files_of_a_data_set(folder, tmp_path, capsys):
    """MediaPipe's joints are others than the run's, and NW-UCLA's are its own."""
    own = tmp_path / "own"
    own.mkdir()
    (own / "wave_s1.json").write_text(json.dumps([[frame.tolist()][0] for frame in world_landmarks(9, 1)]))
    about = {"dataset": "home", "fps": 30, "coordinates": "world", "names": "{label}_s{subject}"}
    (tmp_path / "about.yaml").write_text(json.dumps(about))
    words = ["--source", own, "--format", "mediapipe", "--about", tmp_path / "about.yaml", "--out", "home"]
    assert run("--run", folder, *words) == 0
    assert read_embeddings(Path("home")).class_names == ["wave"]
    recordings = write_recordings(tmp_path / "recordings")
    one = recordings / "a01_s01_e00_v01.json"
    assert run("--run", folder, "--source", one, "--format", "nw_ucla", "--fps", 15, "--out", "one") == 0
    found = read_embeddings(Path("one"))
    assert (found.names, found.meta.store.fps) == (("a01_s01_e00_v01",), 15.0)
    assert found.class_names == ["pick up with one hand"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--source", "nowhere", "--about", "a"], "error: a: no such file"),
        (["--source", "nowhere", "--format", "nw_ucla"], "nowhere: no such folder or file"),
        (["--source", "."], "own needs --about FILE"),
        (["--source", ".", "--format", "nw_ukla"], "did you mean 'nw_ucla'?"),
        (["--source", ".", "--format", "nw_ucla", "--store", "x"], "--source: goes without --store, --split"),
        (["--source", ".", "--part", "train"], "--source: goes without --store, --split and --part"),
        (["--about", "x"], "--about: tells of recordings; add --source PATH"),
        (["--max-damaged", "0.5"], "--max-damaged: tells of recordings; add --source PATH"),
        (["--store", "nowhere"], "nowhere: no such folder"),
        (["--part", "some"], "argument --part: invalid choice"),
        (["seed=3"], "can change after training"),
        (["device=cuda:9"], "device: "),
    ],
)
def test_mistakes(words, message, folder, place, capsys):
    assert message in refused(capsys, "--run", folder, "--out", "out", *words)
    assert not list(place.iterdir())


def test_runs_that_cannot_embed(folder, place, tmp_path, capsys):
    assert "not a run" in refused(capsys, "--run", tmp_path, "--out", "out")
    untrained = Path(shutil.copytree(folder, tmp_path / "untrained"))
    shutil.rmtree(untrained / "checkpoints")
    assert "main.pt: no such checkpoint" in refused(capsys, "--run", untrained, "--out", "out")
    assert not list(place.iterdir())


def test_a_run_on_several_stores_says_so(store, tmp_path, capsys):
    other = tiny_store(tmp_path / "other", "utd_mhad")
    data = {"store": [str(store), str(other)], "split": "all", "layout": "common_15", "frames": 6}
    both = Run.start(
        Recipe.from_tree(recipe_tree(store, epochs=1) | {"data": data}, "recipe"), tmp_path / "both"
    )
    both.pretrain()
    line = refused(capsys, "--run", both.folder, "--out", "out")
    assert f"learned from several stores ({store}, {other}); choose one with --store" in line
    assert run("--run", both.folder, "--store", other, "--out", "out") == 0


def test_only_embeddings_are_overwritten(folder, store, tmp_path, capsys):
    words = ["--run", folder, "--out"]
    assert run(*words, "out") == 0
    before = snapshot(Path("out"))
    assert "out: already exists" in refused(capsys, *words, "out")
    assert snapshot(Path("out")) == before
    assert run(*words, "out", "--overwrite", "--part", "test") == 0
    assert len(read_embeddings(Path("out"))) == 9
    Path("out/notes.txt").write_text("mine")
    before = snapshot(Path("out"))
    for kept in ("out", store, folder, "."):
        assert "holds other things than this command writes" in refused(capsys, *words, kept, "--overwrite")
    assert snapshot(Path("out")) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("source", [False, True])
def test_stopped_half_way_it_leaves_nothing(number, source, folder, tmp_path, monkeypatch):
    """Or what was there before."""
    words = ["--run", folder, "--out", "out"]
    if source:
        words += ["--source", write_recordings(tmp_path / "recordings"), "--format", "nw_ucla"]
    stop = lambda *_: signal.raise_signal(number)  # noqa: E731
    for there in (False, True):
        if there:
            assert run(*words) == 0
        before = snapshot(Path.cwd())
        with monkeypatch.context() as patch:
            patch.setattr(embeddings_module, "write_table", stop)  # the features are written by then
            if number == signal.SIGINT:
                assert run(*words, "--overwrite") == 130
            else:
                with pytest.raises(SystemExit) as ended:
                    run(*words, "--overwrite")
                assert ended.value.code == 143
        assert snapshot(Path.cwd()) == before


def test_a_disk_without_space_leaves_nothing(folder, place, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embeddings_module, "write_json", full)
    line = refused(capsys, "--run", folder, "--out", "out")
    assert "out: cannot be written (No space left on device); free some space on that disk" in line
    assert not list(place.iterdir())
