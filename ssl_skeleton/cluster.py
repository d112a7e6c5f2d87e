"""`python -m ssl_skeleton.cluster`: k-means on a run's frozen features, compared with the classes."""

import sys
from collections.abc import Sequence

from ssl_skeleton.cli import run_command
from ssl_skeleton.scoring import Option, evaluate_command

EXAMPLES = """\
  python -m ssl_skeleton.cluster --run runs/crrl_nw_ucla
  python -m ssl_skeleton.cluster --run runs/crrl_nw_ucla --clusters 20
  python -m ssl_skeleton.cluster --run runs/crrl_nw_ucla --part all evaluation.cluster.restarts=50"""
OPTIONS = (
    Option(
        "--clusters",
        "evaluation.cluster.clusters={}",
        "K",
        "how many (as many as there are classes); short for evaluation.cluster.clusters=K",
    ),
    Option(
        "--part",
        "evaluation.cluster.part={}",
        "PART",
        "whose clips: test, train or all; short for evaluation.cluster.part=PART",
    ),
)


def main(arguments: Sequence[str]) -> None:
    """Cluster the features of a run and print the table."""
    description = "Cluster a run's frozen features by k-means, and compare the clusters with the classes."
    evaluate_command("cluster", description, EXAMPLES, arguments, OPTIONS)


if __name__ == "__main__":
    sys.exit(run_command(main))
