import json
import shutil
import signal
from pathlib import Path

import commands
import pytest
import torch
import yaml
from commands import run, snapshot
from tiny import recipe_tree, tiny_store

from ssl_skeleton import finetune, pretrain
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.encoders.released import Released, load_released
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.checkpoint import load_checkpoint

QUICK = ["evaluation.finetune.epochs=1", "evaluation.finetune.batch=9"]
SCRATCH = "finetune_scratch-store-cross_view-epochs=1-batch=9.json"  # the result of that


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refused(capsys, *words) -> str:
    return commands.refused(capsys, finetune, *words, begun=True)


def evaluated(folder: Path) -> set[str]:
    return {path.name for path in (folder / "eval").iterdir()}


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A folder with a store, one without labels, recipe.yaml and the finished runs/contrast."""
    house = tmp_path_factory.mktemp("house")
    store = tiny_store(house / "store")
    tiny_store(house / "unlabelled", labelled=False)
    (house / "recipe.yaml").write_text(yaml.safe_dump(recipe_tree(store, epochs=1)))
    assert run(pretrain, "--cfg", house / "recipe.yaml", "--runs", house / "runs") == 0
    return house


@pytest.fixture
def folder(house, tmp_path) -> Path:
    """A copy of the run."""
    shutil.copytree(house / "runs" / "contrast", tmp_path / "contrast")
    return tmp_path / "contrast"


def test_a_run_is_finetuned(folder, capsys):
    before = snapshot(folder)
    words = [
        "evaluation.finetune.epochs=2",
        "evaluation.finetune.labels=0.5",
        "evaluation.finetune.repeats=2",
    ]
    assert run(finetune, "--run", folder, *words) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0].endswith("split cross_view, on cpu")
    for name in ("finetune_scratch_0.5", "finetune_0.5"):
        for repeat in (1, 2):
            for epoch in (1, 2):
                assert f"\n{name}, repeat {repeat} of 2, {epoch}/2  loss " in printed.out
    head = lines.index("finetune_0.5 on store, split cross_view, in %, mean ± deviation of 2 repeats")
    assert [line.split("  ")[0] for line in lines[head + 3 : head + 6]] == [
        "fine-tuned",
        "raw coordinates, linear",
        "from scratch",
    ]
    assert all(" ± " in line for line in lines[head + 3 : head + 6])
    names = {
        f"{name}_0.5-store-cross_view-epochs=2-repeats=2.json" for name in ("finetune", "finetune_scratch")
    }
    assert evaluated(folder) == names
    added = snapshot(folder).keys() - before.keys()
    assert added == {folder / "eval", *(folder / "eval" / name for name in names)}


def kept_and_scored(folder: Path, file: str, *words: str) -> tuple[Released, dict]:
    """What `--keep` wrote, and the result beside it."""
    assert run(finetune, "--run", folder, "--no-untrained", "--keep", file, *QUICK, *words) == 0
    (path,) = (folder / "eval").glob("finetune*.json")
    return load_released(file), json.loads(path.read_text())


@pytest.mark.parametrize("file", ["kept.safetensors", "kept.pt"])
def test_what_was_trained_can_be_kept(file, folder, capsys):
    kept, result = kept_and_scored(folder, file, "evaluation.finetune.repeats=2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith(f"written to {folder / 'eval' / 'finetune-store-cross_view'}")
    assert lines[-1] == f"kept in {file}: the encoder and its classifier"
    opened = Run.open(folder)
    assert (kept.layout, kept.frames, kept.bodies) == (opened.layout, 6, 1)
    assert kept.source == "contrast, fine-tuned on store, split cross_view"
    test = torch.from_numpy(opened.splits[0].test)
    sampling = SamplingConfig(frames=kept.frames, bodies=kept.bodies, normalise=kept.normalise)
    clips = make_view(opened.packed, test, sampling, ViewConfig(streams=kept.streams), None)
    answers = kept.scores(clips.x, clips.lengths).argmax(dim=1)
    assert answers.tolist() == result["predicted"][0]
    assert "kept" in refused(capsys, "--run", folder, "--keep", file)


@pytest.mark.parametrize(("frames", "same"), [(8, True), (6, False)])
def test_a_graph_encoder_is_kept_with_a_classifier_that_gives_the_same(frames, same, house, tmp_path, capsys):
    """Its blocks make one step of four frames."""
    words = ["--cfg", house / "recipe.yaml", "--runs", tmp_path, "--from-scratch", *QUICK]
    shape = ["encoder={name: st_gcn, width: 0.125, depth: 0.3}", f"data.frames={frames}"]
    assert run(finetune, *words, *shape, "--keep", "kept.pt") == 0
    kept, opened = load_released("kept.pt"), Run.open(tmp_path / "contrast")
    assert (kept.head is not None) is same
    said = (
        "the encoder and its classifier" if same else "the encoder alone: its steps of 4 frames do not divide"
    )
    assert f"\nkept in kept.pt: {said}" in capsys.readouterr().out
    if same:
        (path,) = (tmp_path / "contrast" / "eval").iterdir()
        split, sampling = opened.splits[0], opened.recipe.data
        view = ViewConfig(streams=kept.streams)
        clips = make_view(opened.packed, torch.from_numpy(split.test), sampling, view, None)
        answers = kept.scores(clips.x, clips.lengths).argmax(dim=1).tolist()
        assert [answers] == json.loads(path.read_text())["predicted"]


def test_the_classifier_of_another_pooling_is_kept_too(folder):
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["representation"]["pooling"] = "mean_max"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    kept, result = kept_and_scored(folder, "kept.pt")
    assert kept.pooling == "mean_max"
    opened = Run.open(folder)
    view = ViewConfig(streams=kept.streams)
    test = torch.from_numpy(opened.splits[0].test)
    clips = make_view(opened.packed, test, opened.recipe.data, view, None)
    assert kept.scores(clips.x, clips.lengths).argmax(dim=1).tolist() == result["predicted"][0]


def test_few_labels_are_learned_from_five_times(folder, capsys):
    assert run(finetune, "--run", folder, "--from-scratch", *QUICK, "evaluation.finetune.labels=0.5") == 0
    assert "mean ± deviation of 5 repeats" in capsys.readouterr().out
    (path,) = (folder / "eval").iterdir()
    assert path.name == SCRATCH.replace("scratch", "scratch_0.5")
    result = json.loads(path.read_text())
    assert len(result["repeats"]["top1"]) == result["protocol"]["repeats"] == 5


@pytest.mark.parametrize("words", [["--run", "{folder}"], ["--cfg", "{house}/recipe.yaml", "--from-scratch"]])
def test_settings_of_other_evaluators_are_refused(words, folder, house, capsys):
    before = snapshot(folder)
    words = [word.format(folder=folder, house=house) for word in words]
    line = refused(capsys, *words, "evaluation.knn.k=[3]")
    read = "evaluation.finetune, evaluation.linear"
    assert f"'evaluation.knn.k=[3]': finetune reads {read} alone" in line
    assert snapshot(folder) == before


def test_from_scratch_needs_no_trained_encoder(folder, capsys):
    assert run(finetune, "--run", folder, "--from-scratch", *QUICK) == 0
    kept = (folder / "eval" / SCRATCH).read_bytes()
    shutil.rmtree(folder / "checkpoints")
    shutil.rmtree(folder / "eval")
    assert "main.pt: no such checkpoint" in refused(capsys, "--run", folder, *QUICK)
    assert run(finetune, "--run", folder, "--from-scratch", *QUICK) == 0
    assert "\nfrom scratch " in capsys.readouterr().out
    assert evaluated(folder) == {SCRATCH}
    assert (folder / "eval" / SCRATCH).read_bytes() == kept


def test_without_the_untrained_baseline(folder, capsys):
    assert run(finetune, "--run", folder, "--no-untrained", *QUICK) == 0
    assert evaluated(folder) == {"finetune-store-cross_view-epochs=1-batch=9.json"}
    assert "from scratch" not in capsys.readouterr().out


def test_a_recipe_alone_is_learned_with_labels_and_may_be_pretrained_later(house, tmp_path):
    words = ["--cfg", house / "recipe.yaml", "--runs", tmp_path]
    assert run(finetune, *words, "--from-scratch", *QUICK) == 0
    folder = tmp_path / "contrast"
    assert {path.name for path in folder.iterdir()} == {
        "recipe.yaml",
        "body.json",
        "environment.json",
        "eval",
    }
    assert (folder / "recipe.yaml").read_bytes() == (house / "runs/contrast/recipe.yaml").read_bytes()
    assert run(finetune, *words, "--from-scratch", *QUICK, "evaluation.finetune.labels=0.5") == 0
    assert evaluated(folder) == {
        SCRATCH,
        "finetune_scratch_0.5-store-cross_view-epochs=1-batch=9.json",
    }
    whole = "evaluation={finetune: {epochs: 1, labels: 0.3}}"
    assert run(finetune, *words, "--from-scratch", whole) == 0
    assert any(name.startswith("finetune_scratch_0.3-store-cross_view-") for name in evaluated(folder))
    assert run(pretrain, *words) == 2
    assert run(pretrain, *words, "--resume") == 0
    one, other = (
        load_checkpoint(place / "checkpoints/main.pt", "main").pretext["encoder.gru.weight_ih_l0"]
        for place in (folder, house / "runs" / "contrast")
    )
    assert one.equal(other)
    before = (folder / "eval" / SCRATCH).read_bytes()
    assert run(finetune, "--run", folder, *QUICK) == 0
    result = json.loads((folder / "eval" / SCRATCH).read_text())
    assert result == json.loads(before)


def test_what_a_recipe_and_its_overrides_say_is_done(house, tmp_path):
    words = ["--cfg", house / "recipe.yaml", "--runs", tmp_path, "--from-scratch", *QUICK]
    assert run(finetune, *words, "name=other", "seed=3", "data.split=cross_view_dev") == 0
    (path,) = (tmp_path / "other" / "eval").iterdir()
    assert path.name == SCRATCH.replace("cross_view", "cross_view_dev")
    assert json.loads(path.read_text())["seed"] == 3
    assert yaml.safe_load((tmp_path / "other" / "recipe.yaml").read_text())["seed"] == 3


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.finetune.optimiser.lr=0.02",
        "evaluation.finetune.augment.noise=0.1",
        "evaluation.finetune.labels=1",
    ],
)
def test_an_override_does_the_same_to_a_recipe_as_to_a_run(override, house, folder, tmp_path):
    """Though a recipe may lack the section, which a run folder spells out with all defaults."""
    words = ["--from-scratch", *QUICK, override]
    assert run(finetune, "--cfg", house / "recipe.yaml", "--runs", tmp_path / "runs", *words) == 0
    assert run(finetune, "--run", folder, *words) == 0
    (path,) = (folder / "eval").iterdir()
    one, other = (
        json.loads((place / "eval" / path.name).read_text()) for place in (folder, tmp_path / "runs/contrast")
    )
    assert one == other
    assert one["protocol"]["augment"]["crop"] == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--run", "{house}/runs/contrast", "evaluation.finetune.optimiser=sgd"],
            "error: 'evaluation.finetune.optimiser=sgd': evaluation.finetune.optimiser: ",
        ),
        (
            ["--cfg", "{house}/recipe.yaml", "--from-scratch", "evaluation.finetune.epoch=1"],
            "error: 'evaluation.finetune.epoch=1': evaluation.finetune: unknown key 'epoch'",
        ),
        (["--run", "{house}/runs/contrast", "--keep", "{house}/recipe.yaml"], "recipe.yaml: already exists"),
        (["--run", "{house}/runs/contrast", "--keep", "kept.bin"], "ends in .safetensors or .pt"),
        ([], "one of the arguments --run --cfg is required"),
        (["--run", "{house}/runs/contrast", "--cfg", "{house}/recipe.yaml"], "not allowed with argument"),
        (["--run", "{house}/runs/contrast", "--from-scratch", "--no-untrained"], "not allowed with argument"),
        (["--run", "{house}/store", "--from-scratch"], "store: not a run"),
        (["--run", "nowhere", "--from-scratch"], "nowhere: not a run"),
        (["--cfg", "{house}/recipe.yaml"], "a recipe has no trained encoder; add --from-scratch"),
        (["--cfg", "{house}/recipe.yaml", "--no-untrained"], "a recipe has no trained encoder"),
        (["--cfg", "nowhere.yaml", "--from-scratch"], "nowhere.yaml: no such file"),
        (["--run", "{house}/runs/contrast", "seed=3"], "can change after training"),
        (["--run", "{house}/runs/contrast", "data.split=all"], "split all: has no test part"),
        (["--cfg", "{house}/recipe.yaml", "--from-scratch", "data.split=all"], "has no test part"),
        (["--cfg", "{house}/recipe.yaml", "--from-scratch", "data.bodies=2"], "data.bodies: 2, but no clip"),
        (["--run", "{house}/runs/contrast", "data.store={house}/unlabelled"], "no clip has a label"),
        (
            ["--cfg", "{house}/recipe.yaml", "--from-scratch", "data.store={house}/unlabelled"],
            "no clip has a label",
        ),
        (["--run", "{house}/runs/contrast", "evaluation.finetune.labels=0"], "evaluation.finetune.labels: "),
        (["--run", "{house}/runs/contrast", "evaluation.finetune.label=1"], "did you mean 'labels'"),
        (
            ["--run", "{house}/runs/contrast", "--from-scratch", "evaluation.finetune.optimiser.lr=1e38"],
            "the loss is not finite",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(words, message, house, tmp_path, capsys):
    before = snapshot(house)
    line = refused(capsys, *[word.format(house=house) for word in words])
    assert message in line
    assert snapshot(house) == before
    assert not snapshot(tmp_path)


def test_another_recipe_in_the_folder_is_left_alone(house, tmp_path, capsys):
    words = ["--cfg", house / "recipe.yaml", "--runs", tmp_path, "--from-scratch", *QUICK]
    assert run(finetune, *words) == 0
    before = snapshot(tmp_path)
    assert "holds another recipe (encoder.hidden is 8 there" in refused(capsys, *words, "encoder.hidden=4")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_no_half_result(number, folder, monkeypatch, capsys):
    before, seen = snapshot(folder), []

    def stop(bar, standing):
        seen.append((standing.stage, standing.epoch, standing.step))
        signal.raise_signal(number)

    monkeypatch.setattr(finetune.TrainingBar, "__call__", stop)
    if number == signal.SIGTERM:
        with pytest.raises(SystemExit) as ended:
            run(finetune, "--run", folder, *QUICK)
        assert ended.value.code == 128 + number
    else:
        assert run(finetune, "--run", folder, *QUICK) == 128 + number
        assert capsys.readouterr().err == "interrupted\n"
    assert seen == [("finetune_scratch", 1, 1)]
    assert snapshot(folder) == before
