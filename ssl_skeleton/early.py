"""`python -m ssl_skeleton.early`: how a run recognises clips of which only a beginning is seen."""

import sys
from collections.abc import Sequence

from ssl_skeleton.cli import run_command
from ssl_skeleton.runs.showing import early
from ssl_skeleton.scoring import curves_command

EXAMPLES = """\
  python -m ssl_skeleton.early --run runs/crrl_nw_ucla
  python -m ssl_skeleton.early --run runs/crrl_nw_ucla --probe knn 'evaluation.early.shares=[0.25, 0.5, 1.0]'
  python -m ssl_skeleton.early --run runs/crrl_nw_ucla evaluation.early.train=cut"""


def main(arguments: Sequence[str]) -> None:
    """Score a run, print the table, draw the curves."""
    description = (
        "Show a run the beginnings of test clips alone, longer and longer, and score what it recognises."
    )
    curves_command("early", description, EXAMPLES, arguments, early)


if __name__ == "__main__":
    sys.exit(run_command(main))
