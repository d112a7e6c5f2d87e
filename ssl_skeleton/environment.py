"""The machine at hand: which device to use, and what a run was made with."""

import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ssl_skeleton import __version__
from ssl_skeleton.errors import UserError

_LIBRARIES = ("torch", "numpy", "faiss-cpu", "scikit-learn", "pydantic")


def pick_device(name: str) -> torch.device:
    """The device of that name; `auto` is the first there is of cuda, mps and cpu.

    Of several processes that torchrun starts on a machine, each has a GPU of its own.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, present in there.items() if present)
    if not there[name]:
        raise UserError(f"device: '{name}' is not there on this machine; choose auto or cpu")
    local = os.environ.get("LOCAL_RANK")
    if name != "cuda" or local is None:
        return torch.device(name)
    if not local.isdecimal():
        raise UserError(f"LOCAL_RANK is '{local}', which is no number of a GPU; start ranks with torchrun")
    if int(local) >= torch.cuda.device_count():
        raise UserError(
            f"device: this machine has {torch.cuda.device_count()} GPUs, fewer than ranks; start fewer with "
            "--nproc-per-node, or choose cpu"
        )
    return torch.device("cuda", int(local))


def describe_environment(device: torch.device) -> dict[str, str | int | None]:
    """Versions, machine and source revision, for environment.json."""
    return {
        "ssl_skeleton": __version__,
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
        "platform": platform.platform(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "revision": _revision(),
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:  # installed by other means than pip
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _revision() -> str | None:
    """The git revision of the package's source, with `+` where it was changed; None outside a checkout."""
    folder = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603
        return found.stdout.strip()

    try:
        if not (folder.parent / ".git").exists():
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
