"""`python -m ssl_skeleton.linear`: train a linear classifier on the frozen features of a run."""

import sys
from collections.abc import Sequence

from ssl_skeleton.cli import run_command
from ssl_skeleton.scoring import evaluate_command

EXAMPLES = """\
  python -m ssl_skeleton.linear --run runs/crrl_nw_ucla
  python -m ssl_skeleton.linear --run runs/crrl_nw_ucla evaluation.linear.epochs=200"""


def main(arguments: Sequence[str]) -> None:
    """Score a run and print the table."""
    description = "Train a linear classifier on the frozen features of a run."
    evaluate_command("linear", description, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
