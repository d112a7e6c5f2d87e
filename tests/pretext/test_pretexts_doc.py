"""What docs/pretexts.md says that pretexts and their options are called, and what it tells people to type."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from tiny import listed

from ssl_skeleton.config import Config
from ssl_skeleton.pretext import AnyPretext
from ssl_skeleton.recipe import StageConfig, load_recipe

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "pretexts.md").read_text(encoding="utf-8")
PRETEXTS = {config.model_fields["name"].default: config for config in listed(AnyPretext)}


def section(name: str) -> str:
    (found,) = re.findall(rf"^## [^\n]*`{name}`$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return found


@pytest.mark.parametrize("name", PRETEXTS)
def test_every_pretext_and_every_option_of_it_is_named(name):
    assert f"| `{name}` |" in TEXT
    for option in PRETEXTS[name].model_fields.keys() - {"name"}:
        assert f"`{option}`" in section(name), option


@pytest.mark.parametrize("name", ["sequence_reconstructor", "contrastive_motion", "latent_reconstructor"])
def test_the_defaults_are_those_of_the_guide(name):
    fields, compared = PRETEXTS[name].model_fields, 0
    for options, values in re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", section(name), re.MULTILINE):
        for option, value in zip(re.findall(r"`(\w+)`", options), values.split(", "), strict=False):
            if value != "as above" and not isinstance(fields[option].default, Config):
                assert yaml.safe_load(value) == fields[option].default, option
                compared += 1
    assert compared >= 2


def test_the_four_corners_and_the_commands_are_recipes(monkeypatch):
    corners = re.findall(r"`(\{name: .*?\})` (?=\|)", TEXT)
    assert len(corners) == 4
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(ROOT)
    for line in commands.splitlines():
        _, _, command, _, config, *overrides = shlex.split(line)
        assert command == "ssl_skeleton.pretrain"
        load_recipe(Path(config), overrides)
    for corner in corners:
        recipe = load_recipe(Path("configs/cml_nw_ucla.yaml"), [f"stages.0.pretext={corner}"])
        assert isinstance(recipe.stages[0], StageConfig)
