"""What all commands share: arguments, one-line errors, exit codes, progress.

It does not load torch, so that commands that need none start at once.
"""

import argparse
import io
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TypeVar

from tqdm import tqdm

from ssl_skeleton.errors import Stopped, UserError

Item = TypeVar("Item")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like every other error."""

    def __init__(self, verb: str, description: str, examples: str) -> None:
        super().__init__(
            prog=f"python -m ssl_skeleton.{verb}",
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> "None":  # type: ignore[override]
        """Refuse the arguments in one line."""
        raise UserError(f"{message}; see {self.prog} --help")


def run_command(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> int:
    """Run a command: 0 when it ends well, 2 for a mistake of the user's, 128 + n after signal n."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    try:
        main(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        print(f"stopped at {stop}; the state is saved, go on with --resume", file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt as stop:
        print("; ".join(["interrupted", *map(str, stop.args)]), file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: not an error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "no more to be had"
        mend = "; try a smaller batch or encoder" if "torch" in sys.modules else ""
        print(f"error: out of memory ({reason}){mend}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a read-only folder
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch ran out of memory: a class of its own on a GPU, only a message on a CPU."""
    messages = ("allocate memory", "Storage size calculation overflowed")
    on_gpu = type(error).__name__ == "OutOfMemoryError"  # by name, for torch may not be loaded
    return on_gpu or any(message in str(error) for message in messages)


def _terminate(number: int, frame: FrameType | None) -> None:
    """Let SIGTERM end a command through its clean-up, like an exit of its own."""
    raise SystemExit(128 + number)


def add_overrides(parser: argparse.ArgumentParser, help_text: str) -> None:
    """Let a command take `key.path=value` arguments."""
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=help_text)


def progress(items: Iterable[Item], total: int, what: str, done: int = 0) -> Iterable[Item]:
    """A progress bar on a terminal, nothing in a pipe; `done` of the `total` are there already."""
    quiet = not sys.stderr.isatty()
    bar: Iterable[Item] = tqdm(items, desc=what, total=total, initial=done, disable=quiet, leave=False)
    return bar


def print_epoch(what: str, epoch: int, epochs: int, values: Mapping[str, float]) -> None:
    """A line of an epoch's mean values; on a terminal the next epoch's takes its place."""
    shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "seconds")
    line = f"{what} {epoch:>{len(str(epochs))}}/{epochs}  {shown}"
    overwritten = sys.stdout.isatty() and epoch < epochs
    print(f"\r\033[K{line}" if sys.stdout.isatty() else line, end="" if overwritten else "\n", flush=True)


def some_path(text: str) -> Path:
    """An argument that names a file or folder, as the empty text does not."""
    if not text:
        raise argparse.ArgumentTypeError("names no file or folder")
    return Path(text)


def share(text: str) -> float:
    """An argument from 0 to 1."""
    return _number(text, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def positive(text: str) -> float:
    """An argument above 0."""
    return _number(text, lambda value: 0 < value < math.inf, "a number above 0")


def count(text: str) -> int:
    """An argument that counts something: 1 or more."""
    return int(_number(text, lambda value: value >= 1 and value.is_integer(), "a whole number from 1 on"))


def _number(text: str, fits: Callable[[float], bool], what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not fits(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
