"""`python -m ssl_skeleton.synthesise`: write synthetic recordings in the format of NTU RGB+D."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, progress, run_command
from ssl_skeleton.data.synthetic import ACTIONS, synthesise

EXAMPLES = """\
  python -m ssl_skeleton.synthesise --out data/synthetic_recordings
  python -m ssl_skeleton.prepare synthetic --source data/synthetic_recordings --out data/synthetic"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, write the files, say how many."""
    parser = Parser("synthesise", "Write synthetic recordings as NTU RGB+D .skeleton files.", EXAMPLES)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--subjects", type=int, default=12, metavar="N", help="people (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=2, metavar="N", help="an action (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all randomness (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder that is at --out")
    given = parser.parse_args(arguments)
    files = synthesise(
        given.out,
        subjects=given.subjects,
        repetitions=given.repetitions,
        seed=given.seed,
        overwrite=given.overwrite,
        progress=lambda names, total: progress(names, total, "synthesise"),
    )
    print(f"{given.out}: {files} recordings, {len(ACTIONS)} actions, {given.subjects} subjects, 3 cameras")


if __name__ == "__main__":
    sys.exit(run_command(main))
