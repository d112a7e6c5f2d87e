"""`ssl-skeleton VERB ...` is `python -m ssl_skeleton.VERB ...`."""

import sys
from collections.abc import Sequence

from ssl_skeleton import (
    cluster,
    compare,
    convert,
    describe,
    early,
    embed,
    finetune,
    fuse,
    knn,
    linear,
    prepare,
    pretrain,
    retrieve,
    robustness,
    search,
    synthesise,
    transfer,
)
from ssl_skeleton.cli import run_command
from ssl_skeleton.errors import UserError, nearest

VERBS = {
    "synthesise": synthesise,
    "prepare": prepare,
    "describe": describe,
    "pretrain": pretrain,
    "linear": linear,
    "knn": knn,
    "retrieve": retrieve,
    "convert": convert,
    "finetune": finetune,
    "early": early,
    "robustness": robustness,
    "cluster": cluster,
    "transfer": transfer,
    "fuse": fuse,
    "embed": embed,
    "search": search,
    "compare": compare,
}


def dispatch(arguments: Sequence[str]) -> None:
    """Hand the arguments to the command that the first one names."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: ssl-skeleton {{{','.join(VERBS)}}} ...")
        print("\nssl-skeleton VERB --help shows what a command takes.")
        return
    if arguments[0] not in VERBS:
        raise UserError(f"'{arguments[0]}' is no command; {nearest(arguments[0], VERBS)}")
    VERBS[arguments[0]].main(arguments[1:])


def main() -> int:
    """The entry point of the `ssl-skeleton` script."""
    return run_command(dispatch)


if __name__ == "__main__":
    sys.exit(main())
