"""Commands as a test types them: in its own process, or in one of their own; and what they leave behind."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ssl_skeleton.cli import run_command


def run(command: ModuleType, *words: object) -> int:
    """A command in this process; gives its exit code."""
    return run_command(command.main, [str(word) for word in words])


def refused(
    capsys: pytest.CaptureFixture[str], command: ModuleType, *words: object, begun: bool = False
) -> str:
    """Run a command that must end in one line of error; gives the line.

    It prints nothing else, unless it has `begun`, and said so on stdout.
    """
    capsys.readouterr()
    assert run(command, *words) == 2
    printed = capsys.readouterr()
    assert begun or printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.endswith("\n")
    assert printed.err.count("\n") == 1
    return printed.err


def run_apart(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """A module as a command in a process of its own."""
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # noqa: S603


def snapshot(folder: Path) -> dict[Path, bytes | None]:
    """Every file below a folder, hidden ones too, with its bytes; folders have none."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
