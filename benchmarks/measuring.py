"""What commands that measure share: their options, and the file of their results."""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ssl_skeleton.cli import count
from ssl_skeleton.environment import describe_environment
from ssl_skeleton.files import write_json


def measuring_parser(description: str | None, rounds: int | None = None) -> argparse.ArgumentParser:
    """The options of a measurement; `rounds` is how often it is repeated, where it is."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if rounds is not None:
        parser.add_argument("--rounds", type=count, metavar="N", help=f"instead of {rounds}")
    parser.add_argument("--threads", type=count, default=torch.get_num_threads(), help="%(default)s here")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, whose numbers mean nothing")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results as JSON")
    return parser


def write_results(out: Path | None, results: Mapping[str, Any], device: str = "cpu") -> None:
    """Write the results, and on what machine they were found, where a file is wanted."""
    if out is not None:
        environment = {**describe_environment(torch.device(device)), "cores": os.cpu_count()}
        write_json(out, {"environment": environment, **results})
