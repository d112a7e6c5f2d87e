import io
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace

import pytest

from ssl_skeleton.cli import Parser, TrainingBar, add_overrides, progress, run_command
from ssl_skeleton.errors import UserError


@dataclass(frozen=True)
class Standing:
    """As the loop's own, which loads torch."""

    stage: str = "contrast"
    epoch: int = 1
    epochs: int = 12
    step: int = 1
    steps: int = 3
    values: dict[str, float] | None = None
    clips_per_second: float = 1234.4
    seconds_left: float = 3723.0


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def epoch_of(report, epoch: int, first: int = 1, last: int = 3) -> None:
    for step in range(first, last + 1):
        done = {"lr": 0.01, "seconds": 9.0, "clips_per_second": 1200.0} if step == 3 else {}
        values = {"loss": 1 / step, "contrast_accuracy": 0.123456, **done}
        report(Standing(epoch=epoch, step=step, values=values))


LINES = """\
contrast  1/12  loss 0.3333  contrast_accuracy 0.1235  lr 0.01  clips_per_second 1200
contrast  2/12  loss 0.3333  contrast_accuracy 0.1235  lr 0.01  clips_per_second 1200
"""


def test_a_pipe_gets_a_line_an_epoch_and_nothing_else(capsys):
    report = TrainingBar()
    epoch_of(report, 1)
    epoch_of(report, 2)
    assert list(progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == (LINES, "")


def test_a_terminal_gets_a_bar_an_epoch_as_well(capsys, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    report = TrainingBar()
    epoch_of(report, 1)
    epoch_of(report, 2, first=2)  # which began in another process
    assert capsys.readouterr().out == LINES
    shown = screen.getvalue().split("\r")
    assert "contrast 1/12   0%|            | 0/3" in shown
    assert "contrast 2/12  33%|████        | 1/3" in shown
    assert shown[-1] == ""  # the bar is gone
    assert not shown[-2].strip()


def test_a_bar_shows_rate_time_left_and_losses(capsys, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("tqdm.std.tqdm.monitor_interval", 0)
    report = TrainingBar()
    standing = Standing(values={"loss": 3.21987, "seconds": 5.0})
    report(standing)
    report._bar.refresh()
    last = screen.getvalue().split("\r")[-1]
    assert last.strip() == "contrast 1/12  33%|████        | 1/3, 1234 clips/s, 1:02:03 left, loss 3.22"
    report(replace(standing, step=3))
    capsys.readouterr()


def test_bars_and_lines_share_a_terminal():
    """In a real one, 60 columns wide: no line of output is torn, and the error stands alone."""
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    script = """
        import sys
        from test_cli import TrainingBar, UserError, epoch_of, run_command

        def main(arguments):
            report = TrainingBar()
            epoch_of(report, 1)
            epoch_of(report, 2, last=2)
            raise UserError("bad: mend it")

        sys.exit(run_command(main, []))
    """
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, b"\x28\x00\x3c\x00\x00\x00\x00\x00")  # 40 rows
    words = [sys.executable, "-c", textwrap.dedent(script)]
    child = subprocess.Popen(words, stdout=there, stderr=there, env={**os.environ, "PYTHONPATH": _paths()})  # noqa: S603
    os.close(there)
    data = b""
    while True:
        try:
            piece = os.read(here, 4096)
        except OSError:  # Linux says so that nobody writes on
            break
        if not piece:
            break
        data += piece
    os.close(here)
    assert child.wait(timeout=60) == 2
    screen = screen_of(data.decode())
    assert screen == [LINES.splitlines()[0], "error: bad: mend it"]


def _paths() -> str:
    return os.pathsep.join(path for path in sys.path if path)


def screen_of(text: str) -> list[str]:
    """The lines that stay on a terminal: a carriage return begins its line again, without wiping it."""
    screen = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = ""
        for piece in line.split("\r"):
            shown = piece + shown[len(piece) :]
        screen.append(shown.rstrip())
    return [line for line in screen if line]


def parser() -> Parser:
    made = Parser("made_up", "It does nothing.", "none")
    made.add_argument("--run", required=True)
    made.add_argument("--store", nargs="+")
    made.add_argument("--to", nargs="+", action="extend")
    made.add_argument("-k", type=int, default=5)
    made.add_argument("--json", action="store_true")
    add_overrides(made, "any")
    return made


@pytest.mark.parametrize("parse", ["parse_args", "parse_intermixed_args"])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--runn", "a"], "unrecognized arguments: --runn; did you mean '--run'?; see python -m"),
        (["--run", "a", "--jsn"], "unrecognized arguments: --jsn; did you mean '--json'?"),
        (["--stores=a"], "unrecognized arguments: --stores; did you mean '--store'?"),
        (
            ["--xyzxyz"],
            "unrecognized arguments: --xyzxyz; choose one of --help, --json, --run, --store, --to",
        ),
        (["--run", "a", "--run", "a"], "argument --run: stands twice; give it once"),
        (["--run=a", "x=1", "--run", "b"], "argument --run: stands twice; give it once"),
        (["--run", "a", "-k", "5", "-k", "5"], "argument -k: stands twice; give it once"),
        (
            ["--run", "a", "--store", "b", "--store", "c"],
            "argument --store: stands twice; name all after one",
        ),
    ],
)
def test_options_that_are_unknown_or_stand_twice(words, message, parse):
    with pytest.raises(UserError) as caught:
        getattr(parser(), parse)(words)
    assert str(caught.value).startswith(message)


def test_what_may_stand_several_times():
    words = ["--to", "a", "--json", "--run", "b", "--to", "c", "--json", "--", "--runn"]
    found = parser().parse_args(words)
    assert (found.to, found.json, found.overrides) == (["a", "c"], True, ["--runn"])
    assert parser().parse_args(["--run", "a --b"]).run == "a --b"


def test_commands_that_need_no_torch_do_not_load_it():
    script = "import sys, ssl_skeleton.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0  # noqa: S603


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("a\nb"), 2, "error: a b"),
        (KeyboardInterrupt("half is kept"), 130, "interrupted; half is kept"),
        (OSError(28, "No space left on device", "file.txt"), 2, "error: file.txt: No space left on device"),
        (OSError(28, "No space left on device"), 2, "error: a file: No space left on device"),
    ],
)
def test_errors_are_one_line_and_have_their_codes(error, code, line, capsys):
    def main(arguments):
        raise error

    assert run_command(main, []) == code
    assert capsys.readouterr().err == line + "\n"
