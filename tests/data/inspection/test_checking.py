import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from builders import LAYOUT, damages, examples, one_line, recordings, stored, write_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.inspection.checking import check_store
from ssl_skeleton.data.recording import Recording, Track
from ssl_skeleton.data.store import DATA_FILES, FILES, meta_sum, open_store, sha256
from ssl_skeleton.errors import UserError


def clip(name: str, frames: int, **facts: int) -> Recording:
    x_tvc = np.random.default_rng(frames).normal(size=(frames, len(LAYOUT.joints), 3)).astype(np.float32)
    return Recording(name, frames, [Track(0, x_tvc), Track(1, x_tvc[1:])], **facts)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a good store of three clips with two tracks each, 5 + 7 + 9 rows."""
    out = tmp_path_factory.mktemp("good") / "store"
    write_store(out, [clip("a", 3, label=0, camera=1), clip("b", 4, label=2), clip("c", 5)])
    return {name: (out / name).read_bytes() for name in sorted(FILES)}


@pytest.fixture
def store(good: dict[str, bytes], tmp_path: Path) -> Path:
    for name, data in good.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def sign(store: Path, **change) -> None:
    """Take the sums again, so that only other faults are left, and change meta.json."""
    meta = json.loads((store / "meta.json").read_text())
    meta["sha256"] = {name: sha256(store / name) for name in DATA_FILES}
    meta |= change
    if isinstance(meta["sha256"], dict):
        meta["sha256"]["meta.json"] = meta_sum(meta)
    (store / "meta.json").write_text(json.dumps(meta))


def faults_of(store: Path) -> list[str]:
    """The faults without the folder; each must be one line that names its file."""
    faults = check_store(store)
    for fault in faults:
        assert len(fault.splitlines()) == 1
        assert fault.startswith(f"{store}")
    return [fault.removeprefix(f"{store}").removeprefix("/") for fault in faults]


@given(recordings())
@settings(max_examples=examples(40), deadline=None)
def test_a_good_store_has_no_faults(clips):
    with stored(clips) as store:
        assert check_store(store.path) == []


@given(st.data())
@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_flipped_byte_is_found(good, store, data):
    name = data.draw(st.sampled_from(DATA_FILES))
    hurt = bytearray(good[name])
    hurt[data.draw(st.integers(0, len(hurt) - 1))] ^= data.draw(st.integers(1, 255))
    for file, content in (good | {name: bytes(hurt)}).items():
        (store / file).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of an odd header
        assert f"{name}: changed since it was written: its SHA-256 sum is not that in meta.json" in faults_of(
            store
        )


def test_a_flipped_byte_of_meta_json_is_found_unless_it_says_the_same(good, store):
    for place in range(0, len(good["meta.json"]), 3):
        hurt = bytearray(good["meta.json"])
        hurt[place] ^= 1
        (store / "meta.json").write_bytes(hurt)
        if not check_store(store):
            assert json.loads(hurt) == json.loads(good["meta.json"])  # white space for white space


@given(st.data())
@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_damage_is_listed_or_the_store_opens(good, tmp_path, data):
    name = data.draw(st.sampled_from(sorted(FILES)))
    for file, content in good.items():
        (tmp_path / file).write_bytes(data.draw(damages(content)) if file == name else content)
    if data.draw(st.booleans()) and name != "meta.json":
        sign(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if faults_of(tmp_path):
            return
        found = open_store(tmp_path)
    assert np.isfinite(found.frames_rvc).all()
    assert len(set(found.names)) == len(found)


def test_all_faults_are_listed(store):
    lines = (store / "clips.csv").read_text().splitlines()
    lines[2] = lines[2].replace("b,2", "a,7")
    (store / "clips.csv").write_text("\n".join(lines) + "\n")
    frames_rvc, tracks = np.load(store / "frames.npy"), np.load(store / "tracks.npy")
    frames_rvc[[3, 4, 5, 9], 2, 1] = np.nan, np.inf, -np.inf, np.nan
    tracks[3, 2], tracks[5, 3] = 9, 3
    np.save(store / "frames.npy", frames_rvc)
    np.save(store / "tracks.npy", tracks)
    (store / "notes.txt").write_text("mine")
    (store / "skipped.csv").write_text("why,what\nlost\n")
    sign(store, clips=4)
    assert faults_of(store) == [
        "notes.txt: does not belong to a store",
        "meta.json: clips: 4, but clips.csv holds 3",
        "clips.csv: line 3, clip 'a': the name stands in line 2 already",
        "clips.csv: line 3, clip 'a': label 7 is not below the number of classes, 3",
        "frames.npy: rows 3 to 5 are not finite",
        "frames.npy: row 9 is not finite",
        "tracks.npy: the tracks end at row 20, but frames.npy has 21 rows",
        "tracks.npy: track 3 (1, 9, 9, 3): it lies outside its clip",
        "skipped.csv: line 2: 1 cells, not 2",
    ]


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_missing_file_and_a_folder_in_its_place(store, name):
    (store / name).unlink()
    missing = [fault for fault in faults_of(store) if fault.startswith(name)]
    assert missing == [f"{name}: missing, or not a file"]
    (store / name).mkdir()
    assert [fault for fault in faults_of(store) if fault.startswith(name)] == missing


@pytest.mark.parametrize("name", DATA_FILES)
def test_a_sum_that_is_missing_or_of_no_file(store, name):
    sums = json.loads((store / "meta.json").read_text())["sha256"]
    sums[f"{name}x"] = sums.pop(name)
    del sums["meta.json"]
    sign(store, sha256=sums)
    assert sorted(faults_of(store)) == sorted(
        [
            f"meta.json: sha256: the sum of {name} is missing",
            f"meta.json: sha256: '{name}x' is no file of a store",
        ]
    )


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"format": 1}, "format 1 is not"),
        ({"fps": 0}, "fps: "),
        ({"rows": 20}, "calls for (20, 20, 3) of <f4 in frames.npy, which holds (21, 20, 3) of <f4"),
        ({"tracks": 7}, "calls for (7, 4) of <i8 in tracks.npy"),
        ({"bodies": 3}, "bodies: 3, but the most in clips.csv are 2"),
        ({"coordinates": ["x", "z", "y"]}, "coordinates: should be x y z or x y confidence, not x z y"),
        ({"classes": ["a", "b", "a"]}, "classes: a name stands twice"),
        ({"classes": ["a"]}, "label 2 is not below the number of classes, 1"),
        ({"framse": 2}, "unknown key 'framse'"),
    ],
)
def test_facts_that_are_wrong(store, change, fault):
    sign(store, **change)
    found = faults_of(store)
    assert any(fault in one for one in found)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("a,0,", "a,x,", "line 2: label: not a whole number"),
        ("a,0,", "a,1_0,", "line 2: label: not a whole number"),
        ("a,0,", "a,9999999999999999999,", "line 2: label: not a whole number"),
        ("a,0,", "a,0,0,", "line 2: 9 cells, not 8"),
        ("a,0,", "a,-2,", "line 2, clip 'a': label -2 is below -1"),
        (",1,-1,-1,3,2", ",-7,-1,-1,3,2", "line 2, clip 'a': camera -7 is below -1"),
        (",3,2\n", ",0,2\n", "line 2, clip 'a': frames 0 is below 1"),
        ("name,label", "nome,label", "line 1 does not read name,label"),
        ("\na,", '\n"a,', "cannot be read as a table"),
        ("b,", "b\udcff,", "cannot be read as a table"),
    ],
)
def test_a_line_that_is_wrong(store, good, old, new, fault):
    text = good["clips.csv"].decode()
    assert old in text
    (store / "clips.csv").write_bytes(text.replace(old, new, 1).encode(errors="surrogateescape"))
    sign(store)
    assert any(one.startswith("clips.csv: ") and fault in one for one in faults_of(store))


LARGEST = np.iinfo(np.int64).max


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        ((1, 0), -1, "its clip is not in clips.csv"),
        ((1, 0), 3, "its clip is not in clips.csv"),
        ((1, 0), LARGEST, "its clip is not in clips.csv"),
        ((1, 0), 2, "its clip comes before that of the track before"),
        ((1, 0), 1, "1 tracks of the clip that has 2 bodies in clips.csv (line 2, clip 'a')"),
        ((1, 1), 4, "it does not begin where the track before ends in frames.npy"),
        ((1, 1), -1, "it lies outside frames.npy"),
        ((1, 1), LARGEST, "it lies outside frames.npy"),
        ((1, 2), -1, "it lies outside its clip"),
        ((1, 2), 2, "it lies outside its clip"),
        ((1, 2), LARGEST, "it lies outside its clip"),
        ((1, 3), 0, "it has no frames"),
        ((1, 3), LARGEST, "it lies outside its clip"),
        ((5, 3), 3, "the tracks end at row 20, but frames.npy has 21 rows"),
    ],
)
def test_a_track_that_is_wrong(store, place, value, fault):
    tracks = np.load(store / "tracks.npy")
    tracks[place] = value
    np.save(store / "tracks.npy", tracks)
    sign(store)
    assert any(one.startswith("tracks.npy: ") and fault in one for one in faults_of(store))


@pytest.mark.parametrize("name", ["frames.npy", "tracks.npy"])
def test_arrays_of_another_kind(store, name):
    shape = (21, 20, 3) if name == "frames.npy" else (6, 4)
    for wrong in (
        np.zeros(shape, "<f8"),
        np.zeros((*shape, 1), "<f4"),
        np.zeros((), "<i8"),
        np.zeros(0, "<i8"),
    ):
        np.save(store / name, wrong)
        sign(store)
        assert any(re.search(f"calls for .* in {name}", fault) for fault in faults_of(store))
    np.save(store / name, np.zeros(shape, object))
    sign(store)
    assert any(fault.startswith(f"{name}: damaged") for fault in faults_of(store))


@pytest.mark.parametrize("kind", ["nothing", "file", "empty folder"])
def test_what_is_no_store_at_all(tmp_path, kind):
    path = tmp_path / "store"
    if kind == "file":
        path.write_text("x")
    elif kind == "empty folder":
        path.mkdir()
    with pytest.raises(UserError) as caught:
        check_store(path)
    assert one_line(caught.value).startswith(f"{path}: not a prepared store")
