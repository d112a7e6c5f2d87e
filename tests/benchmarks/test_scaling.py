import json

import pytest
import scaling
import torch


def test_it_measures_and_draws(tmp_path, capsys):
    out, figure, before = tmp_path / "out.json", tmp_path / "figure.png", torch.get_num_threads()
    scaling.main(["--quick", "--threads", "1", "--out", str(out), "--figure", str(figure)])
    torch.set_num_threads(before)
    found = json.loads(out.read_text())
    assert [(p["clips"], p["residence"]) for p in found["clips"]] == [
        (clips, residence) for clips in (20, 40) for residence in scaling.RESIDENCES
    ]
    assert [point["frames"] for point in found["frames"]] == [4, 8]
    for point in found["clips"] + found["frames"]:
        assert point["open_seconds"] > 0
        assert point["epoch_seconds"] > point["train_seconds_a_clip"] > point["view_seconds_a_clip"] > 0
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "exponent of opening by clips" in capsys.readouterr().out


def test_an_exponent_is_that_of_the_power():
    assert scaling.exponent([1, 10, 100], [3, 300, 30_000]) == pytest.approx(2)
    assert scaling.exponent([1, 10, 100], [7, 7, 7]) == pytest.approx(0)
