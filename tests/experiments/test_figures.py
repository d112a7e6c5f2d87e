import json
from pathlib import Path

import figures
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scoreboard import score_tables

from ssl_skeleton.errors import UserError


def entry(top1: float, seed: int, split: str = "cross_view", **baselines: float) -> dict:
    scores = {name: {"top1": share} for name, share in baselines.items()}
    facts = {
        "evaluator": "linear",
        "store": "s",
        "split": split,
        "epoch": 3,
        "seed": seed,
        "clips": {"test": 9},
    }
    environment = {"device": "cpu", "threads": 1}
    return {"minutes": 1.0, "environment": environment, "linear": facts | {"top1": top1, "baselines": scores}}


def test_bars_are_means_from_zero_and_dots_are_seeds():
    rows = {
        "first": [entry(0.5, 0, raw=0.25, untrained=0.5), entry(0.75, 1, raw=0.35, untrained=0.6)],
        "a_$ second": [entry(0.25, 0, raw=0.25)],
    }
    (table,) = score_tables(rows)
    figure = figures.draw_scores(table)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    assert [(bar.get_x(), bar.get_width()) for bar in axes.patches] == [(0, 62.5), (0, 25)]
    drawn = [(line.get_label(), *(list(map(float, data)) for data in line.get_data())) for line in axes.lines]
    assert drawn == [
        ("one seed", [50, 75], [0, 0]),
        ("untrained", [pytest.approx(55)], [0]),
        ("raw", [pytest.approx(30)], [0]),
        ("one seed", [25], [1]),
        ("raw", [25], [1]),
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["first", "a $ second"]
    assert axes.yaxis_inverted()  # the first row is on top
    assert axes.get_xlim() == (0, 100)
    assert "linear" in axes.get_xlabel()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(labels) == ["mean over seeds", "one seed", "raw", "untrained"]


def test_there_is_a_picture_of_every_split(tmp_path, capsys):
    results = {"one": {"0": entry(0.5, 0)}, "two": {"0": entry(0.5, 0, split="cross_subject")}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    figures.main([str(tmp_path)])
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert paths == [tmp_path / "scores.png", tmp_path / "scores_2.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_nothing_to_draw_is_told(tmp_path):
    with pytest.raises(UserError, match=r"results\.json: holds nothing"):
        figures.main([str(tmp_path)])
