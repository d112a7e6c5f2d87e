import importlib.util
from pathlib import Path

import pytest

from ssl_skeleton.errors import UserError

PATH = Path(__file__).parents[1] / "experiments" / "run_seeds.py"
MARKS = "<!-- table: begin -->", "<!-- table: end -->"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("run_seeds", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", ["", MARKS[0], MARKS[1] + MARKS[0], "".join(MARKS) * 2])
def test_a_place_for_the_table_is_looked_for_before_anything_runs(text, script, tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text(text)
    monkeypatch.setattr(script, "run_once", None)
    with pytest.raises(UserError, match=r"README\.md: has no place for the table"):
        script.main([str(tmp_path), "recipe.yaml"])


def test_the_table_comes_between_the_marks(script, tmp_path):
    (tmp_path / "README.md").write_text("before\n{}\nold\n{}\nafter\n".format(*MARKS))
    script.main([str(tmp_path)])
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"before\n{MARKS[0]}\n| recipe | seeds |")
    assert text.endswith(f" |\n{MARKS[1]}\nafter\n")
    script.main([str(tmp_path)])
    assert (tmp_path / "README.md").read_text() == text
