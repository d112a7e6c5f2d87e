"""The one shape of all evaluation commands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_skeleton import ranks
from ssl_skeleton.cli import Parser, add_overrides, progress
from ssl_skeleton.config import Config, Short, as_typed
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.curves import curve_tables, named_rows
from ssl_skeleton.evaluation.results import chosen_line, result_table, settings_of
from ssl_skeleton.recipe import EvaluationConfig
from ssl_skeleton.runs.probing import evaluate
from ssl_skeleton.runs.run import Run, Tell

if TYPE_CHECKING:
    from ssl_skeleton.runs.showing import Progress

Table = Callable[[Mapping[str, Any], tuple[str, ...]], str]


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
        lines: list[str] = []
        result = evaluate(run, evaluator, lines.append, progress)
        if ranks.is_main():
            print_result(run, result, lines)


def curves_command(
    evaluator: str,
    description: str,
    examples: str,
    arguments: Sequence[str],
    draw: "Callable[[Run, Progress, Tell], dict[str, Any]]",
) -> None:
    """Take a run, score it by `draw`, print the tables of its curves and where their picture is."""
    probe = f"evaluation.{evaluator}.probe"
    named = f"what learns: linear or knn; short for {probe}=NAME"
    options = [Option("--probe", f"{probe}={{}}", "NAME", named)]
    run = _run_of(Parser(evaluator, description, examples), evaluator, options, arguments)
    lines: list[str] = []
    print_result(run, draw(run, progress, lines.append), lines, curve_tables)


def print_result(
    run: Run, result: Mapping[str, Any], lines: Sequence[str], table: Table = result_table
) -> None:
    """Print the table of a result, below its title which clips it is of, what was chosen, and `lines`."""
    title, *rows = table(result, run.store.meta.classes).split("\n")
    print("\n".join([title, clips_line(result), *rows, "", *notes(result), *lines]))


def clips_line(result: Mapping[str, Any]) -> str:
    """Which clips learned, or were looked among, and which were asked about."""
    clips, evaluator = dict(result["clips"]), result["evaluator"]
    labelled = clips.pop("labelled", None)
    if evaluator.startswith("knn_leave_one_out"):
        return f"leave-one-out: every one of {clips['train']} training clips among the other ones"
    names = {"train": "training", "gallery": "in the gallery"}
    counts = {part: f"{count} {names.get(part, part)}" for part, count in clips.items()}
    if evaluator.split("_")[0] in ("knn", "retrieve") and "train" in counts:
        counts["train"] += " (the gallery)"
    if labelled not in (None, clips.get("train")):
        counts["train"] += f" ({labelled} of them with labels)"
    return f"clips: {', '.join(counts.values())}"


def notes(result: Mapping[str, Any]) -> list[str]:
    """Which rate or strength every linear probe has chosen, and which k a small gallery leaves out."""
    protocol = result.get("probe_protocol", result["protocol"])
    lines = []
    for name, values in (("rate", "rates"), ("strength", "strengths")):
        chosen = {row: scores[name] for row, scores in named_rows(result).items() if name in scores}
        if chosen and len(protocol.get(values, ())) > 1:
            lines.append(chosen_line(result, name, chosen))
    if (found := result.get("k", result.get("recall"))) is not None:
        left_out = [str(k) for k in protocol["k"] if str(k) not in found]
        if left_out:
            lines.append(f"k={', '.join(left_out)} left out: the gallery has fewer clips")
    return lines


def check_read(overrides: Sequence[str], command: str, settings: Sequence[str]) -> None:
    """Raise UserError for an override of what evaluations have that a command does not read."""
    for override in overrides:
        section, _, rest = override.partition("=")[0].partition(".")
        if section == "evaluation" and rest and rest.partition(".")[0] not in settings:
            read = ", ".join(f"evaluation.{setting}" for setting in settings)
            raise UserError(f"{as_typed(override)}: {command} reads {read or 'nothing of that'} alone")


def override_help(evaluator: str) -> str:
    """What overrides an evaluator takes, for its help."""
    sections = [
        f"evaluation.{name}" + ".*" * isinstance(getattr(EvaluationConfig(), name), Config)
        for name in settings_of(evaluator)
    ]
    return ", ".join(
        [*sections, "representation.*, data.store, data.split, data.residence, encoder.kernel or device"]
    )


def settings_read(run: Run, evaluator: str) -> Sequence[str]:
    """The settings below `evaluation` that an evaluator reads: of two probes, those of the one it asks."""
    probe = getattr(getattr(run.recipe.evaluation, evaluator), "probe", None)
    return [name for name in settings_of(evaluator) if probe is None or name in (evaluator, probe)]


def _run_of(parser: Parser, evaluator: str, options: Sequence[Option], arguments: Sequence[str]) -> Run:
    """The run that the arguments name, with their options and overrides."""
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="the run to score")
    for option in options:
        parser.add_argument(option.flag, dest=option.flag, metavar=option.value, help=option.help)
    add_overrides(parser, override_help(evaluator))
    given = parser.parse_intermixed_args(arguments)
    values = {option: getattr(given, option.flag) for option in options}
    short = [
        Short(option.override.format(value), f"{option.flag} {value}")
        for option, value in values.items()
        if value is not None
    ]
    overrides = [*short, *given.overrides]
    run = Run.open(given.run, overrides)
    check_read(overrides, evaluator, settings_read(run, evaluator))
    return run
