import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from ssl_skeleton import __version__

ROOT = Path(__file__).parents[1]


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_folder_is_named():
    files = (path for path in (ROOT / "ssl_skeleton").rglob("*.*") if path.suffix in (".py", ".yaml"))
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in files}
    named = settings()["options"]["packages"].split()
    assert sorted(named) == sorted(there | {"ssl_skeleton.configs"})


def test_every_data_file_is_packed():
    """Whatever lies in a package and is no Python must match a pattern of its package_data."""
    patterns = settings()["options.package_data"]
    for package in settings()["options"]["packages"].split():
        folder = ROOT / ("configs" if package.endswith(".configs") else package.replace(".", "/"))
        files = {
            path.name for path in folder.iterdir() if path.is_file() and path.suffix not in (".py", ".pyc")
        }
        packed = {
            path.name
            for pattern in patterns.get(package, "").split(",")
            if pattern
            for path in folder.glob(pattern.strip())
        }
        assert files == packed, package


def test_every_folder_with_modules_is_a_package():
    for path in (ROOT / "ssl_skeleton").rglob("*.py"):
        assert (path.parent / "__init__.py").exists(), path


def test_the_version_is_one_that_can_be_published():
    assert [part.isdecimal() for part in __version__.split(".")] == [True] * 3


@pytest.mark.parametrize("command", ["prepare", "synthesise"])
def test_commands_that_need_no_torch_do_not_load_it(command):
    code = f"import sys, ssl_skeleton.{command}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603
