"""`python -m ssl_skeleton.knn`: classify by the nearest neighbours of a run's frozen features."""

import sys
from collections.abc import Sequence

from ssl_skeleton.cli import run_command
from ssl_skeleton.scoring import evaluate_command

EXAMPLES = """\
  python -m ssl_skeleton.knn --run runs/crrl_nw_ucla
  python -m ssl_skeleton.knn --run runs/crrl_nw_ucla 'evaluation.knn.k=[1, 3]'
  python -m ssl_skeleton.knn --run runs/crrl_nw_ucla evaluation.knn.rerank=true
  python -m ssl_skeleton.knn --run runs/crrl_nw_ucla data.split=all evaluation.knn.leave_one_out=true
  python -m ssl_skeleton.knn --run runs/crrl_ntu120 'evaluation.knn.index={name: hnsw, ef_search: 128}'"""


def main(arguments: Sequence[str]) -> None:
    """Score a run and print the table."""
    description = "Classify by the nearest neighbours of a run's frozen features."
    evaluate_command("knn", description, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
