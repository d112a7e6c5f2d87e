"""`python -m ssl_skeleton.robustness`: how a run recognises clips that are damaged more and more."""

import sys
from collections.abc import Sequence

from ssl_skeleton.cli import run_command
from ssl_skeleton.runs.showing import robustness
from ssl_skeleton.scoring import curves_command

EXAMPLES = """\
  python -m ssl_skeleton.robustness --run runs/crrl_nw_ucla
  python -m ssl_skeleton.robustness --run runs/crrl_nw_ucla --probe knn evaluation.robustness.draws=10
  python -m ssl_skeleton.robustness --run runs/crrl_nw_ucla evaluation.robustness.joints=frame \\
      'evaluation.robustness.missing=[0, 0.25, 0.5]' 'evaluation.robustness.rotation=[]'"""


def main(arguments: Sequence[str]) -> None:
    """Score a run, print the tables, draw the curves."""
    description = "Show a run test clips that are damaged more and more, and score what it recognises."
    curves_command("robustness", description, EXAMPLES, arguments, robustness)


if __name__ == "__main__":
    sys.exit(run_command(main))
