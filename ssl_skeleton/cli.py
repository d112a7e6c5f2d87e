"""What all commands share: arguments, one-line errors, exit codes, progress.

It does not load torch, so that commands that need none start at once.
"""

import argparse
import io
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from ssl_skeleton.errors import Stopped, UserError, nearest

if TYPE_CHECKING:
    from ssl_skeleton.training.loop import Standing  # by name alone, for it loads torch

Item = TypeVar("Item")
_TRAINING = "{desc} {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt}{postfix}"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like every other error.

    `ranks` says that torchrun may start several processes of the command, which then work together.
    """

    def __init__(self, verb: str, description: str, examples: str, *, ranks: bool = False) -> None:
        super().__init__(
            prog=f"python -m ssl_skeleton.{verb}",
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        if not ranks and _ranks() > 1:
            raise UserError(f"{self.prog}: it runs in one process, not {_ranks()}; start it without torchrun")

    def parse_args(self, args: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """What the arguments say; UserError where they are wrong."""
        self._check_options(args)
        return super().parse_args(args)

    def parse_intermixed_args(self, args: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """The same where options may stand between overrides."""
        self._check_options(args)
        return super().parse_intermixed_args(args)

    def _check_options(self, words: Sequence[str]) -> None:
        """Refuse unknown options, with the nearest one, and values of which the last alone would be taken."""
        known, given = self._option_string_actions, set[argparse.Action | None]()
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0]
            if name.startswith("--") and name not in known and " " not in word:
                hint = nearest(name, [option for option in known if option.startswith("--")])
                self.error(f"unrecognized arguments: {name}; {hint}")
            action = known.get(name)
            if action in given:
                many = f"name all after one {name}" if action and action.nargs == "+" else "give it once"
                self.error(f"argument {name}: stands twice; {many}")
            if type(action) is self._registries["action"]["store"]:
                given.add(action)

    def error(self, message: str) -> "None":  # type: ignore[override]
        """Refuse the arguments in one line."""
        message = message.replace(", key.path=value", "")  # argparse takes it for one that is required
        raise UserError(f"{message}; see {self.prog} --help")


def run_command(main: Callable[[Sequence[str]], None], arguments: Sequence[str] | None = None) -> int:
    """Run a command: 0 when it ends well, 2 for a mistake of the user's, 128 + n after signal n.

    Of several ranks that torchrun started, only the main one writes to stdout, and what all of them meet is
    told once.
    """
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
            stream.reconfigure(errors="backslashreplace")
    with ExitStack() as place:
        return _exit_code(main, sys.argv[1:] if arguments is None else arguments, place)


def _exit_code(main: Callable[[Sequence[str]], None], arguments: Sequence[str], place: ExitStack) -> int:
    try:
        place.enter_context(_as_rank())
        with _heeding_signals():
            main(arguments)
        sys.stdout.flush()
    except UserError as error:
        _say(f"error: {error}")
        return 2
    except Stopped as stop:
        _say(f"stopped at {stop}; go on with --resume")
        return 128 + stop.signal
    except KeyboardInterrupt as stop:
        _say("; ".join(["interrupted", *map(str, stop.args)]))
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads on: not an error
    except (MemoryError, RuntimeError) as error:
        line = _known(error)
        if line is None:
            raise
        _say(f"error: {line}")
        return 2
    except OSError as error:  # a full disk, a read-only folder
        _say(f"error: {error.filename or 'a file'}: {error.strerror or error}")
        return 2
    return 0


@contextmanager
def _heeding_signals() -> Iterator[None]:
    """Let a signal end the command even where its exception makes other code, as argparse's, fail as well."""
    try:
        yield
    except Exception as error:
        came: BaseException | None = error
        while came is not None and not isinstance(came, Stopped | KeyboardInterrupt | SystemExit):
            came = came.__context__
        if came is None:
            raise
        raise came from None


def _left_early(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End on Ctrl-C as commands do, even while what they need is still being loaded."""
    came: BaseException | None = error
    while came is not None and not isinstance(came, KeyboardInterrupt):
        came = came.__context__
    if came is None:
        sys.__excepthook__(kind, error, trace)
        return
    print("interrupted", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGINT)


sys.excepthook = _left_early  # commands alone load this module


def _ranks() -> int:
    """How many processes of this command torchrun started."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdecimal() else 1


def _of_ranks() -> ModuleType:
    from ssl_skeleton import ranks  # noqa: PLC0415 (loads torch)

    return ranks


@contextmanager
def _as_rank() -> Iterator[None]:
    """Be one of several ranks, where there are several; others than the main one are silent."""
    if _ranks() == 1:
        yield
        return
    with _of_ranks().started():
        if _of_ranks().is_main():
            yield
            return
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield


def _known(error: MemoryError | RuntimeError) -> str | None:
    """What to say of an error that is no fault of the program's; None when it is one."""
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        reason = str(error).splitlines()[0] if str(error) else "no more to be had"
        mend = "; try a smaller batch or encoder" if "torch" in sys.modules else ""
        return f"out of memory ({reason}){mend}"
    lost = _ranks() > 1 and _of_ranks().is_lost(error)
    return str(_of_ranks().RankLost()) if lost else None


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


def apart_from_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of the words that an option of several has taken, its own, and the overrides that came after them."""
    overrides = [word for word in words if re.match(r"[a-z_0-9.]+=", word)]
    return [word for word in words if word not in overrides], overrides


def progress(items: Iterable[Item], total: int, what: str, done: int = 0) -> Iterable[Item]:
    """A progress bar on a terminal, nothing in a pipe; `done` of the `total` are there already."""
    bar: Iterable[Item] = _bar(items, desc=what, total=total, initial=done)
    return bar


class TrainingBar:
    """Shows how training stands: on a terminal a bar an epoch, everywhere a line when an epoch is done."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None

    def __call__(self, standing: "Standing") -> None:
        """Show what a step came to; call it after every step."""
        if self._bar is None:
            title = f"{standing.stage} {standing.epoch}/{standing.epochs}"
            self._bar = _bar(
                desc=title,
                total=standing.steps,
                initial=standing.step - 1,
                bar_format=_TRAINING,
                dynamic_ncols=True,
            )
        left = tqdm.format_interval(standing.seconds_left)
        rate = f"{standing.clips_per_second:.0f} clips/s, {left} left"
        self._bar.set_postfix_str(", ".join([rate, *_shown(standing.values)]), refresh=False)
        self._bar.update()
        if standing.step == standing.steps:
            self._bar.close()
            self._bar = None
            number = f"{standing.epoch:>{len(str(standing.epochs))}}/{standing.epochs}"
            print(f"{standing.stage} {number}", *_shown(standing.values), sep="  ", flush=True)


def _shown(values: Mapping[str, float]) -> list[str]:
    return [f"{name} {value:.4g}" for name, value in values.items() if name != "seconds"]


def _bar(items: Iterable[Any] | None = None, **settings: Any) -> tqdm:
    """A bar that is seen on a terminal alone, and vanishes when it is done."""
    seen = sys.stderr.isatty() and (_ranks() == 1 or _of_ranks().is_main())
    return tqdm(items, disable=not seen, leave=False, **settings)


def _say(line: str) -> None:
    """Print a line on stderr, not into a bar that was cut short, and once where all ranks say it."""
    if _ranks() > 1:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of torchrun, as soon as another rank has ended
        line = _of_ranks().agreed(line)
    if line:
        tqdm.write(line, file=sys.stderr)


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
