import json
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = Path(__file__).parents[2] / "benchmarks" / "encoders.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(COMMAND), "--quick", "--threads", "1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def test_it_measures_and_compares(tmp_path):
    done = run("--only", "gru", "st_gcn_quarter", "--rounds", "2", "--out", str(tmp_path / "out.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["environment"]["threads"] == 1
    gru, st_gcn = found["rows"]
    assert (gru["encoder"], st_gcn["encoder"]) == ("gru", "st_gcn_quarter")
    for row in found["rows"]:
        assert row["multiply_adds"] > 0
        for kind in ("float32", "bfloat16"):
            assert row["forward"][kind] > row["training"][kind] > 0
            assert row["forward_share"][kind] > 0
            assert row["training_share"][kind] > 0
    # Two layers, two directions, three gates of 256 from 150 inputs, then 512, each with 256 states.
    assert gru["multiply_adds"] == 8 * 2 * 3 * 256 * (150 + 256 + 512 + 256)
    (comparison,) = found["comparisons"]
    assert comparison["ratio"]["textbook float32"] == [1, 1, 1]
    assert len(comparison["ratio"]) == 4
    assert 0 < comparison["off"]["ours bfloat16"] < 0.05
    losses = comparison["losses"]
    # Before and after the first step; later ones amplify what the order of sums rounds off.
    assert losses["ours float32"][:2] == pytest.approx(losses["textbook float32"][:2], rel=1e-4)
    for name in ("gru", "st_gcn_quarter", "ours bfloat16"):
        assert name in done.stdout


def test_an_encoder_it_does_not_know():
    done = run("--only", "gcn")
    assert done.returncode == 2
    assert "st_gcn_quarter" in done.stderr
