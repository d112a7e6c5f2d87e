"""What the tests of readers of text share."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.readers import FORMATS
from ssl_skeleton.data.readers.base import Outcome, Reader
from ssl_skeleton.data.recording import Recording, check_recording
from ssl_skeleton.data.source import Source
from ssl_skeleton.errors import DamagedClip


def opened(name: str, *roots: Path) -> Reader:
    """The reader of a format, opened on the roots."""
    return FORMATS[name].open(Source(*roots), None)


def outcomes(reader: Reader) -> list[Outcome]:
    """All that the reader reads; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return [outcome for entry in reader.entries for outcome in reader.read(entry)]


def clips(reader: Reader) -> list[Recording]:
    """All recordings, of which none may be damaged."""
    found = outcomes(reader)
    for clip in found:
        if isinstance(clip, DamagedClip):
            raise clip
        check_recording(clip, reader.facts)
    return found


def plain_numbers(path: Path) -> NDArray[np.float32]:
    """The numbers of a good file, line by line."""
    lines = path.read_text().split("\n")
    return np.array(
        [[float(v) for v in line.replace(",", " ").split()] for line in lines if line], np.float32
    )
