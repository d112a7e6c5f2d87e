import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from builders import change_meta, damages, examples, one_line, refusal_of
from embedded import made_up
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.store import sha256
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.search.index import Hit, is_index, open_index, write_index
from ssl_skeleton.evaluation.search.ways import WAYS

NAMES = tuple(f"clip{number:02}" for number in range(60))
FILES = {
    "exact": {"meta.json", "clips.csv", "vectors.npy"},
    "ivf": {"meta.json", "clips.csv", "vectors.npy", "centroids.npy", "order.npy", "begins.npy"},
    "hnsw": {"meta.json", "clips.csv", "vectors.npy", "start.npy", "offsets.npy", "links.npy"},
}


@pytest.fixture(scope="module", params=WAYS)
def original(request, tmp_path_factory) -> Path:
    """An index of each kind."""
    folder = tmp_path_factory.mktemp("indexes") / request.param
    folder.mkdir()
    write_index(folder, [made_up(NAMES)], request.param)
    return folder


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / original.name))


def test_an_index_is_what_was_written(original):
    assert {path.name for path in original.iterdir()} == FILES[original.name]
    index, embedded = open_index(original), made_up(NAMES)
    assert (len(index), index.meta.kind, index.meta.dim) == (60, original.name, 4)
    assert index.names == NAMES
    assert list(index.classes) == embedded.class_names
    assert index.meta.origin == embedded.meta.origin
    assert index.meta.stores == (embedded.meta.store,)
    assert (index.meta.recall is None) == (original.name == "exact")
    hits = index.search(embedded.features[[3, 7]], 5)
    assert [found[0].name for found in hits] == ["clip03", "clip07"]
    assert hits[0][0] == Hit(3, "clip03", 'say "hi"', "store", 1.0)
    cosine = embedded.features @ embedded.features[7] / np.linalg.norm(embedded.features, axis=1)
    best = np.argsort(-cosine)[:5]
    assert [hit.row for hit in hits[1]] == best.tolist()
    assert [hit.likeness for hit in hits[1]] == pytest.approx(
        (cosine[best] / np.linalg.norm(embedded.features[7])).tolist(), abs=1e-5
    )


def test_vectors_stay_in_their_file(original):
    index = open_index(original)
    assert isinstance(index.vectors_nd, np.memmap)
    assert not index.vectors_nd.flags.writeable


def test_several_stores(tmp_path):
    parts = [
        made_up(("a", "b"), store="/one/store"),
        made_up(("c",), store="/two/store"),
        made_up(("d",), store="/x"),
    ]
    write_index(tmp_path, parts, "exact")
    index = open_index(tmp_path)
    assert index.stores == ("/one/store", "/one/store", "/two/store", "x")
    assert index.names == ("a", "b", "c", "d")
    assert [store.path for store in index.meta.stores] == ["/one/store", "/two/store", "/x"]


def test_parts_that_do_not_go_together(tmp_path):
    one = made_up()
    with pytest.raises(UserError, match="is named twice"):
        write_index(tmp_path, [one, made_up(seed=1)], "exact")
    with pytest.raises(UserError, match="but other weights"):
        write_index(tmp_path, [one, made_up(store="/other", encoder_sum="2")], "exact")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", WAYS)
def test_clips_that_are_no_answers(kind, tmp_path):
    names = [[f"{letter}{number % 9}" for number in range(20)] for letter in "ab"]
    parts = [
        made_up(tuple(one), seed=seed, store=f"/{seed}/store") for seed, one in enumerate([*names, names[0]])
    ]
    write_index(tmp_path, parts, kind)
    index = open_index(tmp_path)
    stores = [part.meta.store for part in parts]
    other = stores[0].model_copy(update={"path": "/moved"})
    rows = np.arange(60).reshape(3, 20)
    assert index.rows_of(["a3", "x", "b0"]) == [{3, 12, 43, 52}, set(), {20, 29, 38}]
    assert index.rows_of(["a3", "b0"], stores[0].model_copy(update={"sum": "other"})) == [{3, 12}, set()]
    assert index.rows_of(["a3"], other) == [{3, 12, 43, 52}]  # by content, which all three have
    queries, effort = np.concatenate([part.features for part in parts]), 60
    without = index.rows_of([name for part in parts for name in part.names])
    found = index.search(queries, 7, effort, without)
    every = index.search(queries, 60, effort)
    for hits, ranked, rows in zip(found, every, without, strict=True):
        assert hits == [hit for hit in ranked if hit.row not in rows][:7]
    most = max(map(len, without))
    with pytest.raises(
        UserError, match=rf"k = 60 must lie in 1..{60 - most}, .*, less {most} that are left out"
    ):
        index.search(queries, 60, effort, without)


def test_questions_that_make_no_sense(original):
    index = open_index(original)
    for k in (0, 61):
        with pytest.raises(UserError, match=r"must lie in 1\.\.60"):
            index.search(np.ones((1, 4), np.float32), k)
    with pytest.raises(UserError, match="has 4 features a clip, not 5"):
        index.search(np.ones((1, 5), np.float32), 1)


def test_whose_folder_it_is(folder):
    assert is_index(folder)
    (folder / "meta.json").write_text("{")
    assert is_index(folder)
    (folder / "clips.txt").write_text("mine")
    assert not is_index(folder)
    (folder / "clips.txt").unlink()
    (folder / "vectors.npy").unlink()
    assert not is_index(folder)


def refusal(folder: Path) -> str:
    return refusal_of(open_index, folder, most=20e6)


def put_in_order(folder: Path) -> None:
    """Let meta.json tell the sums of the files as they are, as somebody would who means harm."""
    names = [path.name for path in folder.iterdir() if path.name != "meta.json" and path.is_file()]
    change_meta(folder, sha256={name: sha256(folder / name) for name in names})


def test_every_file_is_needed_and_checked(folder, tmp_path):
    for name in sorted(FILES[folder.name]):
        hurt = Path(shutil.copytree(folder, tmp_path / "hurt"))
        (hurt / name).unlink()
        refusal(hurt)
        (hurt / name).symlink_to(folder / name)
        assert f"{name}: is a link" in refusal(hurt)
        (hurt / name).unlink()
        (hurt / name).write_bytes((folder / name).read_bytes()[:-2])
        assert str(hurt) in refusal(hurt)
        if name != "meta.json":
            data = bytearray((folder / name).read_bytes())
            data[-2] ^= 1
            (hurt / name).write_bytes(data)
            message = refusal(hurt)
            assert name in message or name == "clips.csv"
        shutil.rmtree(hurt)


def test_a_file_of_another_index(folder, tmp_path):
    """Of the same counts and types: its sum alone tells."""
    other = tmp_path / "other"
    other.mkdir()
    write_index(other, [made_up(NAMES, seed=5)], folder.name)
    shutil.copy(other / "vectors.npy", folder / "vectors.npy")
    assert "vectors.npy: is not what meta.json tells of, by its SHA-256 sum; build" in refusal(folder)


def save(folder: Path, name: str, array: np.ndarray) -> None:
    np.save(folder / f"{name}.npy", array)
    put_in_order(folder)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"format": 2}, "does not tell of a search index in format 1"),
        ({"clips": 59}, "clips.csv: damaged (60 lines for 59 clips)"),
        ({"clips": 10**18}, "clips.csv: damaged (60 lines for"),
        ({"clips": -1}, "clips: "),
        ({"dim": 5}, "vectors.npy: holds (60, 4) of <f4, not (60, 5)"),
        ({"dim": 2**62}, "vectors.npy: holds (60, 4)"),
        ({"kind": "flat"}, "kind: "),
        ({"effort": 0}, "effort: "),
        ({"stores": []}, "stores: "),
        ({"sha256": {}}, "by its SHA-256 sum"),
        ({"origin": {"run": "/"}}, "origin.recipe_sum: this key is missing"),
        ({"pickle": 1}, "unknown key 'pickle'"),
    ],
)
def test_facts_that_cannot_be(changes, fault, folder):
    change_meta(folder, **changes)
    assert fault in refusal(folder)


def test_vectors_that_cannot_be(folder):
    vectors = np.load(folder / "vectors.npy")
    for wrong in (np.nan, np.inf, 1e30, 2.0):
        other = vectors.copy()
        other[17] *= np.float32(wrong)
        save(folder, "vectors", other)
        assert "vectors.npy: row 17 is no vector of length 1" in refusal(folder)
    save(folder, "vectors", vectors.astype(np.float64))
    assert "vectors.npy: holds (60, 4) of <f8, not (60, 4) of <f4" in refusal(folder)
    save(folder, "vectors", np.asfortranarray(vectors))
    assert "vectors.npy: damaged" in refusal(folder)
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (60, 250000000000000), }\n"
    (folder / "vectors.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    change_meta(folder, dim=250000000000000)
    put_in_order(folder)
    assert "vectors.npy: damaged" in refusal(folder)
    objects = np.array([print] * 240, dtype=object).reshape(60, 4)
    np.save(folder / "vectors.npy", objects, allow_pickle=True)
    put_in_order(folder)
    assert "vectors.npy: damaged" in refusal(folder)


@pytest.mark.parametrize(
    ("kind", "name", "array"),
    [
        ("ivf", "order", np.zeros(60, np.int64)),
        ("ivf", "begins", np.array([0, 2**62, 60])),
        ("ivf", "centroids", np.full((8, 4), np.nan, np.float32)),
        ("hnsw", "start", np.array([0, 2**62, 32])),
        ("hnsw", "offsets", np.full(61, 7)),
        ("hnsw", "links", np.zeros(3, np.int32)),
    ],
)
def test_arrays_that_cannot_be(kind, name, array, tmp_path):
    write_index(tmp_path, [made_up(NAMES)], kind)
    save(tmp_path, name, array)
    assert "build the index again" in refusal(tmp_path)


def test_an_index_of_another_kind_of_arrays(folder):
    for kind in WAYS:
        if kind != folder.name:
            change_meta(folder, kind=kind)
            if kind == "exact":  # which needs no more than all have
                assert len(open_index(folder)) == 60
            else:
                assert "No such file or directory" in refusal(folder)


def test_rows_that_are_out_of_order(folder):
    lines = (folder / "clips.csv").read_text().splitlines()
    (folder / "clips.csv").write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]) + "\n")
    put_in_order(folder)
    assert "clips.csv: its rows do not count from 0 on" in refusal(folder)


def test_no_index_at_all(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        assert "not a search index; make one with: python -m ssl_skeleton.search build" in refusal(path)


@settings(max_examples=examples(40), deadline=None)
@given(data=st.data())
def test_damage_of_any_kind_is_one_line(data, tmp_path_factory):
    kind = data.draw(st.sampled_from(list(WAYS)))
    folder = tmp_path_factory.mktemp("damaged")
    write_index(folder, [made_up(NAMES[:9])], kind)
    name = data.draw(st.sampled_from(sorted(FILES[kind])))
    (folder / name).write_bytes(data.draw(damages((folder / name).read_bytes())))
    if name != "meta.json":
        put_in_order(folder)
    try:
        index = open_index(folder)
    except UserError as error:
        one_line(error)
    else:  # it can be searched, whatever comes of it
        for found in index.search(made_up(NAMES[:9]).features[:3], 4):
            assert len({hit.row for hit in found}) == 4
