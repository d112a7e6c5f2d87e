import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from tiny import write_recordings

from ssl_skeleton.data.preparation import preparation
from ssl_skeleton.data.preparation.preparation import prepare_store
from ssl_skeleton.data.preparation.temporary import Recordings, prepared
from ssl_skeleton.data.readers import open_reader
from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError


@pytest.fixture
def source(tmp_path) -> Path:
    return write_recordings(tmp_path / "recordings")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """Where temporary files go."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def test_it_is_the_store_that_prepare_writes(source, place, tmp_path):
    prepare_store(open_reader("nw_ucla", [source]), tmp_path / "store", fps=10)
    expected = open_store(tmp_path / "store")
    with prepared(Recordings([source], "nw_ucla", fps=10)) as (store, result):
        assert store.path.is_relative_to(place)
        assert store.meta == expected.meta
        assert store.names == expected.names
        assert np.array_equal(store.frames_rvc, expected.frames_rvc)
        assert (result.clips, result.files) == (27, 27)
    assert not list(place.iterdir())


def test_damage_is_forgiven_or_not(source, place):
    (source / "a01_s01_e00_v01.json").write_text("{")
    with prepared(Recordings([source], "nw_ucla")) as (store, result):
        assert len(store) == 26
        assert [line.split(":")[0] for line in result.damaged] == ["a01_s01_e00_v01.json"]
    refused = Recordings([source], "nw_ucla", max_damaged=0)
    with pytest.raises(UserError, match="more than 0% of the 27 files"), prepared(refused):
        pass
    with pytest.raises(UserError, match="is unknown"), prepared(Recordings([source], "nw_ukla")):
        pass
    assert not list(place.iterdir())


def test_nothing_is_left_when_it_is_broken_off(source, place, monkeypatch):
    """And nothing is promised to go on from."""
    monkeypatch.setattr(preparation.StoreWriter, "finish", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt) as caught, prepared(Recordings([source], "nw_ucla")):
        pass
    assert caught.value.args == ()
    assert not list(place.iterdir())


def test_nothing_is_left_when_its_use_fails(source, place):
    with pytest.raises(ZeroDivisionError), prepared(Recordings([source], "nw_ucla")):
        1 / 0  # noqa: B018
    assert not list(place.iterdir())
