import cost
import pytest
import yaml
from tiny import recipe_tree, tiny_store

from ssl_skeleton.files import read_json


def test_hours_are_epochs_of_the_data_set_at_the_pace_of_training(tmp_path, capsys):
    store = tiny_store(tmp_path / "store")
    recipe, out = tmp_path / "some.yaml", tmp_path / "cost.json"
    recipe.write_text(yaml.safe_dump(recipe_tree(store, epochs=30)))
    cost.main([str(recipe), "--store", str(store), "--clips", "1000", "--threads", "1", "--out", str(out)])
    told = read_json(out)["recipes"]["some"]
    (stage,) = told["stages"]
    assert stage["hours"] == pytest.approx(30 * 1000 / stage["clips_per_second"] / 3600)
    assert 0.1 < told["gigabytes"] < 10
    assert "for 30 epochs" in capsys.readouterr().out
