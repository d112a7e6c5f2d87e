import csv
import io
import json
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from builders import change_meta, damages, examples, one_line, refusal_of
from embedded import CLASSES, made_up
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.store import sha256
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.search.embeddings import (
    COLUMNS,
    Embeddings,
    is_embeddings,
    read_embeddings,
    write_embeddings,
)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=9)


def same(one: Embeddings, other: Embeddings) -> bool:
    return (
        one.meta.to_tree() | {"sha256": {}} == other.meta.to_tree() | {"sha256": {}}
        and one.names == other.names
        and np.array_equal(one.features.view(np.int32), other.features.view(np.int32))
        and one.columns.keys() == other.columns.keys()
        and all(np.array_equal(one.columns[name], other.columns[name]) for name in one.columns)
    )


@pytest.fixture
def folder(tmp_path) -> Path:
    write_embeddings(tmp_path, made_up())
    return tmp_path


@settings(max_examples=examples(40), deadline=None)
@given(names=st.lists(texts, min_size=1, max_size=5), dim=st.integers(1, 5))
def test_whatever_names_clips_have(names, dim, tmp_path_factory):
    """Quotes, commas, and even the line breaks that no store of `prepare` has."""
    folder, written = tmp_path_factory.mktemp("embeddings"), made_up(tuple(names), dim)
    write_embeddings(folder, written)
    assert same(read_embeddings(folder), written)
    with (folder / "clips.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == names
    assert [int(line["row"]) for line in lines] == list(range(len(names)))
    for line in lines:
        assert line["class"] == (CLASSES[int(line["label"])] if int(line["label"]) >= 0 else "")
    with np.load(folder / "embeddings.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"features", "names", "labels", "lengths"}
        assert arrays["names"].tolist() == names
        assert arrays["features"].dtype == np.float32
        assert arrays["labels"].tolist() == written.columns["label"].tolist()
        assert arrays["lengths"].tolist() == written.columns["frames"].tolist()


def test_the_file_says_what_it_is(folder):
    assert {path.name for path in folder.iterdir()} == {"embeddings.npz", "clips.csv", "meta.json"}
    meta = json.loads((folder / "meta.json").read_text())
    assert meta["format"] == 1
    assert meta["sha256"] == {name: sha256(folder / name) for name in ("embeddings.npz", "clips.csv")}
    assert (folder / "clips.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert is_embeddings(folder)
    (folder / "notes.txt").write_text("mine")
    assert not is_embeddings(folder)


def test_a_damaged_folder_is_still_ones_own(folder):
    (folder / "meta.json").write_text("{")
    assert is_embeddings(folder)
    (folder / "embeddings.npz").unlink()
    assert not is_embeddings(folder)


def test_a_name_longer_than_any_is_not_kept_a_thousand_times(tmp_path):
    names = ("x" * 300_000, *map(str, range(1000)))
    with pytest.raises(UserError, match="a name of 300000 letters is too long"):
        write_embeddings(tmp_path, made_up(names))
    assert not list(tmp_path.iterdir())


def refusal(folder: Path) -> str:
    return refusal_of(read_embeddings, folder, most=50e6)


def npz(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def huge() -> bytes:
    """The bytes of an array that claims a petabyte."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (250000000000000, 4), }\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(48)


def put_in_order(folder: Path) -> None:
    """Let meta.json tell the sums of the files as they are, as somebody would who means harm."""
    names = [name for name in ("embeddings.npz", "clips.csv") if (folder / name).is_file()]
    change_meta(folder, sha256={name: sha256(folder / name) for name in names})


def other_features(array: np.ndarray):
    return lambda folder: (folder / "embeddings.npz").write_bytes(npz(features=npy(array)))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda folder: (folder / "meta.json").unlink(), "holds no embeddings; make some with"),
        (lambda folder: (folder / "meta.json").write_text("[]"), "does not tell of embeddings in format 1"),
        (lambda folder: (folder / "meta.json").write_text("[" * 9999), "not valid JSON"),
        (lambda folder: change_meta(folder, format=2), "in format 1"),
        (lambda folder: change_meta(folder, clips=2), "clips.csv: damaged (3 lines for 2 clips)"),
        (lambda folder: change_meta(folder, clips=10**15), "clips.csv: damaged (3 lines for"),
        (
            lambda folder: change_meta(folder, dim=10**9),
            "embeddings.npz: damaged (its features are not those",
        ),
        (lambda folder: change_meta(folder, classes=["wave"]), "a label is not below 1"),
        (lambda folder: change_meta(folder, wave=3), "meta.json: unknown key 'wave'"),
        (lambda folder: (folder / "clips.csv").unlink(), "clips.csv: cannot be read"),
        (lambda folder: (folder / "clips.csv").write_text("name\na\nb\nc\n"), "the first line does not read"),
        (lambda folder: (folder / "clips.csv").write_bytes(b"\xff"), "clips.csv: damaged"),
        (lambda folder: (folder / "clips.csv").write_text("x" * 100_000), "100000 bytes are too many"),
        (lambda folder: (folder / "embeddings.npz").unlink(), "embeddings.npz: cannot be read"),
        (lambda folder: (folder / "embeddings.npz").write_bytes(b"PK"), "not a .npz file"),
        (other_features(np.zeros((3, 5), np.float32)), "are not those that meta.json tells of"),
        (other_features(np.zeros((3, 4))), "are not those that meta.json tells of"),
        (other_features(np.full((3, 4), np.inf, np.float32)), "some features are not finite"),
        (other_features(np.array([print] * 12).reshape(3, 4)), "holds object, not numbers"),
        (
            lambda folder: (folder / "embeddings.npz").write_bytes(npz(features=huge())),
            "shape (250000000000000, 4) is not possible",
        ),
    ],
)
def test_folders_of_strangers(change, fault, folder):
    change(folder)
    meta = folder / "meta.json"
    if meta.is_file() and meta.read_bytes()[:1] == b"{":
        put_in_order(folder)
    assert fault in refusal(folder)


def test_a_table_with_other_numbers(folder):
    path = folder / "clips.csv"
    lines = path.read_text().splitlines()
    for cell in ("x", "", "9" * 30, "-2"):
        path.write_text("\n".join([*lines[:3], f"c,{cell},{lines[3].split(',', 2)[2]}"]) + "\n")
        put_in_order(folder)
        assert str(path) in refusal(folder)


@pytest.mark.parametrize("name", ["meta.json", "clips.csv", "embeddings.npz"])
def test_a_link_is_refused(name, folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("elsewhere") / name
    shutil.move(folder / name, target)
    (folder / name).symlink_to(target)
    assert f"{name}: is a link" in refusal(folder)


def test_what_was_changed_or_mixed_up_is_told_by_its_sum(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_embeddings(other, made_up(seed=1))
    for name in ("clips.csv", "embeddings.npz"):
        mixed = tmp_path_factory.mktemp("mixed") / "folder"
        shutil.copytree(folder, mixed)
        shutil.copy(other / name, mixed / name)
        assert f"{name}: is not what meta.json tells of, by its SHA-256 sum" in refusal(mixed)


@settings(
    max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_of_any_kind_is_one_line(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged")
    write_embeddings(folder, made_up())
    name = data.draw(st.sampled_from(["meta.json", "clips.csv", "embeddings.npz"]))
    (folder / name).write_bytes(data.draw(damages((folder / name).read_bytes())))
    if name != "meta.json" and data.draw(st.booleans()):
        put_in_order(folder)
    try:
        found = read_embeddings(folder)
    except UserError as error:
        one_line(error)
    else:
        assert np.isfinite(found.features).all()
        assert len(found.class_names) == len(found) == 3
