import csv
import io
import re
import unicodedata

import pytest
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.evaluation.comparison.bootstrap import Difference
from ssl_skeleton.evaluation.comparison.tables import FORMATS, Cell, Column, Row, Table, percent

CLEAR = Difference(-0.125, -0.2, -0.05, 0.0002)
UNCLEAR = Difference(0.0123, -0.0004, 0.03, 0.4)
NASTY = [
    "a|b",
    "x_y & z%",
    'say "no", now',
    "100% #1",
    "\\~^{}$<>",
    "[b]*",
    "line\nbreak\r\x07",
    "日本 é",
    "&amp;",
]
names = st.lists(st.sampled_from(NASTY) | st.text(max_size=8), min_size=5, max_size=5)


def table(rows=("first", "second", "raw"), columns=("linear", "knn"), note="a note") -> Table:
    first, second, raw = rows
    lines = [
        Row(first, [Cell((0.5, 0.75, 0.625)), Cell((1 / 3,))], ["a0", "a1", "a2"], [0, 1, 2], 60),
        Row(second, [Cell((0.5,), CLEAR, 0.0004), Cell((0.25,), UNCLEAR, 0.4)], ["b"], [0], 200),
        Row(raw, [None, Cell((0.1, 0.2), UNCLEAR, 0.8)], [first], [0, 1, 2], baseline=True),
    ]
    heads = [Column(name, {"evaluator": name, "score": "top1"}) for name in columns]
    return Table(note, heads, lines, reference=first, notes=[note])


def test_a_cell_has_a_mean_and_the_deviation_of_a_sample():
    assert percent(Cell((0.5, 0.75, 0.625))) == "62.5 ± 12.5"
    assert percent(Cell((0.5,))) == "50.0"
    assert Cell((0.5,)).deviation is None


def test_text():
    assert FORMATS["text"](table()).splitlines() == [
        "a note",
        "mean ± standard deviation of a sample over seeds, after the last epoch",
        "",
        "        seeds  epoch       linear                  knn",
        "first       3     60  62.5 ± 12.5        33.3 (1 of 3)",
        "second      1    200       50.0 *                 25.0",
        "",
        "raw         3                   -  15.0 ± 7.1 (2 of 3)",
        "",
        "minus first                          linear                         knn",
        "second       -12.5 [-20.0, -5.0], p < 0.001  +1.2 [+0.0, +3.0], p 0.400",
        "",
        "raw                                       -  +1.2 [+0.0, +3.0], p 0.800",
        "",
        "a note",
    ]


def test_without_differences_there_is_no_second_grid():
    plain = Table("title", [Column("linear", {})], [Row("a", [Cell((0.5,))], ["a"], [0], 1)])
    assert FORMATS["text"](plain) == "title\none seed, after the last epoch (1)\n\n   linear\na    50.0"
    assert FORMATS["latex"](plain).count("tabular}{") == 1
    assert FORMATS["markdown"](plain).splitlines()[2:] == [
        "|  | linear |",
        "| --- | ---: |",
        "| a | 50.0 |",
    ]


@pytest.mark.parametrize(
    ("rows", "told", "columns"),
    [
        ([(1, 60), (1, 60)], "one seed, after the last epoch (60)", []),
        (
            [(3, 60), (3, 60)],
            "mean ± standard deviation of a sample over 3 seeds, after the last epoch (60)",
            [],
        ),
        (
            [(3, 60), (2, 60)],
            "mean ± standard deviation of a sample over seeds, after the last epoch (60)",
            ["seeds"],
        ),
        (
            [(3, 60), (3, 90)],
            "mean ± standard deviation of a sample over 3 seeds, after the last epoch",
            ["epoch"],
        ),
        (
            [(3, 60), (3, None)],
            "mean ± standard deviation of a sample over 3 seeds, after the last epoch",
            ["epoch"],
        ),
        ([(3, None), (3, None)], "mean ± standard deviation of a sample over 3 seeds", []),
    ],
)
def test_what_every_row_has_stands_above_the_table(rows, told, columns):
    lines = [
        Row(f"row{number}", [Cell((0.5,) * seeds)], [], range(seeds), epoch)
        for number, (seeds, epoch) in enumerate(rows)
    ]
    lines.append(Row("raw", [Cell((0.5,) * rows[0][0])], [], range(rows[0][0]), baseline=True))
    shown = FORMATS["text"](Table("title", [Column("knn", {})], lines)).splitlines()
    assert shown[1] == told
    assert shown[3].split() == [*columns, "knn"]
    if columns == ["epoch"]:
        assert [line.split()[1] for line in shown[4:6]] == [str(rows[0][1]), str(rows[1][1] or "50.0")]


def test_long_notes_are_broken_for_a_terminal_alone():
    long = table(note="word " * 60)
    assert max(map(len, FORMATS["text"](long).splitlines())) <= 100
    assert FORMATS["markdown"](long).splitlines()[-1] == "- " + "word " * 59 + "word"


def unescaped(text: str, letter: str) -> int:
    """How often a letter stands in the text without a backslash of its own."""
    return len(re.findall(rf"(?<!\\)(?:\\\\)*{re.escape(letter)}", text))


@settings(max_examples=examples(60), deadline=None)
@given(names=names)
def test_names_break_no_markdown(names):
    text = FORMATS["markdown"](table(names[:3], names[3:], names[0]))
    rows = [line for line in text.split("\n") if line.startswith("| ")]
    assert [unescaped(line, "|") for line in rows] == [6] * 5 + [4] * 4
    inside = "".join(rows)
    assert not any(unescaped(inside, letter) for letter in "*_<>`[]~$#")
    plain = [re.sub(r"\\(.)", r"\1", line).replace("&amp;", "&") for line in rows]
    assert shown(names[0]) in plain[2]


def shown(name: str) -> str:
    """The name as a table shows it."""
    bad = ("Cc", "Cs", "Zl", "Zp")
    return "".join("?" if unicodedata.category(letter) in bad else letter for letter in name)


@settings(max_examples=examples(60), deadline=None)
@given(names=names)
def test_names_break_no_latex(names):
    text = FORMATS["latex"](table(names[:3], names[3:], names[0]))
    rows = [line for line in text.split("\n") if line.endswith(r" \\")]
    assert [unescaped(line, "&") for line in rows] == [4] * 4 + [2] * 3
    comment, text = text.split("\n", 1)
    assert comment == r"% needs \usepackage{booktabs}"
    assert not any(unescaped(text, letter) for letter in "#%~^_")
    assert unescaped(text, "{") == unescaped(text, "}")
    assert unescaped(text, "$") % 2 == 0
    assert "62.5 $\\pm$ 12.5" in text
    assert not any(line.startswith(("[", "*")) for line in rows)
    assert set(re.findall(r"\\([a-z]+)", text)) <= {
        *("begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "medskip"),
        *("footnotesize", "par", "pm", "textbackslash", "textasciitilde", "textasciicircum"),
        *("textless", "textgreater", "textbar"),
    }


def test_a_hyphen_in_a_name_is_no_minus():
    text = FORMATS["latex"](table(("ntu-60", "lr=1e-4", "raw"), ("on ntu-60", "knn"), "ntu-120"))
    assert "on ntu-60" in text
    assert text.count("$-$") == 3  # of the differences


@settings(max_examples=examples(60), deadline=None)
@given(names=names)
def test_names_break_no_text(names):
    lines = FORMATS["text"](table(names[:3], names[3:], "note")).split("\n")
    assert len(lines) == 15
    assert all(letter.isprintable() or unicodedata.category(letter)[0] in "CZ" for letter in "".join(lines))
    assert shown(names[0]).strip() in lines[4]


def test_wide_letters_stand_in_line():
    lines = FORMATS["text"](table(rows=("日本", "e\u0301", "raw"))).splitlines()[3:6]
    widths = [
        sum(1 + (unicodedata.east_asian_width(c) in "WF") - (unicodedata.combining(c) > 0) for c in line)
        for line in lines
    ]
    assert len(set(widths)) == 1


@settings(max_examples=examples(60), deadline=None)
@given(names=names)
def test_programs_read_every_digit(names):
    read = list(csv.DictReader(io.StringIO(FORMATS["csv"](table(names[:3], names[3:])))))
    assert [line["row"] for line in read] == [shown(names[place]) for place in (0, 0, 1, 1, 2)]
    assert [line["evaluator"] for line in read] == [shown(names[place]) for place in (3, 4, 3, 4, 4)]
    assert [float(line["mean"]) for line in read] == [0.625, 1 / 3, 0.5, 0.25, pytest.approx(0.15)]
    assert [line["std"] for line in read] == ["0.125", "", "", "", repr(Cell((0.1, 0.2)).deviation)]
    assert [line["seeds"] for line in read] == ["3", "1", "1", "1", "2"]
    assert [line["kind"] for line in read] == ["run"] * 4 + ["baseline"]
    assert [line["p"] for line in read] == ["", "", "0.0002", "0.4", "0.4"]
    assert [line["p_holm"] for line in read] == ["", "", "0.0004", "0.4", "0.8"]
    assert [read[2][name] for name in ("difference", "low", "high")] == ["-0.125", "-0.2", "-0.05"]
    assert read[0]["runs"] == "a0; a1; a2"
