import json

import linear
import pytest
import torch
from walks import nw_ucla_lengths, write_walks

from ssl_skeleton.evaluation.linear import LinearConfig


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield ["--quick", "--threads", "1"]
    torch.set_num_threads(before)


@pytest.mark.parametrize("protocol", ["crrl", "cmd"])
def test_both_forms_answer_the_same(protocol, tmp_path):
    store = write_walks(tmp_path / "walks", nw_ucla_lengths(36), classes=3).path
    work = linear.Work(store, None, protocol, linear.QUICK, small=True)
    work.usual()
    work.ours()
    assert work.answers["usual"] == work.answers["ours"]
    assert len(work.answers["ours"]) == 12


def test_it_measures(one_thread, tmp_path, capsys):
    out = tmp_path / "out.json"
    linear.main([*one_thread, "--clips", "20", "--out", str(out)])
    found = json.loads(out.read_text())
    usual = found["usual"]
    assert usual["seconds"].keys() == usual["accuracy"].keys() == {"usual", "ours"}
    assert usual["ratio"][0] == usual["seconds"]["usual"] / usual["seconds"]["ours"]
    assert usual["clips"] == {"train": 20, "test": 10}
    assert usual["protocol"]["epochs"] == 3
    (row,) = found["made_up"]
    assert row["seconds"][0] > row["floor"] > 0
    assert "answers differ" in capsys.readouterr().out


def test_multiplications_are_those_of_the_products():
    features, config = linear.made_up(100, 7, 4), LinearConfig(epochs=3, rates=(0.1, 0.01), held_out=0.25)
    forward = 8 * 4 * (2 * 75 + 100)
    assert linear.multiplications(features, 4, config) == 3 * 2 * forward
