import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgba

from ssl_skeleton.figures.curves import Line, Panel, draw_curves, save_curves

NAMES = ("trained", "raw coordinates", "raw motion", "untrained encoder")
PANEL = Panel(
    "seen (%)",
    (10.0, 50.0, 100.0),
    [
        Line(name, (0.2 + 0.1 * row, 0.5, 0.9), [(0.1, 0.3 + 0.1 * row), (0.4, 0.6), (0.8, 1.0)])
        for row, name in enumerate(NAMES)
    ],
)


@pytest.mark.parametrize("panels", [1, 2, 3, 4])
def test_what_is_drawn_are_the_numbers(panels):
    figure = draw_curves("early on nw_ucla", [PANEL] * panels)
    assert len(figure.axes) == panels
    for axes in figure.axes:
        for line, wanted in zip(axes.lines, PANEL.lines, strict=True):
            assert list(line.get_xdata()) == list(PANEL.levels)
            np.testing.assert_allclose(line.get_ydata(), 100 * np.array(wanted.top1))
        bands = [part for part in axes.collections if isinstance(part, PolyCollection)]
        for band, line, wanted in zip(bands, axes.lines, PANEL.lines, strict=True):
            corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(6).tolist()}
            for level, bounds in zip(PANEL.levels, wanted.interval, strict=True):
                assert {(level, round(100 * bound, 6)) for bound in bounds} <= corners
            assert tuple(band.get_facecolor()[0][:3]) == to_rgba(line.get_color())[:3]
        assert axes.get_xlabel() == "seen (%)"
        assert axes.get_ylabel() == "top-1 accuracy (%)"
        assert axes.get_ylim() == (0, 100)
        assert list(axes.get_xticks()) == list(PANEL.levels)


def test_the_interval_of_a_single_level_is_seen():
    panel = Panel("noise (cm)", (5.0,), [Line("trained", (0.5,), [(0.4, 0.7)])])
    (axes,) = draw_curves("robustness", [panel]).axes
    (bar,) = [part for part in axes.collections if isinstance(part, LineCollection)]
    np.testing.assert_allclose(bar.get_segments(), [[(5, 40), (5, 70)]])


def test_the_legend_names_every_line_as_it_is_drawn():
    figure = draw_curves("early", [PANEL])
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == list(NAMES)
    for shown, line in zip(legend.get_lines(), figure.axes[0].lines, strict=True):
        for look in ("get_color", "get_linestyle", "get_marker"):
            assert getattr(shown, look)() == getattr(line, look)()


def test_lines_are_told_apart_by_colour_by_dashes_and_by_marks():
    lines = draw_curves("early", [PANEL]).axes[0].lines
    for look in ("get_color", "get_linestyle", "get_marker"):
        assert len({getattr(line, look)() for line in lines}) == len(NAMES)


def test_the_picture_is_a_png_of_a_title_with_any_letters(tmp_path):
    path = tmp_path / "figures" / "early.png"
    save_curves("early on $store^\u4e2d\u6587", [PANEL] * 3, path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in path.parent.iterdir()] == ["early.png"]
