"""The one shape of all evaluation commands."""

from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton import ranks
from ssl_skeleton.cli import Parser, add_overrides
from ssl_skeleton.evaluation.results import result_table
from ssl_skeleton.probing import Evaluator, evaluate
from ssl_skeleton.run import Run


def evaluate_command(evaluator: Evaluator, description: str, examples: str, arguments: Sequence[str]) -> None:
    """Take a run, score it, print the table."""
    parser = Parser(evaluator, description, examples, ranks=True)
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="the run to score")
    add_overrides(parser, f"evaluation.{evaluator}.*, data.store, data.split, encoder.kernel or device")
    given = parser.parse_intermixed_args(arguments)
    run = Run.open(given.run, given.overrides)
    with ranks.joined(run.device):
        result = evaluate(run, evaluator)
        if ranks.is_main():
            print(result_table(result, run.store.meta.classes))
