"""How fast nearest neighbours classify clips, beside scikit-learn's, and what faster indexes miss.

    python benchmarks/knn.py                     # 16,000 queries, a gallery of 40,000, 512 features
    python benchmarks/knn.py --out knn.json --threads 1

The features are classes of noise about a mean each, as many as NTU RGB+D has, and as many clips as its
cross-subject split. 20 neighbours vote with exp(cosine / 0.07). `exact` is what `knn` does, `scikit-learn` is
KNeighborsClassifier(metric="cosine", algorithm="brute") with that weight, on the same float32 features; `ivf`
and `hnsw` are the indexes with their default options.

Rounds alternate between all forms. Clips a second count everything from features to answers, and `search`
goes without the building of what is searched, which `build` gives in seconds. Each is a median; the ratio
is the median of those of single rounds to scikit-learn, with its quartiles. `same` is the share of
scikit-learn's answers, `recall` that of the true neighbours. A large graph is built in minutes: `hnsw` has a
round of its own, whose ratio is to the others' median.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import faiss
import numpy as np
import torch
from measuring import measuring_parser, write_results
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from ssl_skeleton.evaluation.features import Features
from ssl_skeleton.evaluation.knn import KnnConfig, answers
from ssl_skeleton.evaluation.neighbours.gallery import Gallery, Neighbours, recall
from ssl_skeleton.evaluation.neighbours.indexes import EXACT, AnyIndex, HnswConfig, IvfConfig

CLASSES, SPREAD = 60, 1.5
CONFIG = KnnConfig(k=(20,), weights="distance")
JUDGE = "scikit-learn"


@dataclass(frozen=True)
class Sizes:
    """Clips that ask and that are in the gallery, their features, and rounds."""

    queries: int
    gallery: int
    dim: int
    rounds: int


FULL = Sizes(16_000, 40_000, 512, 3)
QUICK = Sizes(60, 300, 8, 1)


@dataclass(frozen=True)
class Turn:
    """What a form took in one round, in seconds, and what it answered; scikit-learn gives no neighbours."""

    build: float
    search: float
    answer: NDArray[np.int64]
    found: Neighbours | None = None

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.build + self.search


@dataclass(frozen=True)
class Row:
    """A line of the table; `ratio` is the median, the lower and the upper quartile."""

    form: str
    build_seconds: float
    search_clips_per_second: float
    clips_per_second: float
    ratio: tuple[float, float, float]
    same: float
    recall: float | None


def make_features(sizes: Sizes) -> Features:
    """Clips of noise about the means of their classes."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(CLASSES, sizes.dim))

    def draw(clips: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        labels = rng.integers(CLASSES, size=clips)
        noise = rng.normal(scale=SPREAD, size=(clips, sizes.dim))
        return (means[labels] + noise).astype(np.float32), labels

    gallery, labels = draw(sizes.gallery)
    return Features(gallery, labels, draw(sizes.queries)[0])


def ours(features: Features, index: AnyIndex) -> Turn:
    """The answers as `knn` finds them."""
    began = time.perf_counter()
    gallery = Gallery(features.train, index)
    gallery.nearest(features.test[:1], CONFIG.k[0])  # what is built when it is asked for
    built = time.perf_counter()
    found = gallery.nearest(features.test, CONFIG.k[0])
    answer = answers(found, features.train_labels, CLASSES, CONFIG)[CONFIG.k[0]]
    return Turn(built - began, time.perf_counter() - built, answer, found)


def judge(features: Features) -> Turn:
    """Those of scikit-learn."""
    began = time.perf_counter()
    model = KNeighborsClassifier(CONFIG.k[0], metric="cosine", algorithm="brute", weights=_weights)
    model.fit(features.train, features.train_labels)
    built = time.perf_counter()
    answer = model.predict(features.test)
    return Turn(built - began, time.perf_counter() - built, answer)


def _weights(distance: NDArray[np.float32]) -> NDArray[np.float32]:
    weight: NDArray[np.float32] = np.exp((1 - distance) / CONFIG.temperature)
    return weight


def measure(features: Features, rounds: int) -> list[Row]:
    """The lines of all forms; a first round does not count."""
    forms: dict[str, Callable[[], Turn]] = {
        JUDGE: lambda: judge(features),
        "exact": lambda: ours(features, EXACT),
        "ivf": lambda: ours(features, IvfConfig()),
    }
    turns: dict[str, list[Turn]] = {form: [] for form in forms}
    for number in range(rounds + 1):
        for form, run in forms.items():
            turn = run()
            if number:
                turns[form].append(turn)
    turns["hnsw"] = [ours(features, HnswConfig())]
    return [_row(form, taken, turns) for form, taken in turns.items()]


def _row(form: str, taken: Sequence[Turn], turns: dict[str, list[Turn]]) -> Row:
    clips = len(taken[0].answer)
    judged, exact = turns[JUDGE], turns["exact"][0].found
    usual = [one.seconds for one in judged]
    if len(taken) < len(usual):
        usual = [statistics.median(usual)]
    ratios = np.array(usual) / [one.seconds for one in taken]
    middle, low, high = np.quantile(ratios, [0.5, 0.25, 0.75]).tolist()
    found = taken[0].found
    return Row(
        form,
        statistics.median(one.build for one in taken),
        clips / statistics.median(one.search for one in taken),
        clips / statistics.median(one.seconds for one in taken),
        (middle, low, high),
        float((taken[0].answer == judged[0].answer).mean()),
        None if found is None or exact is None else recall(found, exact),
    )


def describe(row: Row) -> str:
    """A line for a person."""
    middle, low, high = row.ratio
    facts = f"{row.form:<14}{row.build_seconds:>9.2f}{row.search_clips_per_second:>11.0f}"
    facts += f"{row.clips_per_second:>10.0f}{f'{middle:.2f} ({low:.2f} to {high:.2f})':>24}{row.same:>10.3%}"
    return facts + ("" if row.recall is None else f"{row.recall:>10.3%}")


def titles() -> str:
    """What stands above those lines."""
    names = f"{'':<14}{'build s':>9}{'search/s':>11}{'clips/s':>10}{'ratio (quartiles)':>24}"
    return f"{names}{'same':>10}{'recall':>10}"


def main(arguments: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = measuring_parser(__doc__, FULL.rounds)
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else FULL
    sizes = replace(sizes, rounds=given.rounds or sizes.rounds)
    torch.set_num_threads(given.threads)
    faiss.omp_set_num_threads(given.threads)
    print(f"{sizes.queries} queries, a gallery of {sizes.gallery} x {sizes.dim}, {given.threads} threads")
    with threadpool_limits(given.threads):
        rows = measure(make_features(sizes), sizes.rounds)
    print("\n".join([titles(), *map(describe, rows)]), flush=True)
    write_results(given.out, {"sizes": asdict(sizes), "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main(sys.argv[1:])
