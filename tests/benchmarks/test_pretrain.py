import json

import memory
import pretrain
import pytest
import torch
from crrl import FORMS, STAGES, Work
from curves import of_recurrences
from held import held, held_after_epochs
from phases import PHASES
from walks import LAYOUT, clips_of, nw_ucla_lengths, write_walks

from ssl_skeleton.data.store import open_store


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield ["--quick", "--threads", "1"]
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_walks(tmp_path_factory.mktemp("walks") / "store", nw_ucla_lengths(24)).path


def test_it_measures_every_form(one_thread, tmp_path, capsys):
    out = tmp_path / "out.json"
    words = ["--only", "cml", "--batch", "8", "--own", "--parts", "speed", "curves", "--out", str(out)]
    pretrain.main([*one_thread, *words])
    found = json.loads(out.read_text())
    assert [row["form"] for row in found["speed"]] == list(FORMS)
    assert found["speed"][0]["ratio"] == [1, 1, 1]
    for row in found["speed"]:
        assert row["clips_per_second"] > 0
        assert row["share"] > 0
        ours = row["form"].startswith("ours")
        assert set(row["phases"]) == (set(PHASES) if ours else set())
        assert (row["outside"] is not None) == ours
        assert all(row["phases"][phase] > 0 for phase in row["phases"])
    precisions, recurrences = found["curves"]
    assert len(precisions["losses"]["fp32"]) == len(precisions["losses"]["bf16"]) == 3
    assert 0 < precisions["off_mean"] < 0.05
    assert recurrences["off"] < 1e-5
    printed = capsys.readouterr().out
    assert all(form in printed for form in FORMS)


@pytest.mark.parametrize("name", STAGES)
def test_the_usual_form_learns_the_same(name, store):
    found = of_recurrences(Work(name, store, "cpu", small=True), 6, 4)
    assert len(set(found.losses["ours"])) == 4
    assert found.off < 1e-5


def test_memory_is_measured(store):
    work = Work("ser", store, "cpu", small=True)
    assert held(work, 4, "usual") >= 0
    found = held_after_epochs(work, 12, "fp32", 3)
    assert len(found) == 3
    assert all(megabytes > 1 for megabytes in found)


def test_a_peak_is_seen_and_forgotten():
    before = memory.forget_peak()
    torch.ones(10_000_000)
    assert memory.peak() - before > 35
    assert memory.forget_peak() - before < 35


def test_walks_are_clips_of_these_lengths(tmp_path):
    lengths = nw_ucla_lengths(1020)
    assert abs(lengths.mean() - 32) < 1
    store = write_walks(tmp_path / "store", lengths[:50])
    assert store.layout == LAYOUT
    assert [len(x_tvc) for x_tvc in clips_of(open_store(store.path))] == lengths[:50].tolist()
