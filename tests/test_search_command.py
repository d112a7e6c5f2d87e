import json
import shutil
import signal
from pathlib import Path

import commands
import numpy as np
import pytest
from commands import snapshot
from tiny import tiny_recipe, tiny_store, write_recordings

from ssl_skeleton import embed, prepare, search
from ssl_skeleton.cli import run_command
from ssl_skeleton.data.store import sha256
from ssl_skeleton.evaluation.search import index as index_module
from ssl_skeleton.evaluation.search.index import open_index
from ssl_skeleton.runs.run import Run

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A folder with two stores of other joints, recordings, a finished run, and the index of one store."""
    house = tmp_path_factory.mktemp("house")
    store = tiny_store(house / "store")
    tiny_store(house / "other, one", layout="kinect_v2_25")
    write_recordings(house / "recordings")
    Run.start(tiny_recipe(store, epochs=1), house / "run").pretrain()
    assert run("build", "--run", house / "run", "--out", house / "index") == 0
    return house


def run(*words) -> int:
    return commands.run(search, *words)


def asked(capsys, *words) -> list[dict]:
    """The answers to a query, as a machine gets them."""
    capsys.readouterr()
    assert run("query", *words, "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    queries: list[dict] = json.loads(printed.out)["queries"]
    return queries


def refused(capsys, *words) -> str:
    return commands.refused(capsys, search, *words)


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_clips_of_a_store_are_their_own_nearest(kind, house, capsys):
    stores = [house / "store", house / "other, one"]
    words = ["--run", house / "run", "--store", *stores, "--index", kind, "--out", "index"]
    assert run("build", *words) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"index: 54 clips of 16 features, {kind}")
    assert said.endswith(" clips/s\n")
    assert ("of the 10 nearest" in said) == (kind != "exact")
    names = [f"clip{number:02}" for number in range(27)]
    for store in stores:
        answers = asked(capsys, "index", "--store", store, "--clip", *names, "-k", 4)
        assert [answer["clip"] for answer in answers] == names
        for answer in answers:
            first, likeness = answer["nearest"][0], [hit["likeness"] for hit in answer["nearest"]]
            assert (first["name"], first["store"], first["likeness"]) == (answer["clip"], store.name, 1)
            assert first["class"] in ("still", "slow", "fast")
            assert likeness == sorted(likeness, reverse=True)
            assert len({hit["row"] for hit in answer["nearest"]}) == 4


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_a_clip_does_not_find_itself(kind, house, capsys):
    stores = [house / "store", house / "other, one"]
    assert run("build", "--run", house / "run", "--store", *stores, "--index", kind, "--out", "index") == 0
    words = ["index", "--store", stores[0], "--clip", "clip05", "clip20", "-k"]
    plain = asked(capsys, *words, 54)
    for one, other in zip(plain, asked(capsys, *words, 9, "--exclude-self"), strict=True):
        own = (one["clip"], "store")
        others = [hit for hit in one["nearest"] if (hit["name"], hit["store"]) != own]
        assert len(others) == 53  # the other store's clip of that name is none of them
        assert other["nearest"] == others[:9]
    copy = Path(shutil.copytree(stores[0], "copy"))
    words[2] = copy
    assert [one["nearest"] for one in asked(capsys, *words, 1, "--exclude-self")] == [
        one["nearest"] for one in asked(capsys, *words[:2], stores[0], *words[3:], 1, "--exclude-self")
    ]
    assert "k = 54 must lie in 1..53" in refused(capsys, "query", *words, 54, "--exclude-self")


def test_a_recording_does_not_find_a_clip_of_its_name(house, tmp_path, capsys):
    prepared = ["nw_ucla", "--source", house / "recordings", "--out", tmp_path / "prepared"]
    assert commands.run(prepare, *prepared) == 0
    assert run("build", "--run", house / "run", "--store", tmp_path / "prepared", "--out", "index") == 0
    words = ["index", "--source", house / "recordings", "--format", "nw_ucla", "-k", 3]
    for one in asked(capsys, *words):
        assert one["clip"] in [hit["name"] for hit in one["nearest"]]
    for one in asked(capsys, *words, "--exclude-self"):
        assert one["clip"] not in [hit["name"] for hit in one["nearest"]]
        assert len(one["nearest"]) == 3


def test_the_answer_as_lines(house, capsys):
    capsys.readouterr()
    words = ["--store", house / "store", "--clip", "clip05", "clip20", "-k", 2]
    assert run("query", house / "index", *words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[0] == "clip05: nearest of 27 clips"
    assert lines[1].split() == ["1.0000", "still", "store", "clip05"]
    assert lines[3] == "clip20: nearest of 27 clips"
    assert lines[4].split() == ["1.0000", "fast", "store", "clip20"]
    assert run("query", house / "index", *words, "--exclude-self") == 0
    assert capsys.readouterr().out.splitlines()[0] == "clip05: nearest of 26 clips"


def test_a_recording_that_is_in_no_store(house, capsys):
    words = ["--source", house / "recordings", "--format", "nw_ucla"]
    assert run_command(embed.main, ["--run", str(house / "run"), *map(str, words), "--out", "embedded"]) == 0
    with np.load("embedded/embeddings.npz", allow_pickle=False) as arrays:
        features, names = arrays["features"], arrays["names"].tolist()
    expected = open_index(house / "index").search(features, 5)
    answers = asked(capsys, house / "index", *words)
    assert [answer["clip"] for answer in answers] == names
    found = [[(hit["row"], hit["likeness"]) for hit in answer["nearest"]] for answer in answers]
    assert found == [[(hit.row, hit.likeness) for hit in hits] for hits in expected]
    one = house / "recordings" / f"{names[3]}.json"
    (answer,) = asked(capsys, house / "index", "--source", one, "--format", "nw_ucla", "-k", 5)
    assert [hit["likeness"] for hit in answer["nearest"]] == pytest.approx(
        [hit.likeness for hit in expected[3]], abs=1e-5
    )


def test_damaged_recordings_are_told(house, tmp_path, capsys):
    source = Path(shutil.copytree(house / "recordings", tmp_path / "source"))
    (source / "a01_s01_e00_v01.json").write_text("{")
    words = ["query", house / "index", "--source", source, "--format", "nw_ucla", "-k", 1]
    capsys.readouterr()
    assert run(*words) == 0
    assert "\nskipped 1 damaged: a01_s01_e00_v01.json: not valid JSON" in capsys.readouterr().out
    words[3] = source / "a01_s01_e00_v01.json"
    line = refused(capsys, *words)
    assert line.startswith("error: a01_s01_e00_v01.json: not valid JSON (")
    assert line.endswith("; that is all there was to read\n")


@pytest.mark.parametrize("kind", ["exact", "ivf", "hnsw"])
def test_an_index_of_what_embed_wrote_is_the_same(kind, house, capsys):
    run_folder = str(house / "run")
    for name in ("store", "other, one"):
        words = ["--run", run_folder, "--store", str(house / name), "--out", name]
        assert run_command(embed.main, words) == 0
    assert run("build", "--embeddings", "store", "other, one", "--index", kind, "--out", "one") == 0
    stores = [house / "store", house / "other, one"]
    assert run("build", "--run", run_folder, "--store", *stores, "--index", kind, "--out", "two") == 0
    one, two = snapshot(Path("one")), snapshot(Path("two"))
    assert [path.name for path in one] == [path.name for path in two]
    assert one[Path("one/clips.csv")] == two[Path("two/clips.csv")]
    assert one[Path("one/vectors.npy")] == two[Path("two/vectors.npy")]
    index = open_index(Path("one"))
    assert set(index.stores) == {"store", "other, one"}
    assert [store.part for store in index.meta.stores] == ["all", "all"]


def test_recordings_of_ones_own_can_be_searched_for(house, capsys):
    words = ["--run", str(house / "run"), "--source", str(house / "recordings"), "--format", "nw_ucla"]
    assert run_command(embed.main, [*words, "--out", "mine"]) == 0
    assert run("build", "--embeddings", "mine", "--out", "index") == 0
    one = house / "recordings" / "a03_s01_e01_v02.json"
    (answer,) = asked(capsys, "index", "--source", one, "--format", "nw_ucla", "-k", 1)
    (hit,) = answer["nearest"]
    assert (hit["name"], hit["store"], hit["likeness"]) == (one.stem, "recordings", 1.0)


def test_a_run_that_moved(house, tmp_path, capsys):
    moved = Path(shutil.copytree(house / "run", tmp_path / "run"))
    assert run("build", "--run", moved, "--out", "index") == 0
    words = ["index", "--store", house / "store", "--clip", "clip05", "-k", 3]
    expected = asked(capsys, *words)
    moved.rename(tmp_path / "moved")
    line = refused(capsys, "query", *words)
    assert f"index: its run is not at {moved} any more; name its folder with --run FOLDER" in line
    assert asked(capsys, *words, "--run", tmp_path / "moved") == expected
    Path("index").rename("elsewhere")
    assert asked(capsys, "elsewhere", *words[1:], "--run", tmp_path / "moved") == expected


def test_a_run_that_learned_something_else(house, tmp_path, capsys):
    """Another one, or the same one after it was trained again, tells by its weights."""
    folder, words = tmp_path / "run", ["query", "index", "--store", house / "store", "--clip", "clip05"]
    shutil.copytree(house / "run", folder)
    assert run("build", "--run", folder, "--out", "index") == 0
    shutil.rmtree(folder)
    again = Run.start(tiny_recipe(house / "store", epochs=1, seed=3), folder)
    again.pretrain()
    line = refused(capsys, *words)
    assert f"{folder}: has other weights, or another representation, than that with which index was" in line
    assert "or build the index again" in line
    assert run(*words, "--run", house / "run") == 0
    shutil.rmtree(folder / "checkpoints")
    assert "no such checkpoint" in refused(capsys, *words)


def test_embeddings_of_different_weights_do_not_mix(house, tmp_path, capsys):
    other = Run.start(tiny_recipe(house / "store", epochs=1, seed=3), tmp_path / "other")
    other.pretrain()
    for name, folder, store in (("a", house / "run", "store"), ("b", other.folder, "other, one")):
        words = ["--run", folder, "--store", house / store, "--out", name]
        assert run_command(embed.main, [str(word) for word in words]) == 0
    line = refused(capsys, "build", "--embeddings", "a", "b", "--out", "index")
    assert "embed all by one run" in line
    assert "is named twice" in refused(capsys, "build", "--embeddings", "a", "a", "--out", "index")
    assert not Path("index").exists()


def test_embeddings_are_no_index_and_the_way_to_one_is_named(house, capsys):
    assert commands.run(embed, "--run", house / "run", "--out", "embedded") == 0
    line = refused(capsys, "query", "embedded", "--store", house / "store", "--clip", "clip05")
    assert line.startswith("error: embedded: is what `embed` wrote, not a search index; ")
    command, out = "search build --embeddings embedded --out ", "index"
    assert f"{command}DIR" in line
    assert run(*command.split()[1:], out) == 0
    assert len(open_index(Path(out))) == 27


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "arguments are required: action"),
        (["find"], "argument action: invalid choice"),
        (["build", "--out", "x"], "one of the arguments --run --embeddings is required"),
        (["build", "--run", "nowhere", "--out", "x"], "nowhere: not a run"),
        (["build", "--run", "{run}", "--out", "x", "--index", "flat"], "--index: invalid choice"),
        (["build", "--run", "{run}", "--store", "nowhere", "--out", "x"], "nowhere: no such folder"),
        (["build", "--run", "{run}", "--store", "{store}", "{store}", "--out", "x"], "is named twice"),
        (["build", "--embeddings", "nowhere", "--out", "x"], "nowhere: holds no embeddings"),
        (["build", "--embeddings", "a", "--store", "b", "--out", "x"], "--embeddings: goes without --store"),
        (["query", "nowhere", "--store", "a", "--clip", "b"], "nowhere: not a search index"),
        (["query"], "the following arguments are required: INDEX; see"),
        (["query", "{index}"], "name either --source PATH, or --store STORE and --clip NAME"),
        (["query", "{index}", "--store", "a"], "name either --source PATH, or --store"),
        (["query", "{index}", "--clip", "a"], "name either --source PATH, or --store"),
        (["query", "{index}", "--source", "a", "--store", "b", "--clip", "c"], "name either --source"),
        (["query", "{index}", "--source", "a", "--clip", "c"], "name either --source"),
        (["query", "{index}", "--store", "{store}", "--clip", "clip99"], "no clip 'clip99'; did you mean"),
        (
            ["query", "{index}", "--store", "{store}", "--clip", "clip2"],
            "no clip 'clip2'; 'clip20', 'clip21', 'clip22', 'clip23', 'clip24' and 2 more begin so",
        ),
        (["query", "{index}", "--store", "{store}", "--clip", "clip01", "-k", "28"], "must lie in 1..27"),
        (["query", "{index}", "--store", "{store}", "--clip", "clip01", "-k", "0"], "'0' is not a whole"),
        (["query", "{index}", "--store", "nowhere", "--clip", "a"], "nowhere: no such folder"),
        (["query", "{index}", "--source", "nowhere", "--format", "sbu"], "nowhere: no such folder"),
        (["query", "{index}", "--source", "a", "seed=3"], "can change after training"),
        (
            ["build", "--run", "{run}", "--store", "{store}", "seed=3", "--out", "x"],
            "can change after training",
        ),
        (["build", "--embeddings", "{index}", "--out", "x"], "does not tell of embeddings in format 1"),
    ],
)
def test_mistakes(words, message, house, place, capsys):
    given = {name: house / name for name in ("run", "store", "index")}
    assert message in refused(capsys, *[word.format(**given) for word in words])
    assert not list(place.iterdir())


def test_nothing_is_encoded_before_all_is_looked_at(house, tmp_path, capsys, monkeypatch):
    """What cannot come to anything ends before the work, not after it."""
    monkeypatch.setattr(search, "embed", None)
    monkeypatch.setattr(search, "embed_clips", None)
    small = tiny_store(tmp_path / "small", layout="common_15")
    words = ["build", "--run", house / "run", "--out", "x", "--store", house / "store"]
    assert "is named twice" in refused(capsys, *words, tmp_path / ".." / house / "store")
    assert f"{small}: " in refused(capsys, *words, small)
    words = ["query", house / "index", "--store", house / "store", "--clip", "clip01"]
    assert "k = 28 must lie in 1..27" in refused(capsys, *words, "-k", "28")


def test_overrides_may_follow_stores(house):
    assert run("build", "--run", house / "run", "--store", house / "store", "device=cpu", "--out", "x") == 0
    assert len(open_index(Path("x"))) == 27


def test_only_an_index_is_overwritten(house, capsys):
    words = ["build", "--run", house / "run", "--out"]
    assert run(*words, "index", "--index", "ivf") == 0
    before = snapshot(Path("index"))
    assert "index: already exists" in refused(capsys, *words, "index")
    assert snapshot(Path("index")) == before
    assert run(*words, "index", "--overwrite") == 0
    assert open_index(Path("index")).meta.kind == "exact"
    Path("index/notes.txt").write_text("mine")
    kept = [Path("index"), house / "store", house / "run", Path()]
    before = [snapshot(folder) for folder in kept]
    for folder in kept:
        assert "holds other things than this command writes" in refused(capsys, *words, folder, "--overwrite")
    assert [snapshot(folder) for folder in kept] == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_half_way_it_leaves_nothing(number, house, monkeypatch):
    words = ["build", "--run", house / "run", "--index", "hnsw", "--out", "index", "--overwrite"]
    stop = lambda *_: signal.raise_signal(number)  # noqa: E731
    for there in (False, True):
        if there:
            assert run(*words) == 0
        before = snapshot(Path.cwd())
        with monkeypatch.context() as patch:
            patch.setattr(index_module, "write_table", stop)  # vectors and graph are written by then
            if number == signal.SIGINT:
                assert run(*words) == 130
            else:
                with pytest.raises(SystemExit) as ended:
                    run(*words)
                assert ended.value.code == 143
        assert snapshot(Path.cwd()) == before


def test_a_query_changes_nothing(house, capsys):
    before = snapshot(house)
    words = ["--source", house / "recordings", "--format", "nw_ucla"]
    assert run("query", house / "index", *words) == 0
    assert snapshot(house) == before


def test_an_index_of_a_stranger(house, tmp_path, capsys):
    """Names that would steer a terminal are shown harmlessly, and damage is one line."""
    hostile = Path(shutil.copytree(house / "index", tmp_path / "index"))
    text = (hostile / "clips.csv").read_text().replace("clip05,still", '"\x1b[2Jclip\n05",still')
    (hostile / "clips.csv").write_text(text)
    words = ["query", hostile, "--store", house / "store", "--clip", "clip05", "-k", 1]
    assert "clips.csv: is not what meta.json tells of, by its SHA-256 sum" in refused(capsys, *words)
    meta = json.loads((hostile / "meta.json").read_text())
    meta["sha256"]["clips.csv"] = sha256(hostile / "clips.csv")
    (hostile / "meta.json").write_text(json.dumps(meta))
    assert run(*words) == 0
    printed = capsys.readouterr().out
    assert r"'\x1b[2Jclip\n05'" in printed
    assert printed.count("\n") == 2
    assert "\x1b" not in printed
    for path in sorted(hostile.iterdir()):
        kept = path.read_bytes()
        path.write_bytes(kept[: len(kept) // 2])
        assert str(hostile) in refused(capsys, *words)
        path.write_bytes(kept)


def test_each_action_has_help(capsys):
    for action in ("build", "query"):
        with pytest.raises(SystemExit) as ended:
            run(action, "--help")
        assert ended.value.code == 0
        assert f"python -m ssl_skeleton.search {action} " in capsys.readouterr().out
