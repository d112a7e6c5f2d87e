import re
import time
from pathlib import Path

import numpy as np
import pytest
from builders import one_line
from hypothesis import given
from hypothesis import strategies as st
from own_files import about, about_file, write_table

from ssl_skeleton.data.readers.about import About
from ssl_skeleton.data.readers.labels import Labels
from ssl_skeleton.errors import UserError
from ssl_skeleton.skeleton.layout import load_layout


def refused(path: Path, *, labels_of: list[str] | None = None) -> str:
    """The one line with which the file, or then its labels, are refused."""
    with pytest.raises(UserError) as caught:
        About.read(path).labels(labels_of or [])
    return one_line(caught.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"datset": "x"}, "unknown key 'datset'; did you mean 'dataset'?"),
        ({"dataset": None}, "dataset: this key is missing"),
        ({"fps": None}, "fps: this key is missing"),
        ({"dataset": "my data"}, "dataset: should be a name of letters, digits, - and _, not 'my data'"),
        ({"dataset": 5}, "dataset: should be a name"),
        ({"fps": "30 Hz"}, "fps: input should be a valid number, not '30 Hz'"),
        ({"fps": 0}, "fps: input should be greater than 0, not 0"),
        ({"unit": "mm"}, "unit: should be the metres per unit, such as 0.001 for millimetres, not 'mm'"),
        ({"unit": True}, "unit: should be the metres per unit"),
        ({"unit": -1}, "unit: input should be greater than 0"),
        ({"axes": ["x", "y"]}, "axes: should name each of x, y and z once, with or without a minus"),
        ({"axes": ["x", "y", "-x"]}, "axes: should name each"),
        ({"axes": ["x", "y", "up"]}, "axes: should name each"),
        ({"axes": ["x", "y", 3]}, "axes: should name each"),
        ({"axes": "xyz"}, "axes: should name each"),
        ({"coordinates": "imag"}, "coordinates: 'imag' is not possible; did you mean 'image'?"),
        ({"classes": ["a", "a"]}, "classes: a name stands twice"),
        ({"classes": [1]}, "classes.0: input should be a valid string, not 1"),
        ({"labels": "a.csv", "names": "{label}"}, "labels and names: give one of them"),
        ({"names": "{lable}"}, "names: unknown part 'lable'; did you mean 'label'?"),
        ({"names": "{}{}{}{}q"}, "names: two parts that stand for any text need something between them"),
        ({"names": "{label}{}_{subject}"}, "names: two parts that stand for any text"),
        ({"names": "{}_{}_{label}_{}"}, "names: more than 3 parts stand for any text"),
        ({"names": "{label}_{label}"}, "names: a part stands twice"),
        ({"splits": {"s": {"colum": 1}}}, "splits.s: unknown key 'colum'; did you mean 'column'?"),
        ({"splits": {"s": {"column": "subjects", "train": [1], "test": [2]}}}, "did you mean 'subject'?"),
        ({"splits": {"s": {"column": "subject", "train": [1], "test": [1]}}}, "a subject stands twice"),
        ({"splits": {"s": {"column": "subject", "train": [1]}}}, "splits.s.test: this key is missing"),
    ],
)
def test_what_is_wrong_and_how_to_mend_it(tmp_path, keys, message):
    path = about_file(tmp_path, **keys)
    error = refused(path)
    assert error.startswith(f"{path}: ")
    assert message in error


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\xff", "text"])
def test_what_is_no_mapping(tmp_path, text):
    path = tmp_path / "about.yaml"
    path.write_bytes(text.encode("latin-1"))
    assert refused(path).startswith(f"{path}:")


def test_layouts_by_name_by_file_and_by_default(tmp_path):
    assert about(tmp_path).layout().name == "kinect_v1_20"
    assert about(tmp_path, layout=None).layout("coco_17") == load_layout("coco_17")
    (tmp_path / "mine.yaml").write_text("{name: mine, joints: [a, b], bones: {b: a}, root: a}")
    assert about(tmp_path, layout="mine.yaml").layout().joints == ("a", "b")
    with pytest.raises(UserError, match=r"layout: this key is missing; choose one of .*coco_17"):
        about(tmp_path, layout=None).layout()
    with pytest.raises(UserError, match=r"no layout and no file 'coco17'; did you mean 'coco_17'"):
        about(tmp_path, layout="coco17").layout()


def test_labels_of_a_file(tmp_path):
    rows = [["a", "wave", "3", ""], ["b", "", "", "2"], [" c ", "sit", "1", "0"], []]
    write_table(tmp_path / "labels.csv", rows, "clip,label,subject,camera")
    labels = about(tmp_path, labels="labels.csv").labels(["a", "b", "d"])
    assert labels.classes == ("sit", "wave")
    assert labels.of("a") == {"label": 1, "subject": 3}
    assert labels.of("b") == {"camera": 2}
    assert labels.of("c") == {"label": 0, "subject": 1, "camera": 0}
    assert labels.of("d") == {}
    in_order = about(tmp_path, labels="labels.csv", classes=["wave", "sit", "run"]).labels([])
    assert (in_order.classes, in_order.of("a")["label"]) == (("wave", "sit", "run"), 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no column 'clip'"),
        ("name,label\n", "names no column 'clip'"),
        ("clip,lable\n", "unknown column 'lable'; did you mean 'label'?"),
        ("clip,label,label\n", "column 'label' stands twice"),
        ("clip,label\na\n", "line 2 has 1 cells, not 2"),
        ("clip,label\na,x\n\na,y\n", "line 4: clip 'a' stands twice"),
        (
            "clip,subject\na,P01\n",
            "clip 'a': subject 'P01' is no whole number, as subject, camera, setup, repetition must be",
        ),
        ("clip,subject\na,-1\n", "subject '-1' is no whole number"),
        ("clip,subject\na,1234567890\n", "is no whole number"),
        ('clip,label\n"a\n', "cannot be read as CSV"),
        ("clip,label\nz,x\n", "names no clip that is there; its first is 'z', choose one of a, b"),
    ],
)
def test_what_is_wrong_in_a_labels_file(tmp_path, text, message):
    (tmp_path / "labels.csv").write_text(text)
    error = refused(about_file(tmp_path, labels="labels.csv"), labels_of=["a", "b"])
    assert message in error
    assert "labels.csv" in error


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_labels_file_from_anywhere(tmp_path, delimiter):
    (tmp_path / "labels.csv").write_text("Clip,LABEL, Subject\na,wave,3\n".replace(",", delimiter))
    labels = about(tmp_path, labels="labels.csv").labels(["a"])
    assert (labels.classes, labels.of("a")) == (("wave",), {"label": 0, "subject": 3})


def test_an_empty_about_file(tmp_path):
    (tmp_path / "about.yaml").write_text("# nothing yet\n")
    assert "is empty; it should say dataset, fps and layout" in refused(tmp_path / "about.yaml")


def test_a_layout_file_that_is_wrong_or_whose_name_is_none(tmp_path):
    (tmp_path / "mine.yaml").write_text("{name: mine, joints: [a, b]}")
    with pytest.raises(UserError, match=r"about.yaml: .*mine.yaml: bones"):
        about(tmp_path, layout="mine.yaml").layout()
    with pytest.raises(UserError, match=r"about.yaml: layout: no file 'aaa"):
        about(tmp_path, layout="a" * 1000).layout()


def test_long_names_are_quoted_in_part(tmp_path):
    error = refused(about_file(tmp_path, names="{label}_s{subject}"), labels_of=["a" * 200])
    assert "a" * 81 not in error
    assert about(tmp_path, names="{label}_s{subject}").labels(["a" * 301]).of("a" * 301) == {}


def test_a_name_that_nearly_fits_in_many_ways_takes_no_time(tmp_path):
    start = time.process_time()
    error = refused(about_file(tmp_path, names="{}_{label}_{}_s{subject}"), labels_of=["_" * 300])
    assert "does not read" in error
    assert time.process_time() - start < 2  # about 0.05


def test_a_labels_file_that_is_not_there(tmp_path):
    assert f"{tmp_path / 'labels.csv'}: no such file" in refused(about_file(tmp_path, labels="labels.csv"))


def test_a_label_that_is_no_class(tmp_path):
    (tmp_path / "labels.csv").write_text("clip,label\na,wvae\n")
    error = refused(about_file(tmp_path, labels="labels.csv", classes=["wave", "sit"]))
    assert "labels.csv: clip 'a' has the label 'wvae'; did you mean 'wave'?" in error


@pytest.mark.parametrize(
    ("pattern", "clip", "found"),
    [
        ("{label}_s{subject}_c{camera}", "sit_down_s01_c2", {"label": 0, "subject": 1, "camera": 2}),
        ("{}/{label}.{repetition}", "any/walk.3", {"label": 0, "repetition": 3}),
        ("{label}", "a (b)", {"label": 0}),
    ],
)
def test_labels_in_names(tmp_path, pattern, clip, found):
    assert about(tmp_path, names=pattern).labels([clip]).of(clip) == found


def test_a_name_that_does_not_fit(tmp_path):
    error = refused(about_file(tmp_path, names="{label}_s{subject}"), labels_of=["walk_s1", "walk"])
    assert "clip 'walk' does not read '{label}_s{subject}' (is this the right format and folder?)" in error


def test_no_labels_at_all(tmp_path):
    assert about(tmp_path).labels(["a"]) == Labels()


@given(st.permutations("xyz"), st.tuples(*[st.sampled_from(["", "-"])] * 3), st.floats(1e-3, 10))
def test_axes_are_a_signed_permutation(tmp_path_factory, order, signs, unit):
    axes = [sign + axis for sign, axis in zip(signs, order, strict=True)]
    known = about(tmp_path_factory.mktemp("about"), axes=axes, unit=unit)
    x_tvc = np.random.default_rng(0).normal(size=(2, 3, 3)).astype(np.float32)
    moved = known.to_metres(x_tvc)
    for place, axis in enumerate(axes):
        wanted = x_tvc[..., "xyz".index(axis[-1])] * unit * (-1 if axis[0] == "-" else 1)
        assert np.allclose(moved[..., place], wanted, rtol=1e-5)


def test_the_usual_axes_are_for_those_who_name_none(tmp_path):
    x_tvc = np.ones((1, 1, 3), np.float32)
    assert about(tmp_path).to_metres(x_tvc, ("-x", "-y", "z")).tolist() == [[[-1, -1, 1]]]
    assert about(tmp_path, axes=["x", "y", "z"]).to_metres(x_tvc, ("-x", "-y", "z")).tolist() == [[[1, 1, 1]]]


@pytest.mark.parametrize("key", [{"unit": 0.001}, {"axes": ["x", "y", "z"]}])
def test_an_image_has_neither_unit_nor_axes(tmp_path, key):
    assert about(tmp_path, **key).is_image("world") is False
    assert about(tmp_path, coordinates="world").is_image("image") is False
    assert about(tmp_path).is_image("image") is True
    with pytest.raises(UserError, match=re.escape("image coordinates have none; leave it out, or say")):
        about(tmp_path, coordinates="image", **key).is_image("world")
