"""`python -m ssl_skeleton.convert`: from weights that others have published to a released encoder."""

import sys
from collections.abc import Sequence
from pathlib import Path

from ssl_skeleton.cli import Parser, run_command, some_path
from ssl_skeleton.encoders.published import PUBLISHED
from ssl_skeleton.encoders.released import Released, check_place, save_released
from ssl_skeleton.errors import UserError, nearest

EXAMPLES = """\
  python -m ssl_skeleton.convert shift_gcn ntu60_xsub_joint.pt --out shift_gcn.safetensors
  python -m ssl_skeleton.convert shift_gcn ntu60_xsub_joint.pt --out shift_gcn.pt"""


def main(arguments: Sequence[str]) -> None:
    """Parse the arguments, convert the weights, say what they are and how to load them."""
    parser = Parser(
        "convert", "Turn published weights, of the joint stream, into a released encoder.", EXAMPLES
    )
    parser.add_argument("network", help=f"what was published: {', '.join(PUBLISHED)}")
    parser.add_argument("weights", type=some_path, help="the published file, of torch.save or .safetensors")
    parser.add_argument(
        "--out", type=some_path, required=True, metavar="FILE", help="the .safetensors or .pt file to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the encoder that is at --out")
    given = parser.parse_args(arguments)
    if given.network not in PUBLISHED:
        raise UserError(f"network '{given.network}' is unknown; {nearest(given.network, PUBLISHED)}")
    check_place(given.out, overwrite=given.overwrite)
    released = PUBLISHED[given.network](given.weights)
    save_released(given.out, released, overwrite=given.overwrite)
    print(summary(given.out, released))


def summary(out: Path, released: Released) -> str:
    """What was written, and how to load it."""
    classes = f", {released.head.out_features} classes" if released.head is not None else ""
    clips = f"(N, {len(released.coordinates)}, T, {len(released.layout.joints)}, {released.bodies})"
    return "\n".join(
        (
            f"{out}: {released.config.name}, {released.encoder.dim} features a step{classes}, "
            f"{released.bodies} bodies of {released.layout.name} with {', '.join(released.coordinates)}",
            "load it in Python:",
            "  from ssl_skeleton.encoders.released import load_released",
            f"  released = load_released({str(out)!r})",
            f"  # clips {clips} with lengths (N,), of data.normalise: {released.normalise} and "
            f"data.frames: {released.frames}",
            "  scores = released.scores(x_nctvm, lengths)",
        )
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
