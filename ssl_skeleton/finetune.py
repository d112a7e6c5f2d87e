"""`python -m ssl_skeleton.finetune`: train a run's encoder and a classifier on it with labels."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, TrainingBar, add_overrides, run_command, some_path
from ssl_skeleton.errors import UserError
from ssl_skeleton.recipe import load_recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.runs.supervised import check_supervised, finetune
from ssl_skeleton.scoring import check_read, override_help, print_result, settings_read

EXAMPLES = """\
  python -m ssl_skeleton.finetune --run runs/crrl_nw_ucla
  python -m ssl_skeleton.finetune --run runs/crrl_nw_ucla --from-scratch
  python -m ssl_skeleton.finetune --run runs/crrl_nw_ucla evaluation.finetune.labels=0.05
  python -m ssl_skeleton.finetune --run runs/crrl_nw_ucla 'evaluation.finetune.optimiser={name: sgd, lr: 0.1}'
  python -m ssl_skeleton.finetune --run runs/crrl_nw_ucla --no-untrained --keep finetuned.safetensors
  python -m ssl_skeleton.finetune --cfg configs/crrl_nw_ucla.yaml --from-scratch name=supervised"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, train, print the table."""
    description = "Train a run's encoder and a classifier on it with labels, from all of them or from a few."
    parser = Parser("finetune", description, EXAMPLES)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, metavar="FOLDER", help="the run whose encoder is trained on")
    source.add_argument("--cfg", type=Path, metavar="FILE", help="a recipe, whose run is made if need be")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where --cfg has it (%(default)s)")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--from-scratch", action="store_true", help="begin with the encoder's random start")
    kind.add_argument(
        "--no-untrained",
        action="store_true",
        help="go without the baseline that is trained from scratch: half of the time",
    )
    parser.add_argument(
        "--keep",
        type=some_path,
        metavar="FILE",
        help="keep what was trained (of repeats, the first) as a released encoder: .safetensors or .pt",
    )
    add_overrides(parser, f"{override_help('finetune')}; with --cfg anything of a recipe")
    given = parser.parse_intermixed_args(arguments)
    run = Run.open(given.run, given.overrides) if given.cfg is None else _of_recipe(given)
    _check(run, given)
    print(f"{run.folder}: {run.store.path}, split {run.splits[0].name}, on {run.device}", flush=True)
    lines: list[str] = []
    result = finetune(
        run,
        from_scratch=given.from_scratch,
        untrained=not given.no_untrained,
        keep=given.keep,
        report=TrainingBar(),
        tell=lines.append,
    )
    print_result(run, result, lines)


def _check(run: Run, given: argparse.Namespace) -> None:
    check_read(given.overrides, "finetune", settings_read(run, "finetune"))
    check_supervised(run, given.keep)


def _of_recipe(given: argparse.Namespace) -> Run:
    """The run of a recipe, which may be a new one; how it is evaluated does not become part of it."""
    if not given.from_scratch:
        raise UserError(
            "--cfg: a recipe has no trained encoder; add --from-scratch, or name a run with --run"
        )
    recipe = load_recipe(given.cfg, given.overrides)
    run = Run(given.runs / recipe.name, recipe.with_absolute_paths())
    _check(run, given)
    passing = ("evaluation.", "evaluation=")
    lasting = [override for override in given.overrides if not override.startswith(passing)]
    Run.start(load_recipe(given.cfg, lasting), run.folder, resume=True)
    return run


if __name__ == "__main__":
    sys.exit(run_command(main))
