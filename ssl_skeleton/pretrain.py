"""`python -m ssl_skeleton.pretrain`: learn a representation from a store, without labels."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, add_overrides, print_epoch, progress, run_command
from ssl_skeleton.recipe import StageConfig, load_recipe
from ssl_skeleton.run import Run

EXAMPLES = """\
  python -m ssl_skeleton.pretrain --cfg configs/crrl_nw_ucla.yaml
  python -m ssl_skeleton.pretrain --cfg configs/crrl_nw_ucla.yaml --resume
  python -m ssl_skeleton.pretrain --cfg configs/crrl_nw_ucla.yaml name=seed1 seed=1 data.frames=64"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, train every stage, say where the run is."""
    parser = Parser("pretrain", "Learn a representation from a store, without labels.", EXAMPLES)
    parser.add_argument("--cfg", type=Path, required=True, metavar="FILE", help="the recipe, a YAML file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder of runs (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with the run that is there")
    add_overrides(parser, "change the recipe, as in stages.0.training.epochs=100")
    given = parser.parse_intermixed_args(arguments)
    recipe = load_recipe(given.cfg, given.overrides)
    run = Run.start(recipe, given.runs / recipe.name, resume=given.resume)
    clips, stores = sum(map(len, run.training_clips)), ", ".join(recipe.data.stores)
    print(f"{run.folder}: {clips} clips of {stores} on {run.device}", flush=True)
    run.pretrain(EpochPrinter(), progress)
    print(f"{run.folder}: trained {', '.join(stage.name for stage in recipe.stages)}")


class EpochPrinter:
    """A line an epoch, until a stage ends."""

    def __call__(self, stage: StageConfig, epoch: int, values: dict[str, float]) -> None:
        """Print the epoch's mean values."""
        print_epoch(stage.name, epoch, stage.training.epochs, values)


if __name__ == "__main__":
    sys.exit(run_command(main))
