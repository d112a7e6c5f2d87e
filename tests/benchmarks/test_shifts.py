import json
import subprocess
import sys
from pathlib import Path

COMMAND = Path(__file__).parents[2] / "benchmarks" / "shifts.py"


def test_it_measures_both_shifts_and_the_network(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(COMMAND), "--quick", "--rounds", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert [row["shift"] for row in found["rows"]] == ["spatial", "spatial", "temporal", "temporal"] * 2
    assert all(row["share"] > 0 for row in found["rows"])
    assert found["network_seconds"].keys() == {"auto", "torch"}
