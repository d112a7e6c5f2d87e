"""`python -m ssl_skeleton.linear`: train a linear classifier on the frozen features of a run."""

import sys
from collections.abc import Sequence

from ssl_skeleton.cli import run_command
from ssl_skeleton.scoring import Option, evaluate_command

EXAMPLES = """\
  python -m ssl_skeleton.linear --run runs/crrl_nw_ucla
  python -m ssl_skeleton.linear --run runs/crrl_nw_ucla --protocol aimclr
  python -m ssl_skeleton.linear --run runs/crrl_nw_ucla --clips 3 evaluation.clip_share=0.8
  python -m ssl_skeleton.linear --run runs/crrl_nw_ucla --protocol cmd evaluation.linear.epochs=200"""
OPTIONS = (
    Option(
        "--protocol",
        "evaluation.linear={{name: {}}}",
        "NAME",
        "tuned (unless the recipe names another), crrl, aimclr, cmd or logistic; short for "
        "'evaluation.linear={name: NAME}'",
    ),
    Option(
        "--clips",
        "evaluation.clips={}",
        "K",
        "average the class probabilities of K windows of each test clip; short for evaluation.clips=K",
    ),
)


def main(arguments: Sequence[str]) -> None:
    """Score a run and print the table."""
    description = "Train a linear classifier on the frozen features of a run."
    evaluate_command("linear", description, EXAMPLES, arguments, OPTIONS)


if __name__ == "__main__":
    sys.exit(run_command(main))
