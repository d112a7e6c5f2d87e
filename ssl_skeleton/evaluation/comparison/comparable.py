"""Which scores may be compared: those in one column are of one protocol, on the very same test clips."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ssl_skeleton.config import leaves
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.comparison.labelling import telling_labels, without_seed
from ssl_skeleton.evaluation.comparison.result_files import Result, Scored
from ssl_skeleton.evaluation.curves import TITLES
from ssl_skeleton.evaluation.results import COLUMNS, FUSED_ROWS, ROWS

_FIRST = ("linear", "knn")  # of the evaluators; others follow by name
_AREA = "area"  # under a curve: where there are some, these sum up what an evaluator found
_UNKNOWN = "unknown"  # what a store held, of older results
_WINDOWS = {"clips": "count", "clip_share": "share"}  # settings, and what results call them


@dataclass(frozen=True)
class Place:
    """What a column is of: only scores for which all of this is the same may be compared.

    `content` is the sum of what the store held, or where older results have none says so. `protocol` is JSON.
    `key` says which value of a score that has several, as a `k` or a curve, and is empty for others.
    """

    evaluator: str
    store: str
    split: str
    content: str
    protocol: str
    score: str
    key: str

    def value(self, scored: Scored) -> float:
        """The score that stands in this column."""
        return scored.scores[self.score][self.key]

    def is_answered(self, scored: Scored) -> bool:
        """Whether the predicted answers are those that give this score."""
        first = next(iter(scored.scores[self.score]))
        return bool(scored.predicted) and (self.score == "top1" or (self.score == "k" and self.key == first))


@dataclass
class Line:
    """What becomes a row: runs that differ in their seed alone, or one of their baselines."""

    name: str
    runs: list[str]
    seeds: set[int]
    epoch: int | None = None
    baseline: bool = False
    scored: dict[Place, dict[int, Scored]] = field(default_factory=dict)

    def at(self, place: Place) -> list[Scored]:
        """What it scored there, in the order of seeds."""
        scored = self.scored.get(place, {})
        return [scored[seed] for seed in sorted(scored)]

    def agrees(self, other: "Line") -> bool:
        """Whether both have the same scores and answers wherever they have some, and have some in common."""
        shared = [
            (place, one, other.scored[place][seed])
            for place in self.scored.keys() & other.scored.keys()
            for seed, one in self.scored[place].items()
            if seed in other.scored[place]
        ]
        return bool(shared) and all(
            place.value(one) == place.value(two) and one.predicted == two.predicted
            for place, one, two in shared
        )


def fill(line: Line, results: Sequence[Result]) -> list[Line]:
    """Put these results into a line; gives lines with their parts and baselines.

    Results that differ in settings that make no difference to a score may both have it: of these the one
    whose answers give it is taken. UserError where it is not the same.
    """
    beside: dict[str, Line] = {}
    taken: dict[tuple[Place, int], Result] = {}
    for result in results:
        for place in _places(result, result):
            other = taken.setdefault((place, result.seed), result)
            if place.value(other) != place.value(result):
                raise UserError(f"{result.path}: is of the same as {other.path}; remove the older one")
            if other is result or not place.is_answered(other):
                line.scored.setdefault(place, {})[result.seed] = result
        for name, scored in _beside(result).items():
            baseline = beside.setdefault(name, Line(name, [line.name], set(), baseline=True))
            baseline.seeds.add(result.seed)
            for place in _places(result, scored):
                baseline.scored.setdefault(place, {})[result.seed] = scored
    return list(beside.values())


def _beside(result: Result) -> dict[str, Scored]:
    """The parts and baselines of a result, by what they are called; so they are whatever the seed."""
    parts = {without_seed(key): scored for key, scored in result.parts.items()}
    if len(parts) < len(result.parts):  # of runs that differ in their seed
        parts = dict(result.parts)
    streams = "+".join(result.streams)
    called = ROWS | (FUSED_ROWS if result.recipes else {})
    known = {key: row.format(streams=streams) for key, row in called.items()}
    return parts | {known.get(key, key): scored for key, scored in result.baselines.items()}


def merged(baselines: Sequence[Line]) -> list[Line]:
    """Those of several runs as one line where they agree, and named after their runs where they do not."""
    kept: list[Line] = []
    for line in baselines:
        same = next((other for other in kept if other.name == line.name and other.agrees(line)), None)
        if same is None:
            kept.append(line)
            continue
        same.runs += line.runs
        same.seeds |= line.seeds
        for place, scored in line.scored.items():
            same.scored.setdefault(place, {}).update(scored)
    names = [line.name for line in kept]
    for line in kept:
        if names.count(line.name) > 1:
            line.name += f" of {', '.join(line.runs)}"
    order = sorted(range(len(kept)), key=lambda number: names.index(names[number]))
    return [kept[number] for number in order]


def places_of(results: Iterable[Result], scores: Sequence[str]) -> list[Place]:
    """The columns: the first score of every result, or of `scores` those that it has.

    Of a score with several values it is the first, but each where it is named; of curves the areas under all.
    Linear probes come first, then kNN; of one evaluator, the store and split that most results are of.
    UserError when results of one store and split are about different test clips.
    """
    found: dict[Place, None] = {}
    first: dict[tuple[str, ...], Result] = {}
    often: Counter[tuple[str, str]] = Counter()
    for result in results:
        often[result.store, result.split] += 1
        other = first.setdefault((result.store, result.split, _content(result), result.part), result)
        here, there = (one.clips.get(result.part) for one in (result, other))
        if here != there:
            counts = f"{here} {result.part} clips, but {other.path} has {there}"
            raise UserError(f"{result.path}: has {counts}, of the same store and split; evaluate again")
        places = list(_places(result, result))
        if scores:
            places = [place for place in places if place.score in scores]
        else:
            places = [place for place in places if place.score == _AREA] or places[:1]
        found |= dict.fromkeys(places)
    return sorted(
        found, key=lambda place: (*_order(place), -often[place.store, place.split], *_within(place))
    )


def column_names(
    places: Sequence[Place], unusual: Callable[[Place], Collection[str]] = lambda place: ()
) -> list[str]:
    """What columns are called: the evaluator and the score, and whatever else tells them apart.

    `unusual` gives the settings that a column is called after even where all are alike in them.
    """
    several = [what for what in ("store", "split") if len({getattr(place, what) for place in places}) > 1]
    names = []
    for place in places:
        score = COLUMNS[place.score].format(place.key)
        names.append(", ".join([f"{place.evaluator} {score}", *(getattr(place, what) for what in several)]))
    labels = list(names)
    facts, always = [_facts(place) for place in places], [unusual(place) for place in places]
    for name in set(names):
        alike = [number for number, other in enumerate(names) if other == name]
        told = telling_labels([facts[one] for one in alike], [always[one] for one in alike])
        for number, label in zip(alike, told, strict=True):
            labels[number] = ", ".join(part for part in (name, label) if part)
    return labels


def settings(place: Place) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings of a column as recipes have them: the evaluator's own, and the sections beside it.

    A fusion of runs that were probed in different ways has the latter for each of these.
    """
    own: dict[str, Any] = json.loads(place.protocol)
    windows, probed = own.pop("windows", None), own.pop("raw_protocol", None)
    probed = own.pop("probe_protocol", probed)
    beside = {}
    if isinstance(windows, dict):
        beside = {name: windows[key] for name, key in _WINDOWS.items() if key in windows}
    probes = probed if isinstance(probed, list) else [] if probed is None else [probed]
    return own, [beside | {str(own.get("probe", "linear")): probe} for probe in probes] or [beside]


def _facts(place: Place) -> dict[str, object]:
    """What a column may be called after, by key path; of several runs that differ, one + the other."""
    own, beside = settings(place)
    each = [leaves(_joined(sections)) for sections in beside]
    facts = {"content": _short(place), **leaves(_joined(own))}
    for key in dict.fromkeys(key for one in each for key in one):
        values = [one.get(key, "-") for one in each]
        alike = all(value == values[0] for value in values)
        facts[key] = values[0] if alike else "+".join(map(str, values))
    return facts


def _protocol(result: Result) -> dict[str, Any]:
    """All that a score hangs on; how runs that were fused were probed stands once where it is the same."""
    protocol = result.protocol | result.more
    probed = protocol.get("probe_protocol")
    if isinstance(probed, tuple) and probed and all(probe == probed[0] for probe in probed):
        protocol["probe_protocol"] = probed[0]
    return protocol


def _places(result: Result, scored: Scored) -> Iterator[Place]:
    protocol = _protocol(result)
    for score, values in scored.scores.items():
        for key in values:
            # Which other values were tried too, or other curves drawn, makes no difference to this one.
            others = () if not key else (score,) if score != _AREA else TITLES.keys() - {key}
            kept = {name: value for name, value in protocol.items() if name not in others}
            place = (result.evaluator, result.store, result.split, _content(result))
            yield Place(*place, json.dumps(kept, sort_keys=True), score, key)


def _content(result: Result) -> str:
    return result.store_sum or f"{_UNKNOWN} at {result.store_path}"


def _joined(tree: Any) -> Any:
    """The tree with its lists of plain values as one value each."""
    if isinstance(tree, dict):
        return {key: _joined(value) for key, value in tree.items()}
    if isinstance(tree, list) and not any(isinstance(value, dict | list) for value in tree):
        return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in tree)
    return tree


def _short(place: Place) -> str:
    """What the store held, as its sum begins."""
    return place.content if place.content.startswith(_UNKNOWN) else place.content[:8]


def _order(place: Place) -> tuple[object, ...]:
    first = _FIRST.index(place.evaluator) if place.evaluator in _FIRST else len(_FIRST)
    return first, place.evaluator


def _within(place: Place) -> tuple[object, ...]:
    return place.store, place.split, list(COLUMNS).index(place.score)
