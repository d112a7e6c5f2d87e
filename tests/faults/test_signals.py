"""A signal ends a command with its exit code, whatever was under way."""

import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from ssl_skeleton.cli import run_command
from ssl_skeleton.errors import Stopped, UserError
from ssl_skeleton.training.signals import leaving


def untidy(number: int) -> None:
    """Is interrupted by a signal, and fails in its own way as it cleans up."""
    try:
        signal.raise_signal(number)
    finally:
        raise AttributeError("half done")


def mistaken(number: int) -> None:
    """Takes whatever is raised for an error in what it reads."""
    try:
        signal.raise_signal(number)
    except Exception as error:
        raise UserError(f"damaged ({error})") from None


@pytest.mark.parametrize("work", [untidy, mistaken])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_before_training(work: Callable[[int], None], number, capsys):
    try:
        code = run_command(lambda _: work(number), [])
    except SystemExit as end:
        code = end.code
    assert code == 128 + number
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("work", [untidy, mistaken])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_while_a_run_is_opened(work: Callable[[int], None], number, capsys):
    def main(_: object) -> None:
        with leaving():
            work(number)

    assert run_command(main, []) == 128 + number
    line = capsys.readouterr().err
    assert line.startswith("stopped at ")
    assert line.count("\n") == 1


def test_an_error_without_a_signal_is_what_it_is(capsys):
    def fails(_: object) -> None:
        try:
            raise KeyError("a")
        except KeyError:
            raise AttributeError("b") from None

    with pytest.raises(AttributeError, match="b"):
        run_command(fails, [])


def test_a_stop_is_no_error():
    assert not issubclass(Stopped, Exception)


@pytest.mark.parametrize(
    "fault",
    ["raise KeyboardInterrupt", "try: raise KeyboardInterrupt\nfinally: raise ImportError('half loaded')"],
)
def test_while_a_command_is_being_loaded(fault: str):
    script = f"import ssl_skeleton.cli\n{fault}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "interrupted\n")


def test_other_faults_keep_their_traceback():
    script = "import ssl_skeleton.cli\nraise ValueError('mine')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ValueError: mine" in done.stderr
