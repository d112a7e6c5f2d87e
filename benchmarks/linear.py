"""How fast the linear probe is: beside the usual loop around a frozen encoder, and on many features.

    python benchmarks/linear.py --out linear.json
    python benchmarks/linear.py --store data/nw_ucla     # recordings instead of random walks

The usual loop encodes every training clip anew in each epoch. Both sides have the same frozen encoder in eval
mode, with random weights (a bidirectional GRU of 2 x 256, mean and max pooling: 1,024 features), the same
views without augmentation, gathered a batch at a time, and train with the same SGD on the same batches, by
the protocol that is named. Then both score the test clips: `differing` is how many they answer
differently. The random walks are as many and as long as the clips of NW-UCLA's cross-view split; since their
labels mean nothing, nor does the accuracy. Rounds alternate; a ratio is the median of those found within
single rounds, with its quartiles.

Then the default protocol, `tuned`, on made-up features: five rates are tried, and the best one trains again.
`floor` are the seconds in which the multiplications alone could be done at the rate of large square
products, measured in the same rounds.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import measuring_parser, write_results
from pretrain import quartiles
from steps import square_product, time_in_turns
from torch import Tensor, nn
from torch.nn import functional
from walks import TRAINING, nw_ucla_lengths, write_walks

from ssl_skeleton.cli import count
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.views.view import make_view
from ssl_skeleton.encoders.pooling import pooled_dim, represent
from ssl_skeleton.evaluation.features import (
    Features,
    calibrate_norms,
    encoding,
    labels_of_test,
    split_features,
)
from ssl_skeleton.evaluation.linear import LinearConfig, PublishedConfig, linear_probe
from ssl_skeleton.recipe import load_recipe
from ssl_skeleton.runs.probing import sources
from ssl_skeleton.runs.run import Run
from ssl_skeleton.training.seeds import generator

RECIPE = Path(__file__).with_name("crrl.yaml")
PROTOCOLS = ("crrl", "aimclr", "cmd")
TEST = 464  # clips of NW-UCLA's cross-view split that test


@dataclass(frozen=True)
class Sizes:
    """Training and test clips of the walks; rounds; epochs, where not all of the protocol's.

    `made_up` are clips, features and classes of each made-up set, `square` the rows of the square product.
    """

    train: int
    test: int
    rounds: int
    epochs: int | None
    made_up: Sequence[tuple[int, int, int]]
    square: int


FULL = Sizes(TRAINING, TEST, 3, None, ((1_020, 1_024, 10), (40_000, 512, 60)), 4096)
QUICK = Sizes(24, 12, 1, 3, ((40, 8, 3),), 128)


class Work:
    """Clips, a frozen encoder, and a protocol; `small` makes the encoder tiny."""

    def __init__(self, store: Path, split: str | None, protocol: str, sizes: Sizes, *, small: bool) -> None:
        changes = [f"data.store={store}", f"data.split={split or 'all'}", "device=cpu"]
        changes += [f"evaluation.linear={{name: {protocol}}}"] + ["encoder.hidden=8"] * small
        if sizes.epochs:
            changes.append(f"evaluation.linear.epochs={sizes.epochs}")
        self.run = Run(store / "no_run", load_recipe(RECIPE, changes))
        config = self.run.recipe.evaluation.linear
        if not isinstance(config, PublishedConfig):
            raise TypeError(f"{protocol} is no published protocol")
        self.config, self.split = config, self.run.splits[0]
        if split is None:
            every = np.arange(sizes.train + sizes.test)
            self.split = Split("walks", every[: sizes.train], every[sizes.train :])
        (self.source,) = sources(self.run, trained=False)
        calibrate_norms(self.run.packed, self.split, self.run.recipe.data, self.source)
        self.classes = len(self.run.store.meta.classes)
        self.answers: dict[str, list[int]] = {}

    def ours(self) -> None:
        """Features once, and the probe on them."""
        encode = encoding(self.run.packed, self.run.recipe.data, [self.source])
        features = split_features(self.run.packed, self.split, encode)
        scorer = linear_probe(features, self.classes, self.config, self.run.recipe.seed)
        self.answers["ours"] = scorer(labels_of_test(self.run.packed, self.split))["predicted"]

    def usual(self) -> None:
        """Every epoch encodes the training clips; torch.optim.SGD trains nn.Linear on them."""
        config, source = self.config, self.source
        layer = nn.Linear(pooled_dim(source.encoder.dim, source.pooling), self.classes)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        optimiser = torch.optim.SGD(
            layer.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        train, order = torch.from_numpy(self.split.train), generator(self.run.recipe.seed, "linear", "order")
        for epoch in range(config.epochs):
            optimiser.param_groups[0]["lr"] = config.lr * config.schedule.rate(epoch, config.epochs)
            for index in torch.split(torch.randperm(len(train), generator=order), config.batch):
                features_nd, label_n = self._encode(train[index])
                loss = functional.cross_entropy(layer(features_nd), label_n)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        test = torch.split(torch.from_numpy(self.split.test), config.batch)
        with torch.no_grad():
            found = torch.cat([layer(self._encode(index)[0]).argmax(dim=1) for index in test])
        self.answers["usual"] = found.tolist()

    @torch.no_grad()
    def _encode(self, index: Tensor) -> tuple[Tensor, Tensor]:
        clips = make_view(self.run.packed, index, self.run.recipe.data, self.source.view, None)
        return represent(self.source.encoder, clips, self.source.pooling), clips.label

    def accuracy(self, form: str) -> float:
        """The share of test clips that a form told right."""
        return float((np.array(self.answers[form]) == labels_of_test(self.run.packed, self.split)).mean())


def beside_usual(work: Work, rounds: int) -> dict[str, Any]:
    """Seconds of both forms, and whether they answer the same."""
    forms = {"usual": work.usual, "ours": work.ours}
    seconds: dict[str, list[float]] = {form: [] for form in forms}
    work.ours()  # so that nothing is done for the first time; of the other, that is one epoch of many
    for _ in range(rounds):
        for form, run in forms.items():
            began = time.perf_counter()
            run()
            seconds[form].append(time.perf_counter() - began)
    ratios = [usual / ours for usual, ours in zip(seconds["usual"], seconds["ours"], strict=True)]
    differing = np.not_equal(work.answers["usual"], work.answers["ours"]).sum()
    return {
        "protocol": work.config.to_tree(),
        "clips": {"train": len(work.split.train), "test": len(work.split.test)},
        "seconds": {form: statistics.median(found) for form, found in seconds.items()},
        "ratio": quartiles(ratios),
        "accuracy": {form: work.accuracy(form) for form in seconds},
        "differing": int(differing),
    }


def made_up(clips: int, dim: int, classes: int) -> Features:
    """Features of classes that overlap, a tenth of them to be told."""
    rng = np.random.default_rng(0)
    labels = np.arange(clips + clips // 10) % classes
    rows = rng.standard_normal((classes, dim), np.float32)[labels]
    rows = rows + 3 * rng.standard_normal(rows.shape, np.float32)
    return Features(rows[:clips], labels[:clips], rows[clips:])


def multiplications(features: Features, classes: int, config: LinearConfig) -> int:
    """Of the probe: in each epoch, each clip meets every weight of every rate forward and backward."""
    clips, dim = features.train.shape
    kept = clips - round(config.held_out * clips)
    return 2 * config.epochs * (dim + 1) * classes * (len(config.rates) * kept + clips)


def alone(clips: int, dim: int, classes: int, sizes: Sizes) -> dict[str, Any]:
    """Seconds of the default protocol on made-up features."""
    config = LinearConfig(epochs=sizes.epochs) if sizes.epochs else LinearConfig()
    features = made_up(clips, dim, classes)
    probe = partial(linear_probe, features, classes, config, 0)
    product = square_product(sizes.square, torch.float32)
    seconds = time_in_turns({"probe": probe, "square": product}, sizes.rounds)
    rate = sizes.square**3 / statistics.median(seconds["square"])
    return {
        "clips": clips,
        "dim": dim,
        "classes": classes,
        "seconds": quartiles(seconds["probe"]),
        "floor": multiplications(features, classes, config) / rate,
    }


def main(arguments: Sequence[str]) -> None:
    """Measure and print the tables."""
    parser = measuring_parser(__doc__, FULL.rounds)
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="clips of it instead of random walks")
    parser.add_argument("--clips", type=count, metavar="N", help=f"walks to train on, not {FULL.train}")
    parser.add_argument("--split", default="cross_view", help="of the store (%(default)s)")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default="crrl", help="beside the usual (%(default)s)"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    sizes = QUICK if given.quick else FULL
    if given.clips:
        sizes = replace(sizes, train=given.clips, test=-(-given.clips * sizes.test // sizes.train))
    sizes = replace(sizes, rounds=given.rounds or sizes.rounds)
    with tempfile.TemporaryDirectory() as folder:
        store, split = given.store, given.split
        if store is None:
            lengths = nw_ucla_lengths(sizes.train + sizes.test)
            store, split = write_walks(Path(folder) / "walks", lengths).path, None
        work = Work(store, split, given.protocol, sizes, small=given.quick)
        found = beside_usual(work, sizes.rounds)
    middle, low, high = found["ratio"]
    print(f"{'form':<8}{'seconds':>10}{'top1 %':>10}")
    for form, seconds in found["seconds"].items():
        print(f"{form:<8}{seconds:>10.2f}{100 * found['accuracy'][form]:>10.2f}")
    print(f"ratio {middle:.1f} ({low:.1f} to {high:.1f}), {found['differing']} answers differ\n", flush=True)
    print(f"{'clips':>8}{'features':>10}{'classes':>9}{'seconds':>10}{'floor':>9}")
    rows = []
    for clips, dim, classes in sizes.made_up:
        row = alone(clips, dim, classes, sizes)
        seconds, floor = row["seconds"][0], row["floor"]
        print(f"{clips:>8}{dim:>10}{classes:>9}{seconds:>10.2f}{floor:>9.2f}", flush=True)
        rows.append(row)
    write_results(given.out, {"usual": found, "made_up": rows})


if __name__ == "__main__":
    main(sys.argv[1:])
