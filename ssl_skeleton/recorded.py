"""The options with which a command takes recordings that are in no store yet."""

import argparse
from pathlib import Path

from ssl_skeleton.cli import positive, share, some_path
from ssl_skeleton.data.preparation.temporary import Recordings
from ssl_skeleton.errors import UserError

_OPTIONS = {"format": "own", "about": None, "fps": None, "max_damaged": 0.05}  # and what they usually are


def add_recordings(parser: argparse.ArgumentParser) -> None:
    """Let a command take `--source` and what goes with it."""
    own = parser.add_argument_group("recordings that are in no store, as `prepare` would read them")
    own.add_argument("--source", type=some_path, metavar="PATH", help="a folder, zip or file of recordings")
    own.add_argument("--format", metavar="NAME", help="the name `prepare` has for them (own)")
    own.add_argument("--about", type=some_path, metavar="FILE", help="what they are (docs/own_data.md)")
    own.add_argument("--fps", type=positive, metavar="RATE", help="resample to so many frames a second")
    own.add_argument(
        "--max-damaged",
        type=share,
        metavar="SHARE",
        help="stop when more than this share of the files is damaged (0.05)",
    )


def recordings_of(given: argparse.Namespace) -> Recordings | None:
    """The recordings that are named; None when there are none. UserError for options that go with them."""
    told = {name: getattr(given, name) for name in _OPTIONS}
    named = {name: value for name, value in told.items() if value is not None}
    source: Path | None = given.source
    if source is not None:
        return Recordings([source], **(_OPTIONS | named))
    if named:
        raise UserError(f"--{next(iter(named)).replace('_', '-')}: tells of recordings; add --source PATH")
    return None
