"""How a command can end otherwise than well, and the hints that help to mend a mistake."""

import difflib
from collections.abc import Iterable

_LONGEST = 2000  # characters of a message
_MOST_CHOICES = 40  # named by a hint


class UserError(Exception):
    """A mistake of the user's: shown as one line (what, where, how to mend), exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class DamagedClip(Exception):
    """A recording that cannot be read right: what is wrong and where, without the file's name."""

    def __init__(self, message: str) -> None:
        super().__init__(_one_line(message))


class Stopped(BaseException):
    """A signal asked to stop; the state is saved. `signal` is its number.

    Like KeyboardInterrupt it can be raised anywhere, and is not to be taken for an error of what runs there.
    """

    def __init__(self, signal_number: int, place: str) -> None:
        super().__init__(place)
        self.signal = signal_number


def nearest(word: object, choices: Iterable[str]) -> str:
    """The hint that closes an error about an unknown name: the nearest right one, or all of few."""
    names = sorted(choices)
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{lower[close[0]]}'?"
    if not names:
        return "there is none to choose"
    more = f", ... ({len(names)} in all)" if len(names) > _MOST_CHOICES else ""
    return f"choose one of {', '.join(names[:_MOST_CHOICES])}{more}"


def _one_line(message: str) -> str:
    """The message as one line that a terminal shows as it is: what it quotes, strangers may have written."""
    line = " ".join(message.splitlines())
    shown = "".join(letter if letter >= " " and not "\x7f" <= letter <= "\x9f" else "?" for letter in line)
    half = _LONGEST // 2
    return shown if len(shown) <= _LONGEST else f"{shown[:half]} ... {shown[-half:]}"
