import json

import curve_figure
import pytest
from tiny import recipe_tree, tiny_store

from ssl_skeleton.errors import UserError
from ssl_skeleton.files import read_json
from ssl_skeleton.recipe import Recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.runs.showing import robustness

FEW = {"noise": [0.0, 0.1], "tempo": [0.0, 0.5], "missing": [], "rotation": [], "dropped": [], "size": []}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds, each scored as it is and by another pooling."""
    home = tmp_path_factory.mktemp("home")
    store, folders = tiny_store(home / "store"), []
    for seed in (0, 1):
        tree = recipe_tree(store, epochs=1) | {"seed": seed}
        run = Run.start(Recipe.from_tree(tree, "recipe"), home / f"run_seed{seed}")
        run.pretrain()
        folders.append(run.folder)
        asked = [f"evaluation.robustness={json.dumps(FEW | {'draws': 1, 'probe': 'knn'})}"]
        for more in ([], ["representation.pooling=max"]):
            robustness(Run.open(run.folder, [*asked, *more]))
    return folders


def test_a_line_is_the_mean_of_the_seeds_of_a_row(runs, tmp_path, monkeypatch, capsys):
    drawn = {}
    monkeypatch.setattr(
        curve_figure, "save_curves", lambda title, panels, path: drawn.update(panels=panels, title=title)
    )
    curve_figure.main([*map(str, runs), "--evaluator", "robustness_knn", "--out", str(tmp_path / "x.png")])
    assert drawn["title"] == "robustness_knn on store, split cross_view: mean ± deviation over seeds"
    assert [(panel.axis, panel.levels) for panel in drawn["panels"]] == [
        ("noise (cm)", [0, 10]),
        ("faster and slower by up to (%)", [0, 50]),
    ]
    for panel, name in zip(drawn["panels"], ("noise", "tempo"), strict=True):
        assert [line.name for line in panel.lines] == ["pooling=mean", "pooling=max"]
        for line in panel.lines:
            found = []
            for folder in runs:
                results = [read_json(path) for path in (folder / "eval").glob("robustness_knn*.json")]
                wanted = {"representation.pooling": "max"} if line.name == "pooling=max" else {}
                (own,) = [one for one in results if _represented(one) == wanted]
                found.append(own["curves"][name]["top1"])
            one, other = found
            assert line.top1 == pytest.approx([(a + b) / 2 for a, b in zip(one, other, strict=True)])
            half = [abs(a - b) / 2**0.5 for a, b in zip(one, other, strict=True)]
            width = [(high - low) / 2 for low, high in line.interval]
            assert width == pytest.approx(half)
    assert str(tmp_path / "x.png") in capsys.readouterr().out


def _represented(result) -> dict:
    return {key: value for key, value in result["overridden"].items() if key.startswith("representation.")}


def test_the_picture_is_written(runs, tmp_path):
    path = tmp_path / "x.png"
    curve_figure.main([str(runs[0]), "--evaluator", "robustness_knn", "--out", str(path)])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_mistakes_are_named(runs, tmp_path):
    with pytest.raises(UserError, match="--evaluator: 0 rows have results of 'early'"):
        curve_figure.main([str(runs[0]), "--evaluator", "early", "--out", str(tmp_path / "x.png")])
    rows = {"a": [{"noise": {"unit": "share", "levels": [0.0], "top1": [1.0]}}], "b": [{}]}
    with pytest.raises(UserError, match="b: the curve 'noise' has other levels"):
        curve_figure.panels_of(rows)
