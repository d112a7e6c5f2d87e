import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import one_line
from commands import refused, run, snapshot
from tiny import recipe_tree, tiny_store

from ssl_skeleton import compare
from ssl_skeleton.data.store import meta_sum, open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.bootstrap import holm, paired_bootstrap
from ssl_skeleton.evaluation.comparison.tables import Table
from ssl_skeleton.evaluation.finetune import FinetuneConfig
from ssl_skeleton.evaluation.results import write_result
from ssl_skeleton.evaluation.scores import classification_scores
from ssl_skeleton.files import write_text
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.comparing import Wanted, comparison_table
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run

EVERYTHING = Wanted(everything=True)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    return tiny_store(tmp_path_factory.mktemp("data") / "store")


@pytest.fixture(scope="module")
def trained(store, tmp_path_factory) -> Path:
    """Runs that were really trained: two seeds of one recipe, and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed, epochs in (("short_seed0", 0, 1), ("short_seed1", 1, 1), ("long", 0, 2)):
        tree = recipe_tree(store, "contrast", epochs) | {"name": name, "seed": seed}
        started = Run.start(Recipe.from_tree(tree, "recipe"), folder / name)
        started.pretrain()
        for evaluator in ("linear", "knn"):
            evaluate(started, evaluator)
    return folder


def made_up(
    folder: Path, store: Path, *, seed: int = 0, epochs: int = 4, right: float = 0.5, **facts
) -> Path:
    """A run that nobody trained, with a result of made-up answers, so many of which are right.

    `facts` replace those of the result; the baselines answer by the seed alone.
    """
    recipe = Recipe.from_tree(recipe_tree(store, "contrast", epochs) | {"name": "a", "seed": seed}, "recipe")
    folder.mkdir(exist_ok=True)
    write_text(folder / "recipe.yaml", yaml.safe_dump(recipe.with_absolute_paths().to_tree()))
    opened = open_store(store)
    labels = opened.labels[opened.split("cross_view").test]

    def scores(share: float, source: int) -> dict:
        rng = np.random.default_rng(source)
        answers = np.where(rng.permutation(len(labels)) < share * len(labels), labels, (labels + 1) % 3)
        return classification_scores(answers[:, None], labels, 3)

    result = {
        "evaluator": "linear",
        "store": store.name,
        "store_path": str(store),
        "store_sum": meta_sum(opened.meta.to_tree()),
        "split": "cross_view",
        "protocol": {},  # all as it is by default
        "streams": ["joint"],
        "epoch": epochs,
        "seed": seed,
        "clips": {"train": 18, "test": len(labels)},
        **scores(right, seed),
        "baselines": {"raw": scores(0.4, seed), "untrained": scores(0.3, 9 + seed)},
    }
    result |= facts
    write_result(folder, {name: value for name, value in result.items() if value is not None})
    return folder


def changed(folder: Path, change) -> None:
    """Change the only result of a run."""
    (path,) = (folder / "eval").glob("*.json")
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))


def without(*names: str):
    """A change that takes these away, from the baselines too, as older results lack them."""

    def change(tree: dict) -> None:
        for scores in (tree, *tree["baselines"].values()):
            for name in names:
                scores.pop(name, None)

    return change


def result_of(folder: Path, evaluator: str = "linear") -> dict:
    return json.loads((folder / "eval" / f"{evaluator}-store-cross_view.json").read_text())


def labels_of(result: dict) -> np.ndarray:
    store = open_store(Path(result["store_path"]))
    return store.labels[store.split(result["split"]).test]


def rows(table: Table) -> dict[str, list[tuple[float, ...] | None]]:
    return {row.name: [cell and cell.values for cell in row.cells] for row in table.rows}


def test_seeds_are_one_row_and_recipes_another(trained, capsys):
    names = ("short_seed0", "short_seed1", "long")
    assert run(compare, *(trained / name for name in names)) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = [line.split() for line in printed.out.splitlines()]
    assert lines[0][-4:] == ["on", "store,", "split", "cross_view"]
    assert lines[3] == ["seeds", "epoch", "linear", "top1,", "epochs=5", "knn", "k=1"]
    tops = {what: [result_of(trained / name, what)["top1"] for name in names] for what in ("linear", "knn")}
    cells = []
    for top in tops.values():
        cells += [f"{50 * sum(top[:2]):.1f}", "±", f"{100 * np.std(top[:2], ddof=1):.1f}"]
    assert lines[4] == ["short", "2", "1", *cells]
    last = [f"{100 * top[2]:.1f}" for top in tops.values()]
    assert [word for word in lines[5] if word != "*"] == ["long", "1", "2", *last]
    assert lines[7][:3] == ["raw", "coordinates", "2"]
    assert lines[8][:3] == ["untrained", "encoder", "2"]
    assert "minus short" in printed.out


def test_a_table_of_one(trained, capsys):
    assert run(compare, trained / "long", "--no-baselines") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "one seed, after the last epoch (2)"
    assert [line.split()[0] for line in lines[4:]] == ["long"]
    assert run(compare, trained / "long") == 0
    assert "minus long" in capsys.readouterr().out


def test_csv_without_notes_says_nothing_beside_it(trained, capsys):
    assert run(compare, trained / "long", "--no-baselines", "--format", "csv") == 0
    assert capsys.readouterr().err == ""


def test_what_every_digit_is(trained, capsys):
    folders = [trained / "short_seed0", trained / "short_seed1", trained / "long"]
    assert run(compare, *folders, "--format", "csv", "--against", trained / "long") == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("note: ")
    lines = {(line["row"], line["evaluator"]): line for line in csv.DictReader(io.StringIO(printed.out))}
    results = [result_of(folder) for folder in folders]
    labels = labels_of(results[0])
    right = [np.array([result["predicted"]]) == labels for result in results]
    one = paired_bootstrap(np.concatenate(right[:2]).astype(float), right[2].astype(float))
    found = lines["short", "linear"]
    shown = [float(found[name]) for name in ("difference", "low", "high", "p")]
    assert shown == [one.mean, one.low, one.high, one.p]
    assert found["reference"] == "long"
    p = {row: float(line["p"]) for (row, what), line in lines.items() if what == "linear" and line["p"]}
    assert len(p) == 3
    corrected = {row: float(lines[row, "linear"]["p_holm"]) for row in p}
    assert corrected == pytest.approx(dict(zip(p, holm(list(p.values())), strict=True)))
    assert {line["content"] for line in lines.values()} == {results[0]["store_sum"][:12]}


def test_the_table_is_written(trained, tmp_path, capsys):
    out = tmp_path / "table.tex"
    words = [trained / "long", "--format", "latex", "--out", out]
    assert run(compare, *words) == 0
    assert capsys.readouterr().out == f"{out}: 3 rows\n"
    assert out.read_text().startswith("% needs \\usepackage{booktabs}\n\\begin{table}")
    before = snapshot(tmp_path)
    assert "already exists; choose another --out, or add --overwrite" in refused(capsys, compare, *words)
    assert "is a folder" in refused(capsys, compare, *words[:-1], tmp_path, "--overwrite")
    assert snapshot(tmp_path) == before
    assert run(compare, *words[:-1], out, "--overwrite", "--no-baselines") == 0
    assert snapshot(tmp_path) != before


def test_each_k_and_other_scores(trained):
    folders = [trained / "long"]
    table = comparison_table(folders, Wanted(scores=["k", "balanced"]), baselines=False)
    assert [column.name for column in table.columns] == [
        "linear balanced, epochs=5",
        "knn k=1",
        "knn k=3",
        "knn balanced, k=1,3",
    ]
    table = comparison_table(folders, Wanted(["knn"], ["k"]))
    judged = [[cell.difference is not None for cell in row.cells] for row in table.rows]
    assert judged == [[False, False], [True, False], [True, False]]
    assert any("no p for knn k=3: no answers are kept" in note for note in table.notes)


def test_baselines_that_are_the_same_are_one_row(store, tmp_path):
    folders = [
        made_up(tmp_path / "a0", store, seed=0),
        made_up(tmp_path / "a1", store, seed=1),
        made_up(tmp_path / "b0", store, seed=0, epochs=8),
    ]
    found = rows(comparison_table(folders, EVERYTHING))
    assert list(found) == ["a", "b0", "raw coordinates", "untrained encoder"]
    assert len(found["raw coordinates"][0]) == 2
    changed(folders[2], lambda tree: tree["baselines"]["untrained"].update(top1=0.0, predicted=[0] * 9))
    found = rows(comparison_table(folders, EVERYTHING))
    assert list(found)[3:] == ["untrained encoder of a", "untrained encoder of b0"]
    assert found["untrained encoder of b0"] == [(0.0,)]
    assert list(rows(comparison_table(folders, EVERYTHING, baselines=False))) == ["a", "b0"]


def test_what_may_differ_between_the_runs_of_a_row(store, tmp_path):
    """Their seeds, names, machines, and how they are evaluated, which results tell."""
    folders = [made_up(tmp_path / f"a{seed}", store, seed=seed) for seed in range(3)]
    for folder, change in zip(
        folders, ({"name": "other"}, {"device": "auto"}, {"evaluation": {"knn": {"k": [7]}}}), strict=True
    ):
        tree = yaml.safe_load((folder / "recipe.yaml").read_text())
        (folder / "recipe.yaml").write_text(yaml.safe_dump(tree | change))
    assert len(comparison_table(folders, EVERYTHING, baselines=False).rows) == 1


def test_names_of_rows(store, tmp_path, capsys):
    """After the runs, their recipes or what differs between these: the first that tells rows apart."""

    def names(by: str | None = None) -> list[str]:
        return list(rows(comparison_table(folders, EVERYTHING, baselines=False, names=by)))

    folders = [made_up(tmp_path / f"crrl_seed{seed}", store, seed=seed) for seed in range(2)]
    assert names() == ["crrl"]
    folders.append(made_up(tmp_path / "long_seed0", store, epochs=9))
    assert (names(), names("keys")) == (["crrl", "long"], ["epochs=4", "epochs=9"])
    (tmp_path / "more").mkdir()
    folders.append(made_up(tmp_path / "more" / "long_seed0", store, epochs=7))
    assert names() == ["epochs=4", "epochs=9", "epochs=7"]  # all recipes have one name
    assert names("runs") == names("recipes") == [str(folders[place]) for place in (0, 2, 3)]
    for folder, name in zip(folders[1:], ("a", "b_seed0", "c"), strict=True):
        tree = yaml.safe_load((folder / "recipe.yaml").read_text())
        (folder / "recipe.yaml").write_text(yaml.safe_dump(tree | {"name": name}))
    assert names() == names("recipes") == ["a", "b", "c"]
    assert run(compare, *folders, "--names", "keys") == 0
    printed = capsys.readouterr().out
    assert all(f"epochs={epochs}" in printed for epochs in (4, 7, 9))


def test_protocols_and_contents_are_never_mixed(store, tmp_path):
    folders = [
        made_up(tmp_path / "a", store),
        made_up(tmp_path / "b", store, epochs=5, protocol={"epochs": 7}),
        made_up(tmp_path / "c", store, epochs=6, windows={"count": 10, "share": 0.9}),
        made_up(tmp_path / "d", store, epochs=7, store_sum="other content"),
    ]
    table = comparison_table(folders, EVERYTHING, baselines=False)
    cells = [[cell is not None for cell in row.cells] for row in table.rows]
    assert sorted(cells) == sorted(np.eye(4, dtype=bool).tolist())
    names = [column.name for column in table.columns]
    assert len(set(names)) == 4
    assert sum("epochs=7" in name for name in names) == sum("content=other" in name for name in names) == 1
    missing = [note for note in table.notes if note.startswith("no such result of ")]
    assert len(missing) == 4
    assert missing[0].startswith("no such result of b, c, d: linear top1")
    assert [note.count("stand in columns of their own") for note in missing] == [1, 0, 0, 0]
    assert not any(cell and cell.difference for row in table.rows for cell in row.cells)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"evaluator": "linear_cmd", "protocol": {"name": "cmd", "lr": 1e9}}, "linear_cmd top1, lr=1e+09"),
        ({"evaluator": "linear_cmd", "protocol": {"name": "cmd", "lr": 0.1}}, "linear_cmd top1"),
        (
            {"evaluator": "finetune_0.05", "protocol": {"labels": 0.05, "epochs": 3, "repeats": 2}},
            "finetune_0.05 top1, epochs=3, repeats=2",
        ),
        (
            {"evaluator": "knn_ivf", "protocol": {"index": {"name": "ivf", "nlist": 64}}},
            "knn_ivf top1, nlist=64",
        ),
        (
            {
                "evaluator": "finetune",
                "protocol": FinetuneConfig().to_tree(),
                "raw_protocol": {"name": "tuned", "epochs": 20},
            },
            "finetune top1, linear.epochs=20",
        ),
        (
            {"evaluator": "linear_3_clips", "protocol": {}, "windows": {"count": 3, "share": 0.5}},
            "linear_3_clips top1, clip_share=0.5",
        ),
        (
            {"evaluator": "early_knn", "protocol": {"probe": "knn"}, "probe_protocol": {"temperature": 1.0}},
            "early_knn top1, temperature=1",
        ),
        (
            {
                "evaluator": "linear",
                "protocol": {"schedule": {"name": "step", "milestones": [5]}, "epochs": 7},
            },
            "linear top1, epochs=7, milestones=5",
        ),
        (
            {"evaluator": "fuse", "protocol": {}, "probe_protocol": [{"name": "tuned"}, {"name": "cmd"}]},
            "fuse top1, linear=tuned+cmd",
        ),
        (
            {"evaluator": "fuse", "protocol": {}, "probe_protocol": [{"epochs": 100}, {"epochs": 5}]},
            "fuse top1, epochs=100+5",
        ),
        (
            {
                "evaluator": "fuse_weighted",
                "protocol": {"weights": [0.6, 0.4]},
                "probe_protocol": [{"name": "tuned"}] * 2,
            },
            "fuse_weighted top1, weights=0.6,0.4",
        ),
        ({"evaluator": "linear", "protocol": {"unheard": 1, "epochs": 7}}, "linear top1"),
        ({"evaluator": "clips", "protocol": {}}, "clips top1"),
    ],
)
def test_what_is_not_as_by_default_is_in_the_head(facts, name, store, tmp_path):
    """Whatever other columns there are, unless the name of the evaluator tells it."""
    folders = [made_up(tmp_path / f"a{seed}", store, seed=seed, **facts) for seed in range(2)]
    assert [column.name for column in comparison_table(folders, Wanted()).columns] == [name]


def test_by_default_columns_are_what_all_rows_have(store, tmp_path, capsys):
    folders = [made_up(tmp_path / f"a{seed}", store, seed=seed) for seed in range(2)]
    folders.append(made_up(tmp_path / "b", store, epochs=5))
    others = {"knn": folders[1:], "cluster": folders[:1], "retrieve": folders}
    for evaluator, whose in others.items():
        for folder in whose:
            epochs, seed = (5, 0) if folder.name == "b" else (4, int(folder.name[1]))
            made_up(folder, store, evaluator=evaluator, protocol={}, epochs=epochs, seed=seed)

    def heads(*words: str) -> str:
        assert run(compare, *folders, *words) == 0
        return " ".join(capsys.readouterr().out.split())

    assert "epoch linear top1 retrieve top1 a 2" in heads()
    assert (
        "2 other columns are of results that not all rows, or not all of their seeds, have; --all" in heads()
    )
    assert "epoch linear top1 knn top1 cluster top1 retrieve top1 a 2" in heads("--all")
    assert "--all shows them" not in heads("--all")
    assert "epoch knn top1 a 2" in heads("--evaluator", "knn")
    shutil.rmtree(folders[2] / "eval")
    made_up(folders[2], store, epochs=5, evaluator="knn", protocol={})
    assert "epoch knn top1 a 2" in heads()  # one seed of two has it, which is better than nothing
    shutil.rmtree(folders[2] / "eval")
    made_up(folders[2], store, epochs=5, evaluator="robustness", protocol={})
    names = [column.name.split()[0] for column in comparison_table(folders, Wanted()).columns]
    assert names == ["linear", "knn", "cluster", "retrieve", "robustness"]


def test_baselines_without_a_score_in_any_column_are_no_rows(store, tmp_path):
    folders = [made_up(tmp_path / name, store, epochs=4 + place) for place, name in enumerate("ab")]
    made_up(folders[0], store, evaluator="knn", baselines={"raw_streams": {"top1": 0.5}})
    assert "raw joint" not in rows(comparison_table(folders, Wanted()))
    assert "raw joint" in rows(comparison_table(folders, EVERYTHING))


def test_relatives_of_an_evaluator_are_named_where_a_run_lacks_it(store, tmp_path):
    folders = [
        made_up(tmp_path / "a", store, evaluator="finetune"),
        made_up(tmp_path / "sup", store, epochs=5, evaluator="finetune_scratch", epoch=0),
        made_up(tmp_path / "plain", store, epochs=6),
    ]
    notes = comparison_table(folders, Wanted(["finetune"])).notes
    assert "sup: has no finetune, but: --evaluator finetune finetune_scratch" in notes
    assert not any(note.startswith("plain: ") for note in notes)
    notes = comparison_table(folders, Wanted(["finetune", "finetune_scratch"])).notes
    assert not any("--evaluator" in note for note in notes)


def test_other_k_that_were_tried_are_no_other_protocol(store, tmp_path):
    knn = {"evaluator": "knn", "top1": 5 / 9}
    folders = [
        made_up(tmp_path / "a", store, right=5 / 9, **knn, protocol={"k": [1, 3]}, k={"1": 5 / 9, "3": 0.5}),
        made_up(tmp_path / "b", store, epochs=5, right=5 / 9, **knn, protocol={"k": [1]}, k={"1": 5 / 9}),
    ]
    table = comparison_table(folders, EVERYTHING, baselines=False)
    assert [column.name for column in table.columns] == ["knn k=1"]
    assert table.rows[1].cells[0].difference is not None


def test_several_stores_and_splits(store, tmp_path):
    folder = made_up(tmp_path / "a", store)
    made_up(folder, store, split="cross_view_dev")
    write_result(folder, result_of(folder) | {"store": "other"})
    table = comparison_table([folder], EVERYTHING, baselines=False)
    names = [
        "linear top1, other, cross_view",
        "linear top1, store, cross_view",
        "linear top1, store, cross_view_dev",
    ]
    assert [column.name for column in table.columns] == names
    assert " on " not in table.title
    chosen = Wanted(stores=["store"], splits=["cross_view"])
    table = comparison_table([folder], chosen, baselines=False)
    assert [column.name for column in table.columns] == ["linear top1"]
    assert table.title.endswith("on store, split cross_view")


def test_older_results_are_shown_and_not_judged(store, tmp_path):
    folders = [made_up(tmp_path / "a", store), made_up(tmp_path / "b", store, epochs=5)]
    for folder in folders:
        changed(folder, without("store_sum", "predicted", "interval", "balanced"))
    table = comparison_table(folders, EVERYTHING)
    assert all(cell is not None and cell.difference is None for row in table.rows for cell in row.cells)
    assert (
        "no p for linear top1: older results do not note what the store held; evaluate again" in table.notes
    )


def test_results_without_answers_are_shown_and_not_judged(store, tmp_path):
    folders = [made_up(tmp_path / f"{epochs}", store, epochs=epochs) for epochs in (4, 5, 6)]
    changed(folders[1], without("predicted"))
    table = comparison_table(folders, EVERYTHING, baselines=False)
    assert [row.cells[0].difference is not None for row in table.rows] == [False, False, True]
    assert "no p for linear top1: no answers of 5 are kept that give this score" in table.notes
    table = comparison_table(folders, EVERYTHING, against=folders[1], baselines=False)
    assert not any(row.cells[0].difference for row in table.rows)


def test_answers_that_do_not_give_the_score_are_not_used(store, tmp_path):
    folders = [made_up(tmp_path / f"{epochs}", store, epochs=epochs) for epochs in (4, 5, 6)]
    changed(folders[1], lambda tree: tree.update(top1=0.125))
    changed(folders[2], lambda tree: tree["predicted"].pop())
    table = comparison_table(folders, EVERYTHING, baselines=False)
    assert not any(row.cells[0].difference for row in table.rows)
    assert any("no answers of 5, 6 are kept" in note for note in table.notes)


def test_a_store_that_was_moved_or_prepared_anew_gives_no_labels(store, tmp_path):
    kept = tmp_path / "store"
    shutil.copytree(store, kept)
    folders = [made_up(tmp_path / f"{epochs}", kept, epochs=epochs) for epochs in (4, 5)]
    assert comparison_table(folders, EVERYTHING).rows[1].cells[0].difference is not None
    kept.rename(tmp_path / "elsewhere")
    for anew in (False, True):
        if anew:
            tiny_store(kept, bodies=2)
        table = comparison_table(folders, EVERYTHING)
        assert not any(cell.difference for row in table.rows for cell in row.cells)
        assert any(f"{kept} is not there as it was evaluated on" in note for note in table.notes)


def test_repeats_of_a_seed_count_as_their_mean(store, tmp_path):
    folders = [
        made_up(tmp_path / f"{epochs}", store, epochs=epochs, evaluator="finetune_0.1") for epochs in (4, 5)
    ]
    labels = labels_of(result_of(folders[0], "finetune_0.1"))
    wrong = ((labels + 1) % 3).tolist()
    changed(folders[1], lambda tree: tree.update(predicted=[labels.tolist(), wrong], top1=0.5))
    table = comparison_table(folders, EVERYTHING, baselines=False)
    assert table.rows[1].cells[0].difference is not None
    assert "finetune_0.1: every seed counts with its mean over 2 repeats" in table.notes
    assert any("beside finetune" in note for note in table.notes)


def fused(folder: Path, store: Path, seed: int = 0, **facts) -> Path:
    """A fusion of two made-up runs with a result, which lies in a folder of its own."""
    runs = [
        made_up(folder.parent / f"{name}_seed{seed}", store, seed=seed, epochs=epochs)
        for name, epochs in (("joint", 4), ("bone", 5))
    ]
    recipes = [yaml.safe_load((run / "recipe.yaml").read_text()) for run in runs]
    kept = result_of(runs[0])
    parts = {f"{run.name} alone": {name: kept[name] for name in ("top1", "predicted")} for run in runs}
    told = [
        {"name": run.name, "folder": str(run), "recipe": tree}
        for run, tree in zip(runs, recipes, strict=True)
    ]
    result = kept | {"evaluator": "fuse", "parts": parts, "runs": told} | facts
    write_result(folder, result)
    return folder


def test_fusions_are_compared_as_runs_are(store, tmp_path, capsys):
    folders = [fused(tmp_path / f"joint_seed{seed}+bone_seed{seed}", store, seed) for seed in range(2)]
    table = comparison_table(folders, EVERYTHING)
    names = ["joint+bone", "joint alone", "bone alone", "raw coordinates", "untrained, fused"]
    assert [(row.name, list(row.seeds), row.epoch) for row in table.rows] == [
        (name, [0, 1], None) for name in names
    ]
    assert [column.name for column in table.columns] == ["fuse top1"]
    assert table.rows[1].cells[0].difference.mean == 0
    assert "joint+bone: fuses runs of 4 and 5 epochs" in table.notes
    assert run(compare, *folders, "--no-baselines") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[4:5]] == ["joint+bone"]
    single = made_up(tmp_path / "alone", store, epochs=9)
    table = comparison_table([single, *folders], EVERYTHING, baselines=False)
    assert [row.name for row in table.rows] == ["alone", "joint+bone"]
    assert [[cell is not None for cell in row.cells] for row in table.rows] == [[True, False], [False, True]]
    assert "has the same recipe and seed as" in refused(
        capsys, compare, folders[0], shutil.copytree(folders[0], tmp_path / "copy")
    )


def test_a_fusion_of_two_seeds_is_called_after_both(store, tmp_path):
    pair = [made_up(tmp_path / f"small_seed{seed}", store, seed=seed) for seed in range(2)]
    told = [{"name": one.name, "recipe": yaml.safe_load((one / "recipe.yaml").read_text())} for one in pair]
    folder = fused(tmp_path / "small_seed0+small_seed1", store, runs=told)
    table = comparison_table([folder], EVERYTHING, baselines=False)
    assert [(row.name, row.epoch) for row in table.rows] == [("small_seed0+small_seed1", 4)]
    assert not any("fuses runs of" in note for note in table.notes)


def test_a_folder_may_hold_fusions_of_several_runs_beside_its_own_results(store, tmp_path):
    folder = made_up(tmp_path / "a", store, epochs=9)
    fused(folder, store)
    three = json.loads((folder / "eval" / "fuse-store-cross_view.json").read_text())["runs"]
    fused(folder, store, runs=[*three, three[0] | {"folder": "/another"}])
    table = comparison_table([folder], EVERYTHING, baselines=False, names="recipes")
    assert sorted((row.name, row.epoch) for row in table.rows) == [
        ("a", 9),
        ("a+a", None),
        ("a+a+a", None),
    ]
    assert table.rows[0].name == "a"


def test_another_representation_of_a_run_is_a_row_of_its_own(store, tmp_path, capsys):
    """Its seeds are together, and its scores in no column of the run itself."""
    for seed in (0, 1):
        folder = made_up(tmp_path / f"a_seed{seed}", store, seed=seed, right=0.8)
        made_up(folder, store, seed=seed, right=0.4, overridden={"representation.pooling": "max"})
    folders = [tmp_path / f"a_seed{seed}" for seed in (0, 1)]
    table = comparison_table(folders, EVERYTHING, baselines=False)
    assert [(row.name, row.seeds) for row in table.rows] == [
        ("pooling=mean", [0, 1]),
        ("pooling=max", [0, 1]),
    ]
    (whole,), (other,) = rows(table).values()
    assert min(whole) > 0.7
    assert max(other) < 0.5
    assert run(compare, *folders) == 0
    assert "pooling=max" in capsys.readouterr().out
    made_up(tmp_path / "b", store, overridden={"representation.pooling": "maxx"})
    assert "representation.pooling" in refused(capsys, compare, tmp_path / "b")


def test_the_folder_of_all_fusions_stands_for_each(store, tmp_path, capsys):
    for seed in range(2):
        (tmp_path / "fused").mkdir(exist_ok=True)
        fused(tmp_path / f"joint_seed{seed}+bone_seed{seed}", store, seed).rename(
            tmp_path / "fused" / f"j+b{seed}"
        )
    folders = sorted(tmp_path.iterdir())  # as runs/* has them
    table = comparison_table(folders, EVERYTHING, baselines=False, names="runs")
    assert ["j+b0", "j+b1"] in [row.runs for row in table.rows]
    made_up(tmp_path / "fused", store, epochs=9)  # a run of that name
    table = comparison_table([tmp_path / "fused"], EVERYTHING)
    assert table.rows[0].name == "fused"
    shutil.rmtree(tmp_path / "fused")
    (tmp_path / "fused").mkdir()
    assert "fused: not a run" in refused(capsys, compare, tmp_path / "fused")


def test_an_older_fusion_is_refused(store, tmp_path, capsys):
    folder = fused(tmp_path / "joint+bone", store, runs=[{"name": "joint"}, {"name": "bone"}])
    line = refused(capsys, compare, folder)
    assert "does not hold the recipes of the runs that were fused; fuse them again" in line
    folder = fused(tmp_path / "other", store, runs=[{"recipe": {"name": "a"}}])
    assert "other/eval/fuse-store-cross_view.json: runs.0.recipe: data: this key is missing" in refused(
        capsys, compare, folder
    )


def test_from_scratch_no_epoch_is_shown(store, tmp_path, capsys):
    scratch = {"evaluator": "finetune_scratch", "epoch": 0}
    folders = [made_up(tmp_path / name, store, seed=seed, **scratch) for seed, name in enumerate("ab")]
    table = comparison_table(folders[:1], EVERYTHING)
    assert [row.epoch for row in table.rows] == [None] * 3
    assert run(compare, folders[0]) == 0
    assert "epoch" not in capsys.readouterr().out
    made_up(folders[0], store)
    table = comparison_table(folders, EVERYTHING)
    assert table.rows[0].epoch == 4
    assert "finetune_scratch: begins at random, after no epoch of pretraining" in table.notes


def test_the_areas_under_all_curves_are_columns(store, tmp_path):
    curves = {"noise": {"area": 0.5}, "missing": {"area": 0.25}}
    facts = {
        "evaluator": "robustness",
        "curves": curves,
        "baselines": {"raw": {"top1": 0.5, "curves": curves}},
    }
    folders = [made_up(tmp_path / f"{epochs}", store, epochs=epochs, **facts) for epochs in (4, 5)]
    made_up(folders[0], store, evaluator="early", curves={"seen": {"area": 0.75}})
    table = comparison_table(folders, EVERYTHING)
    found = {column.name: table.rows[0].cells[place].mean for place, column in enumerate(table.columns)}
    assert found == {
        "early area, seen": 0.75,
        "robustness area, noise": 0.5,
        "robustness area, missing": 0.25,
    }
    assert [cell and cell.mean for cell in table.rows[2].cells] == [None, 0.5, 0.25]
    table = comparison_table(folders, Wanted(scores=["top1"], everything=True), baselines=False)
    assert [column.name for column in table.columns] == ["early top1", "robustness top1"]


def test_every_note_is_there_once(store, tmp_path):
    for name, more in (("a", ("knn", "linear_cmd", "finetune_0.1", "finetune_0.5")), ("b", ())):
        made_up(tmp_path / name, store, epochs=4 + len(more))
        for evaluator in more:
            made_up(tmp_path / name, store, epochs=4 + len(more), evaluator=evaluator)
            path = tmp_path / name / "eval" / f"{evaluator}-store-cross_view.json"
            tree = json.loads(path.read_text())
            if evaluator.startswith("finetune"):
                path.write_text(json.dumps(tree | {"predicted": [tree["predicted"]] * 3}))
    notes = comparison_table([tmp_path / "a", tmp_path / "b"], EVERYTHING).notes
    assert sum("no such result of b" in note for note in notes) == 1
    assert "finetune_0.1, finetune_0.5: every seed counts with its mean over 3 repeats" in notes
    assert len(set(notes)) == len(notes)


def test_what_a_reader_must_know(store, tmp_path):
    folders = [made_up(tmp_path / f"a{seed}", store, seed=seed) for seed in range(3)]
    folders.append(made_up(tmp_path / "b", store, epochs=5))
    (tmp_path / "a2" / "eval" / "linear-store-cross_view.json").rename(tmp_path / "a2/eval/other.json")
    changed(folders[2], lambda tree: tree.update(evaluator="other"))
    table = comparison_table(folders, Wanted(["linear"]), baselines=False)
    notes = "\n".join(table.notes)
    assert "rows have 1 to 3" in notes
    assert "of one seed (a score without ±), a difference is between these very encoders" in notes
    assert "over few seeds (a score with ±), a deviation is rough" in notes
    assert (len(table.rows[0].seeds), len(table.rows[0].cells[0].values)) == (3, 2)


def test_the_order_of_runs_decides_nothing_but_the_order_of_rows(trained):
    folders = [trained / name for name in ("short_seed0", "long", "short_seed1")]
    one = comparison_table(folders, EVERYTHING, against=trained / "long")
    other = comparison_table(folders[::-1], EVERYTHING, against=trained / "long")
    assert {row.name: row.cells for row in one.rows} == {row.name: row.cells for row in other.rows}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: RUN"),
        (["{trained}/nowhere"], "nowhere: not a run; make one with"),
        (["{trained}"], "not a run"),
        (["{trained}/long", "{trained}/../{name}/long"], "long: stands twice; name every run once"),
        (["{trained}/long", "--evaluator", "lineer"], "no such result of 'lineer'; did you mean 'linear'?"),
        (["{trained}/long", "--store", "utd"], "--store: there is no such result of 'utd'"),
        (["{trained}/long", "--split", "cross"], "--split: there is no such result of 'cross'"),
        (["{trained}/long", "--score", "top2"], "--score: no result has 'top2'; did you mean 'top1'?"),
        (["{trained}/long", "--against", "{trained}/short_seed0"], "is none of the runs; name it among them"),
        (["{trained}/long", "--format", "html"], "invalid choice: 'html'"),
        (["{trained}/long", "--baseline"], "unrecognized arguments: --baseline"),
        (["{trained}/long", "--out", ""], "names no file or folder"),
    ],
)
def test_mistakes_are_one_line(words, message, trained, capsys):
    given = [word.format(trained=trained, name=trained.name) for word in words]
    assert message in refused(capsys, compare, *given)


def test_runs_that_cannot_be_compared(store, tmp_path, capsys):
    folder = made_up(tmp_path / "a", store)
    path = folder / "eval" / "linear-store-cross_view.json"
    again = made_up(tmp_path / "b", store)
    line = refused(capsys, compare, folder, again)
    assert f"{again}: has the same recipe and seed as {folder}; name one of the two" in line
    shutil.rmtree(again / "eval")
    line = refused(capsys, compare, again)
    assert f"{again}: has no results; make some with: python -m ssl_skeleton.linear --run {again}" in line
    other = made_up(tmp_path / "c", store, epochs=5, clips={"test": 8})
    assert "has 8 test clips, but" in refused(capsys, compare, folder, other)
    stranger = made_up(tmp_path / "d", store, seed=4)
    changed(stranger, lambda tree: tree.update(seed=5))
    assert "is of seed 5, but the recipe's is 4; evaluate again" in refused(capsys, compare, stranger)
    older = made_up(tmp_path / "e", store, epochs=5, epoch=3)
    assert "is of epoch 3 of 5; evaluate again" in refused(capsys, compare, folder, older)
    older = made_up(tmp_path / "e", store, epochs=5, evaluator="knn")
    assert run(compare, folder, older, "--evaluator", "knn") == 0
    shutil.copy(path, path.with_name("copy.json"))
    assert run(compare, folder) == 0
    path.with_name("copy.json").write_text(path.read_text().replace(f'"top1": {5 / 9}', '"top1": 0.25'))
    line = refused(capsys, compare, folder)
    assert "is of the same as" in line
    assert "remove the older one" in line
    path.with_name("copy.json").write_text("{")
    assert "copy.json: not valid JSON" in refused(capsys, compare, folder)
    path.with_name("copy.json").unlink()
    changed(folder, lambda tree: [tree.pop("top1"), tree.pop("balanced")])
    assert "has no score that stands in a table" in refused(capsys, compare, folder)
    (folder / "recipe.yaml").write_text("name: [")
    assert "recipe.yaml: line 1: not valid YAML" in refused(capsys, compare, folder)


def test_nothing_of_a_run_is_changed(trained):
    before = snapshot(trained)
    comparison_table([trained / "long"], EVERYTHING)
    assert snapshot(trained) == before


def test_a_message_is_one_line(store, tmp_path):
    folder = made_up(tmp_path / "line\nbreak", store)
    assert rows(comparison_table([folder], EVERYTHING, baselines=False)) == {"line\nbreak": [(5 / 9,)]}
    with pytest.raises(UserError) as caught:
        comparison_table([folder, folder], EVERYTHING)
    one_line(caught.value)
