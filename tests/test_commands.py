import csv
import json
import shutil
import signal
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from commands import refused, run, run_apart, snapshot
from tiny import put_checkpoint, recipe_tree, unevaluated, write_recordings

from ssl_skeleton import (
    __main__,
    cluster,
    early,
    embed,
    finetune,
    knn,
    linear,
    prepare,
    pretrain,
    retrieve,
    robustness,
    scoring,
    search,
    synthesise,
    transfer,
)
from ssl_skeleton.cli import run_command
from ssl_skeleton.data.preparation import preparation
from ssl_skeleton.evaluation.results import settings_of
from ssl_skeleton.training.checkpoint import load_checkpoint

COMMANDS = __main__.VERBS


def write_recipe(path: Path, store: Path, pretext: str = "fuse", epochs: int = 1) -> Path:
    path.write_text(yaml.safe_dump(recipe_tree(store, pretext, epochs)))
    return path


@pytest.fixture(scope="module")
def recordings_folder(tmp_path_factory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("recordings") / "nw_ucla")


@pytest.fixture(scope="module")
def house(recordings_folder, tmp_path_factory) -> Path:
    """A folder in which everything was done once: store, recipe.yaml, runs/fuse."""
    house = tmp_path_factory.mktemp("house")
    assert run(prepare, "nw_ucla", "--source", recordings_folder, "--out", house / "store") == 0
    recipe = write_recipe(house / "recipe.yaml", house / "store")
    assert run(pretrain, "--cfg", recipe, "--runs", house / "runs") == 0
    return house


def test_the_whole_road(house, capsys):
    folder = house / "runs" / "fuse"
    assert run(linear, "--run", folder) == 0
    assert run(knn, "--run", folder, "evaluation.knn.k=[1, 2]") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "linear on store, split cross_view" in printed.out
    assert "k=2" in printed.out
    for name in ("\ntrained", "\nraw coordinates", "\nuntrained encoder", "pick up with one hand"):
        assert printed.out.count(name) == 2, name
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    boards = {name for name in files if name.startswith("tensorboard/")}
    assert files - boards == {
        "recipe.yaml",
        "environment.json",
        "body.json",
        "log.jsonl",
        "checkpoints/teacher.pt",
        "checkpoints/main.pt",
        "eval/linear-store-cross_view.json",
        "eval/knn-store-cross_view-k=1,2.json",
    }
    assert {name.split("/")[1] for name in boards} == {"teacher", "main"}


def test_prepare_says_what_it_found(recordings_folder, tmp_path, capsys):
    source = tmp_path / "source"
    shutil.copytree(recordings_folder, source)
    cut = source / "a01_s01_e00_v01.json"
    cut.write_bytes(cut.read_bytes()[:100])
    assert run(prepare, "nw_ucla", "--source", source, "--out", tmp_path / "store") == 0
    printed = capsys.readouterr().out
    assert "26 clips" in printed
    assert "skipped 1 damaged: a01_s01_e00_v01.json: not valid JSON" in printed
    before = snapshot(tmp_path / "store")
    assert "already exists" in refused(
        capsys, prepare, "nw_ucla", "--source", source, "--out", tmp_path / "store"
    )
    assert snapshot(tmp_path / "store") == before
    again = ["nw_ucla", "--source", source, "--out", tmp_path / "store", "--overwrite"]
    shutil.copy(recordings_folder / cut.name, cut)
    assert run(prepare, *again) == 0
    assert "27 clips" in capsys.readouterr().out
    (tmp_path / "store" / "notes.txt").write_text("mine")
    before = snapshot(tmp_path / "store")
    assert "holds other things" in refused(capsys, prepare, *again)
    assert snapshot(tmp_path / "store") == before


@pytest.mark.parametrize("place", [".", "..", "../recordings/."])
def test_recordings_are_never_overwritten(place, recordings_folder, tmp_path, capsys):
    source = tmp_path / "recordings"
    shutil.copytree(recordings_folder, source)
    before = snapshot(tmp_path)
    words = ["nw_ucla", "--source", source, "--out", source / place, "--overwrite"]
    assert "holds other things than this command writes" in refused(capsys, prepare, *words)
    assert "holds other things" in refused(capsys, synthesise, "--out", source / place, "--overwrite")
    assert snapshot(tmp_path) == before
    assert len(list(source.glob("*.json"))) == 27


def test_synthetic_recordings_are_overwritten_by_their_own_kind_alone(tmp_path, capsys):
    raw, words = tmp_path / "raw", ["--subjects", 1, "--repetitions", 1]
    assert run(synthesise, "--out", raw, *words) == 0
    before = snapshot(raw)
    prepared = ["synthetic", "--source", raw, "--out", raw, "--overwrite"]
    assert "holds other things" in refused(capsys, prepare, *prepared)
    assert snapshot(raw) == before
    assert run(synthesise, "--out", raw, *words, "--seed", 1, "--overwrite") == 0
    assert snapshot(raw).keys() == before.keys()
    assert snapshot(raw) != before


def test_many_skipped_clips_are_all_in_the_store(recordings_folder, tmp_path, capsys):
    source, store = tmp_path / "source", tmp_path / "store"
    shutil.copytree(recordings_folder, source)
    paths = sorted(source.iterdir())[:7]
    for path in paths:
        path.write_text("{")
    (source / "line\nbreak.json").write_text("{")
    words = ["--source", source, "--out", store, "--max-damaged", 0.5]
    assert run(prepare, "nw_ucla", *words) == 0
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == 2
    assert f"skipped 8 damaged: {paths[0].name}: " in printed
    assert f"; all in {store / 'skipped.csv'}" in printed
    with (store / "skipped.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["why", "what"]
    assert {what.split(": ")[0] for _, what in lines[1:]} == {path.name for path in paths} | {
        "line\nbreak.json"
    }


def test_prepare_goes_on_after_an_interruption(recordings_folder, tmp_path, capsys, monkeypatch):
    store = tmp_path / "store"
    words = ["nw_ucla", "--source", recordings_folder, "--out", store]
    monkeypatch.setattr(preparation, "_CHUNK", 10)
    finish = preparation.StoreWriter.finish
    with monkeypatch.context() as patch:
        patch.setattr(preparation.StoreWriter, "finish", lambda *_: signal.raise_signal(signal.SIGINT))
        assert run(prepare, *words) == 128 + signal.SIGINT
    error = capsys.readouterr().err
    assert error == "interrupted; 20 of 27 files are kept; the same command goes on from there\n"
    with monkeypatch.context() as patch:
        patch.setattr(preparation.StoreWriter, "finish", lambda *_: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit) as ended:
            run(prepare, *words)
        assert ended.value.code == 128 + signal.SIGTERM
    assert preparation.StoreWriter.finish is finish
    capsys.readouterr()
    assert run(prepare, *words) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "went on after 20 files that were read before"
    assert second.startswith(f"{store}: 27 clips, 135 frames, 10 classes, kinect_v1_20, splits cross_view, ")
    assert third == "skipped none of 27 files"
    assert list(tmp_path.iterdir()) == [store]


def test_prepare_takes_zips_several_sources_and_another_rate(recordings_folder, tmp_path, capsys):
    halves = [tmp_path / "one.zip", tmp_path / "other.zip"]
    for number, path in enumerate(halves):
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(recordings_folder.iterdir())[number::2]:
                archive.write(file, f"nw_ucla/{file.name}")
    words = ["--out", tmp_path / "store", "--fps", 15, "--processes", 2]
    assert run(prepare, "nw_ucla", "--source", *halves, *words) == 0
    assert "27 clips" in capsys.readouterr().out
    meta = json.loads((tmp_path / "store" / "meta.json").read_text())
    assert (meta["fps"], meta["source"]) == (15.0, f"{halves[0]}, {halves[1]}")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "no such folder"),
        ({}, "holds no *.json"),
        ({"clip.avi": "x"}, "holds no *.json"),
        (
            {"a01_s01_e01_v01.json": '{"skeletons": [[[1.0, '},
            "a01_s01_e01_v01.json: not valid JSON",
        ),
        ({"a01_s01_e01_v01.json": "PK\x03\x04"}, "not valid JSON"),
        ({"holiday.json": "{}"}, "the file name does not read aXX_sXX_eXX_vXX"),
    ],
)
def test_recordings_that_cannot_be_read(files, message, tmp_path, capsys):
    source = tmp_path / "source"
    if files is not None:
        source.mkdir()
    for name, text in (files or {}).items():
        (source / name).write_text(text)
    before = snapshot(tmp_path)
    words = ["nw_ucla", "--source", source, "--out", tmp_path / "store"]
    line = refused(capsys, prepare, *words, begun=True)
    assert message in line
    damaged = [name for name in files or {} if name.endswith(".json")]
    assert (damaged[0] if damaged else str(source)) in line
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nw_ukla", "--source", "x", "--out", "y"], "'nw_ukla' is unknown; did you mean 'nw_ucla'?"),
        (["nw_ucla", "--out", "y"], "the following arguments are required: --source"),
        (["nw_ucla", "--source", "x", "--out", "y", "--max-damaged", "7"], "'7' is not a number from 0 to 1"),
        (["nw_ucla", "--source", "x", "--out", "y", "--fps", "0"], "'0' is not a number above 0"),
        (["nw_ucla", "--source", "x", "--out", "y", "--fps", "inf"], "'inf' is not a number above 0"),
        (["nw_ucla", "--source", "x", "--out", "y", "--fps", "nan"], "'nan' is not a number above 0"),
        (
            ["nw_ucla", "--source", "x", "--out", "y", "--processes", "0"],
            "'0' is not a whole number from 1 on",
        ),
        (["nw_ucla", "--source", "x", "--out", "y", "--processes", "1.5"], "'1.5' is not a whole number"),
        (["nw_ucla", "--source", "x", "--out", ""], "argument --out: names no file or folder"),
        (["nw_ucla", "--source", "x", "--out", "y", "--about", "z"], "z: nw_ucla takes no --about"),
        (["own", "--source", "x", "--out", "y"], "own needs --about FILE"),
        (["own", "--source", ".", "--out", "y", "--about", "z"], "z: no such file"),
        (["nw_ucla", "--source", "x", "--out", "y", "--overwite"], "unrecognized arguments: --overwite"),
        (["nw_ucla", "--source", __file__, "--out", "y"], "holds no *.json; --source names"),
    ],
)
def test_mistakes_at_prepare(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, prepare, *words)
    assert not snapshot(tmp_path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.split=cross_vew"], "has no split 'cross_vew'; did you mean 'cross_view'?"),
        (["data.store=nowhere"], "nowhere: no such folder; make a store with"),
        (["sed=1"], "unknown key 'sed'; did you mean 'seed'?"),
        (["seed"], "'seed': an override reads key.path=value"),
        (["stages.7.name=x"], "'7' is not an item 0 to 1 of the list"),
        (["seed=[1"], "not valid YAML"),
        (["name=../elsewhere"], "name: "),
        (["device=cud"], "device: 'cud' is not possible"),
        (["--resum"], "unrecognized arguments: --resum"),
        (["data.store="], "data.store: "),
    ],
)
def test_mistakes_at_pretrain(words, message, house, tmp_path, capsys):
    line = refused(capsys, pretrain, "--cfg", house / "recipe.yaml", "--runs", tmp_path / "runs", *words)
    assert message in line
    assert not snapshot(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("", "recipe.yaml: "),
        ("- a\n- b\n", "recipe.yaml: "),
        ("name: [unclosed\n", "line 2: not valid YAML"),
        ("name: a\nname: b\n", "key 'name' stands twice"),
        ("\x00\x01", "not valid YAML"),
    ],
)
def test_recipes_that_cannot_be_read(text, message, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    assert message in refused(capsys, pretrain, "--cfg", path, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_run_is_never_overwritten(house, capsys):
    words = ["--cfg", house / "recipe.yaml", "--runs", house / "runs"]
    before = snapshot(house)
    assert "holds a run already; add --resume" in refused(capsys, pretrain, *words)
    line = refused(capsys, pretrain, *words, "--resume", "stages.1.training.epochs=9")
    assert "holds another recipe (stages.1.training.epochs is 1 there, 9 here)" in line
    assert run(pretrain, *words, "--resume") == 0  # nothing is left to do
    assert snapshot(house) == before


@pytest.mark.parametrize("command", [linear, knn])
def test_runs_that_cannot_be_scored(command, house, tmp_path, capsys):
    assert "nowhere: not a run" in refused(capsys, command, "--run", tmp_path / "nowhere")
    assert "not a run" in refused(capsys, command, "--run", house / "recipe.yaml")
    folder = tmp_path / "fuse"
    shutil.copytree(house / "runs" / "fuse", folder)
    path = folder / "checkpoints" / "main.pt"
    shutil.rmtree(folder / "eval", ignore_errors=True)
    before = snapshot(folder)
    assert "can change after training" in refused(capsys, command, "--run", folder, "seed=3")
    assert "nowhere: no such folder" in refused(capsys, command, "--run", folder, "data.store=nowhere")
    assert snapshot(folder) == before
    kept = load_checkpoint(path, "main")
    kept.pretext["encoder.norm.weight"] = torch.ones(3)
    put_checkpoint(path, kept)
    assert f"{path}: norm.weight is (3,), but should be (60,)" in refused(capsys, command, "--run", folder)
    path.write_bytes(path.read_bytes()[:1000])
    assert f"{path}: damaged or no" in refused(capsys, command, "--run", folder)
    path.unlink()
    assert f"{path}: no such checkpoint; train it" in refused(capsys, command, "--run", folder)
    assert not (folder / "eval").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.knn.k=[19]", "evaluation.knn.k: must lie in 1..18, the clips in the gallery, not 19;"),
        ("evaluation.knn.k=x", "evaluation.knn.k: "),
        ("evaluation.kn.k=[3]", "unknown key 'kn'; did you mean 'knn'?"),
        ("device=cuda:9", "device: "),
    ],
)
def test_an_impossible_protocol(override, message, house, tmp_path, capsys):
    folder = tmp_path / "fuse"
    shutil.copytree(house / "runs" / "fuse", folder)
    before = snapshot(folder)
    assert message in refused(capsys, knn, "--run", folder, override)
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("command", "words", "read"),
    [
        (linear, ["evaluation.knn.k=3"], "evaluation.linear, evaluation.clips, evaluation.clip_share"),
        (knn, ["evaluation.clips=3"], "evaluation.knn"),
        (knn, ["evaluation.linear={name: cmd}"], "evaluation.knn"),
        (cluster, ["--clusters", "2", "evaluation.knn.k=3"], "evaluation.cluster"),
        (retrieve, ["evaluation.knn.k=3"], "evaluation.retrieve"),
        (finetune, ["evaluation.early.probe=knn"], "evaluation.finetune, evaluation.linear"),
        (early, ["evaluation.knn.k=3"], "evaluation.early, evaluation.linear"),
        (early, ["--probe", "knn", "evaluation.linear.epochs=3"], "evaluation.early, evaluation.knn"),
        (robustness, ["evaluation.early.probe=knn"], "evaluation.robustness, evaluation.linear"),
        (transfer, ["--to", "{store}", "--probe", "knn", "evaluation.clips=3"], "evaluation.knn"),
        (embed, ["--out", "x", "evaluation.knn.k=3"], "nothing of that"),
        (search, ["--out", "x", "evaluation.knn.k=3"], "nothing of that"),
    ],
)
def test_settings_that_a_command_does_not_read_are_refused(command, words, read, house, capsys):
    before = snapshot(house)
    first = ["build"] if command is search else []
    words = [word.replace("{store}", str(house / "store")) for word in words]
    line = refused(capsys, command, *first, "--run", house / "runs" / "fuse", *words)
    assert line.startswith(f"error: '{words[-1]}': {command.__name__.rpartition('.')[2]}")
    assert line.endswith(f" reads {read} alone\n")
    assert snapshot(house) == before


@pytest.mark.parametrize("command", [linear, knn, retrieve, cluster, finetune, early, robustness])
def test_the_help_names_all_that_is_read(command, capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for setting in settings_of(command.__name__.rpartition(".")[2]):
        assert f"evaluation.{setting}" in told


def test_so_many_windows_are_refused(house, capsys):
    line = refused(capsys, linear, "--run", house / "runs" / "fuse", "--clips", "1000")
    assert line.startswith("error: --clips 1000: evaluation.clips: input should be less than or equal to 50")


def test_what_is_scored_is_shown_on_the_way(house, capsys, monkeypatch):
    seen = []

    def shown(names, total, what):
        for name in names:
            seen.append((name, total, what))
            yield name

    monkeypatch.setattr(scoring, "progress", shown)
    assert run(knn, "--run", house / "runs" / "fuse") == 0
    names = json.loads(Path(capsys.readouterr().out.split("written to ")[1].strip()).read_text())["baselines"]
    assert seen == [(name, 1 + len(names), "representations") for name in ["trained", *names]]


def test_a_damaged_store_is_named(house, tmp_path, capsys):
    store = tmp_path / "store"
    shutil.copytree(house / "store", store)
    frames = store / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:-400])
    words = ["--cfg", house / "recipe.yaml", "--runs", tmp_path / "runs", f"data.store={store}"]
    assert str(frames) in refused(capsys, pretrain, *words)
    assert not (tmp_path / "runs").exists()


def test_a_recipe_that_does_not_suit_its_store_leaves_no_folder(house, tmp_path, capsys):
    words = ["--cfg", house / "recipe.yaml", "--runs", tmp_path / "runs"]
    line = refused(capsys, pretrain, *words, "data.bodies=2")
    assert "data.bodies: 2, but no clip of" in line
    store = tmp_path / "store"
    shutil.copytree(house / "store", store)
    frames_rvc = np.load(store / "frames.npy")
    frames_rvc[5, 0, 0] = np.nan
    np.save(store / "frames.npy", frames_rvc)
    line = refused(capsys, pretrain, *words, f"data.store={store}")
    assert f"{store / 'frames.npy'}: row 5 is not finite" in line
    assert not (tmp_path / "runs").exists()


def test_a_run_is_scored_on_another_split(house, tmp_path, capsys):
    folder = tmp_path / "fuse"
    unevaluated(house / "runs" / "fuse", folder)
    assert "did you mean 'cross_view'" in refused(capsys, knn, "--run", folder, "data.split=cross_vew")
    assert not (folder / "eval").exists()
    assert run(knn, "--run", folder, "data.split=cross_view_dev", "evaluation.knn.k=[1]") == 0
    assert [path.name for path in (folder / "eval").iterdir()] == ["knn-store-cross_view_dev-k=1.json"]


OUT_OF_MEMORY = "[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 9 bytes\nmore"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "no more to be had"),
        (MemoryError("Unable to allocate 9 TiB"), "Unable to allocate 9 TiB"),
        (RuntimeError(OUT_OF_MEMORY), OUT_OF_MEMORY.splitlines()[0]),
        (torch.OutOfMemoryError("CUDA out of memory.\nTried"), "CUDA out of memory."),
    ],
)
def test_too_little_memory_is_one_line(error, reason, capsys):
    def main(arguments):
        raise error

    assert run_command(main, []) == 2
    expected = f"error: out of memory ({reason}); try a smaller batch or encoder\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), NotImplementedError(), RecursionError()]
)
def test_other_errors_are_not_hidden(error):
    def main(arguments):
        raise error

    with pytest.raises(type(error)) as caught:
        run_command(main, [])
    assert caught.value is error


def test_an_encoder_larger_than_any_memory(house, tmp_path, capsys):
    words = ["--cfg", house / "recipe.yaml", "--runs", tmp_path / "runs"]
    for hidden in (10**7, 10**17):  # more than machines have, more than a number of bytes can say
        line = refused(capsys, pretrain, *words, f"encoder.hidden={hidden}")
        assert "out of memory" in line
        assert "try a smaller batch or encoder" in line
    assert not (tmp_path / "runs").exists()


def test_a_signal_stops_a_command_that_can_go_on(house, tmp_path, capsys, monkeypatch):
    recipe = write_recipe(tmp_path / "recipe.yaml", house / "store", "contrast", epochs=2)
    words = ["--cfg", recipe, "--runs", tmp_path / "runs"]
    with monkeypatch.context() as patch:
        patch.setattr(pretrain.TrainingBar, "__call__", lambda *_: signal.raise_signal(signal.SIGTERM))
        assert run(pretrain, *words) == 128 + signal.SIGTERM
    assert "the state is saved; go on with --resume" in capsys.readouterr().err
    assert run(pretrain, *words, "--resume") == 0
    log = (tmp_path / "runs" / "contrast" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2]


@pytest.mark.parametrize("verb", COMMANDS)
def test_help_shows_examples(verb, capsys):
    with pytest.raises(SystemExit) as ended:
        run(COMMANDS[verb], "--help")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "examples:" in printed
    assert f"python -m ssl_skeleton.{verb} " in printed


def test_the_script_hands_on_to_its_verbs(tmp_path, capsys):
    def script(*words):
        return run_command(__main__.dispatch, [str(word) for word in words])

    assert script() == script("--help") == 0
    assert capsys.readouterr().out.count("pretrain") == 2
    assert script("knn", "--run", tmp_path) == 2
    assert "not a run" in capsys.readouterr().err
    assert script("pretrian") == 2
    assert capsys.readouterr().err == "error: 'pretrian' is no command; did you mean 'pretrain'?\n"


def test_every_command_is_a_verb():
    folder = Path(prepare.__file__).parent
    commands = {path.stem for path in folder.glob("*.py") if "run_command(main)" in path.read_text()}
    assert commands == set(COMMANDS)


def test_synthesise_refuses_a_folder_that_is_there(tmp_path, capsys):
    assert "already exists" in refused(capsys, synthesise, "--out", tmp_path)


def test_in_a_process_of_its_own(house, tmp_path):
    ended = run_apart("ssl_skeleton.knn", "--run", house / "runs" / "fuse", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "untrained encoder" in ended.stdout
    ended = run_apart("ssl_skeleton", "linear", "--run", "nowhere", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: nowhere: not a run")
    assert not snapshot(tmp_path)
