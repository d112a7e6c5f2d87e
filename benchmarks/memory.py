"""The memory that this process holds, in MB. For Linux."""

import ctypes
import gc
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> float:
    """What it holds of its own now, without the pages of files that are mapped."""
    return _field("RssAnon")


def peak() -> float:
    """The most it held at a time since `forget_peak`, mapped files included."""
    return _field("VmHWM")


def forget_peak() -> float:
    """Let the peak begin anew; returns what is held now, mapped files included."""
    trim()
    _CLEAR.write_text("5")
    return _field("VmRSS")


def trim() -> None:
    """Give back what is free, so that what comes next has to ask for it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def _field(name: str) -> float:
    lines = _STATUS.read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kilobytes) * 1024 / 1e6
