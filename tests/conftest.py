"""Fixtures for all tests."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ranked import Ranks

# Tensors are tiny here: more threads would only wait for each other. Set before anything loads OpenMP, and
# for the commands that tests start.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--deep`."""
    parser.addoption(
        "--deep",
        action="store_true",
        help="try properties, as of damaged recordings, with twenty times as many examples (minutes); "
        "SSL_SKELETON_DEEP=1 in the environment does the same",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell the test modules, which count their examples as they are loaded (`builders.examples`)."""
    import torch

    if config.getoption("--deep"):
        os.environ["SSL_SKELETON_DEEP"] = "1"
    # Before anything loads Triton, as torch's compiler does: without a GPU, kernels run in the interpreter.
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    """A command hears SIGTERM in its own way, which the next test must not meet."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the test is; temporary files go elsewhere. In the end none are left, nor hidden ones here."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield work
    assert not list(temporary.iterdir())
    assert not [path for path in work.rglob("*") if path.name.startswith(".")]


@pytest.fixture(scope="session")
def recordings() -> Callable[[str], Path]:
    """Gives the folder of a data set's real recordings; skips the test where there is none."""

    def find(name: str) -> Path:
        beside = Path(__file__).parents[2] / "shared" / "data"
        folder = Path(os.environ.get("SSL_SKELETON_DATA") or beside) / name
        if not folder.is_dir():
            pytest.skip(f"no recordings at {folder}; SSL_SKELETON_DATA names the folder that holds {name}/")
        return folder

    return find


@pytest.fixture(scope="session")
def ranks_at_hand() -> "Iterator[Ranks]":
    """Processes that stand by to be ranks."""
    from ranked import Ranks

    ranks = Ranks()
    yield ranks
    ranks.stop()
