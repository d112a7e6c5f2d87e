"""`python -m ssl_skeleton.pretrain`: learn a representation from a store, without labels."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton import ranks
from ssl_skeleton.cli import Parser, TrainingBar, add_overrides, run_command
from ssl_skeleton.environment import pick_device
from ssl_skeleton.recipe import load_recipe
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.signals import leaving

EXAMPLES = """\
  python -m ssl_skeleton.pretrain --cfg configs/crrl_nw_ucla.yaml
  python -m ssl_skeleton.pretrain --cfg configs/crrl_nw_ucla.yaml --resume
  python -m ssl_skeleton.pretrain --cfg configs/crrl_nw_ucla.yaml name=seed1 seed=1 data.frames=64
  torchrun --nproc-per-node 4 -m ssl_skeleton.pretrain --cfg configs/crrl_ntu60.yaml"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, train every stage, say where the run is."""
    parser = Parser("pretrain", "Learn a representation from a store, without labels.", EXAMPLES, ranks=True)
    parser.add_argument("--cfg", type=Path, required=True, metavar="FILE", help="the recipe, a YAML file")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="the folder of runs (%(default)s)")
    parser.add_argument("--resume", action="store_true", help="go on with the run that is there")
    parser.add_argument(
        "--resume-anyway", action="store_true", help="the same, even where the recipe is another one now"
    )
    add_overrides(parser, "change the recipe, as in stages.NAME.training.epochs=100")
    given = parser.parse_intermixed_args(arguments)
    recipe = load_recipe(given.cfg, given.overrides)
    with leaving(), ranks.joined(pick_device(recipe.device)):
        run = Run.start(
            recipe,
            given.runs / recipe.name,
            resume=given.resume,
            resume_anyway=given.resume_anyway,
            tell=lambda line: print(line, flush=True),
        )
        clips, stores = sum(map(len, run.training_clips)), ", ".join(recipe.data.stores)
        ranked = f", {ranks.world_size()} ranks" if ranks.world_size() > 1 else ""
        print(f"{run.folder}: {clips} clips of {stores} on {run.device}{ranked}", flush=True)
        trained = run.pretrain(TrainingBar())
        said = f"trained {', '.join(trained)}" if trained else "is trained already; nothing was left to do"
        print(f"{run.folder}: {said}")


if __name__ == "__main__":
    sys.exit(run_command(main))
