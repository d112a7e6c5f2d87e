"""A signal ends a command with its exit code, whatever was under way."""

import signal
from collections.abc import Callable, Iterator

import pytest

from ssl_skeleton.cli import run_command
from ssl_skeleton.errors import Stopped, UserError
from ssl_skeleton.training.signals import leaving


@pytest.fixture(autouse=True)
def _keep_handlers() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


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
