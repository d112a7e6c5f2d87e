"""How a command can end otherwise than well, and the hints that help to mend a mistake."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's: shown as one line (what, where, how to mend), exit code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # what it quotes may hold line breaks


class DamagedClip(Exception):
    """A recording that cannot be read right: what is wrong and where, without the file's name."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))  # what it quotes may hold line breaks


class Stopped(Exception):
    """A signal asked to stop; the state is saved. `signal` is its number."""

    def __init__(self, signal_number: int, place: str) -> None:
        super().__init__(place)
        self.signal = signal_number


def nearest(word: object, choices: Iterable[str]) -> str:
    """The hint that closes an error about an unknown name: the nearest right one, or all of them."""
    names = sorted(choices)
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(word).lower(), lower, n=1, cutoff=0.5)
    if close:
        return f"did you mean '{lower[close[0]]}'?"
    return "choose one of " + ", ".join(names) if names else "there is none to choose"
