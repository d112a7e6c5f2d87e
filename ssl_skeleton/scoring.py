"""The one shape of all evaluation commands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_skeleton import ranks
from ssl_skeleton.cli import Parser, add_overrides, progress
from ssl_skeleton.evaluation.curves import curve_tables
from ssl_skeleton.evaluation.results import result_table
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run

if TYPE_CHECKING:
    from ssl_skeleton.runs.showing import Progress


@dataclass(frozen=True)
class Option:
    """An option that is short for an override, in which {} stands for its value."""

    flag: str
    override: str
    value: str
    help: str


def evaluate_command(
    evaluator: str, description: str, examples: str, arguments: Sequence[str], options: Sequence[Option] = ()
) -> None:
    """Take a run, score it, print the table; overrides go further than the options do."""
    run = _run_of(Parser(evaluator, description, examples, ranks=True), evaluator, options, arguments)
    with ranks.joined(run.device):
        result = evaluate(run, evaluator)
        if ranks.is_main():
            print(result_table(result, run.store.meta.classes))


def curves_command(
    evaluator: str,
    description: str,
    examples: str,
    arguments: Sequence[str],
    draw: "Callable[[Run, Progress], tuple[dict[str, Any], Path]]",
) -> None:
    """Take a run, score it by `draw`, print the tables of its curves and where their picture is."""
    probe = f"evaluation.{evaluator}.probe"
    named = f"what learns: linear or knn; short for {probe}=NAME"
    options = [Option("--probe", f"{probe}={{}}", "NAME", named)]
    run = _run_of(Parser(evaluator, description, examples), evaluator, options, arguments)
    result, picture = draw(run, progress)
    print(curve_tables(result, run.store.meta.classes))
    print(f"\ndrawn in {picture}")


def _run_of(parser: Parser, evaluator: str, options: Sequence[Option], arguments: Sequence[str]) -> Run:
    """The run that the arguments name, with their options and overrides."""
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="the run to score")
    for option in options:
        parser.add_argument(option.flag, dest=option.flag, metavar=option.value, help=option.help)
    add_overrides(parser, f"evaluation.{evaluator}.*, data.store, data.split, encoder.kernel or device")
    given = parser.parse_intermixed_args(arguments)
    values = {option.override: getattr(given, option.flag) for option in options}
    short = [override.format(value) for override, value in values.items() if value is not None]
    return Run.open(given.run, [*short, *given.overrides])
