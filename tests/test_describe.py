import json
import subprocess
import sys

import commands
import pytest
from builders import recordings, stored
from hypothesis import given, settings
from tiny import tiny_store

from ssl_skeleton import describe


@pytest.fixture
def store(tmp_path):
    return tiny_store(tmp_path / "store")


def run(*words) -> int:
    return commands.run(describe, *words)


def refused(capsys, *words) -> str:
    return commands.refused(capsys, describe, *words)


def test_a_store_is_described(store, tmp_path, capsys):
    assert run(store) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{store}: nw_ucla, 27 clips, ")
    assert "cross_view: 18 train, 9 test" in text
    assert run(store, "--json", "--figure", tmp_path / "clips.png", "--clips", "4") == 0
    tree = json.loads(capsys.readouterr().out)
    assert (tree["clips"], tree["dataset"]) == (27, "nw_ucla")
    assert run(store, "--figure", tmp_path / "all.png", "--clips", "all") == 0
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["all-001.png", "clips.png"]


@given(recordings())
@settings(max_examples=10, deadline=None)
def test_json_holds_any_store(clips):
    with stored(clips) as store:
        tree = describe.describe(store)
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree


def test_a_check_says_in_order_or_lists_the_faults(store, capsys):
    assert run(store, "--check") == 0
    assert capsys.readouterr().out == f"{store}: in order, 27 clips\n"
    (store / "notes.txt").write_text("mine")
    (store / "skipped.csv").write_text("why,what\nx,y\n")
    with pytest.raises(SystemExit) as ended:
        run(store, "--check")
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines() == [
        f"{store}/notes.txt: does not belong to a store",
        f"{store}/skipped.csv: changed since it was written: its SHA-256 sum is not that in meta.json",
    ]


def test_mistakes_are_one_line(store, tmp_path, capsys):
    for words in ((), ("--check",), ("--json",)):
        assert f"{tmp_path}: not a prepared store" in refused(capsys, tmp_path, *words)
    for number in ("0", "-1", "some", ""):
        assert "--clips" in refused(capsys, store, f"--clips={number}")
    capsys.readouterr()
    assert run(store, "--figure", tmp_path / "clips.jpg") == 2
    assert "choose a name that ends in .png" in capsys.readouterr().err


def test_it_loads_no_torch_and_ends_with_the_right_code(store):
    code = "import sys, ssl_skeleton.describe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
    (store / "tracks.npy").unlink()
    command = [sys.executable, "-m", "ssl_skeleton.describe", str(store), "--check"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout == f"{store}/tracks.npy: missing, or not a file\n"
