"""Tables of what trials scored, each row beside its own baselines."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trials import Entry

from ssl_skeleton.evaluation.comparison.tables import Cell, Column, Row, Table
from ssl_skeleton.evaluation.results import COLUMNS

Rows = Mapping[str, Sequence[Entry]]
"""What each row's trials came to, an entry a seed."""

OWN = "trained"
_BESIDE = ("untrained", "raw")  # the baselines that every table has
_WHAT = (
    "In %, of the last epoch; untrained is the same encoder with its random weights, raw the coordinates "
    "themselves, by the same probe."
)
_OF_FINETUNE = "Of finetune, untrained learns the same from its random start, and raw has the linear probe."


def results_of(entry: Entry) -> dict[str, dict[str, Any]]:
    """The results of an entry by evaluator."""
    return {name: part for name, part in entry.items() if isinstance(part, dict) and "baselines" in part}


def headline(scores: Mapping[str, Any]) -> str:
    """The name of the first score that is one number."""
    return next(name for name in COLUMNS if isinstance(scores.get(name), float))


def score_tables(rows: Rows) -> list[Table]:
    """A table of every store and split, a row a recipe, with what they are of and where they were found."""
    places: dict[str, dict[str, list[Entry]]] = {}
    for name, entries in rows.items():
        for entry in entries:
            places.setdefault(_place(entry), {}).setdefault(name, []).append(entry)
    return [_table(place, there) for place, there in places.items()]


def _place(entry: Entry) -> str:
    """The store, the split and how many clips were asked for; older entries do not say the last."""
    result = next(iter(results_of(entry).values()))
    clips = result.get("clips", {})
    asked = f", {clips['test']} test clips" if "test" in clips else ""
    return f"{result['store']}, split {result['split']}{asked}"


def _table(place: str, rows: Rows) -> Table:
    columns = {(column.facts["evaluator"], column.facts["of"]): column for column in _columns(rows)}
    lines = []
    for name, entries in rows.items():
        first = [next(iter(results_of(entry).values())) for entry in entries]
        epochs, seeds = {result["epoch"] for result in first}, [result["seed"] for result in first]
        cells = [_cell(entries, evaluator, of) for evaluator, of in columns]
        lines.append(Row(name, cells, [name], seeds, epochs.pop() if len(epochs) == 1 else None))
    notes = [_WHAT, *_protocols(rows), _seeds(lines), _effort(rows)]
    return Table(place, list(columns.values()), lines, notes=notes)


def _columns(rows: Rows) -> Iterator[Column]:
    """A column an evaluator, and those of its baselines."""
    found: dict[str, dict[str, Any]] = {}
    for entries in rows.values():
        for entry in entries:
            found = results_of(entry) | found
    for evaluator, result in found.items():
        score, k = headline(result), next(iter(result.get("k", {})), "")
        shown = str(result["evaluator"]).replace("knn", f"{k}-NN" if k else "knn")
        title = shown if score == "top1" else f"{shown} {COLUMNS[score]}"
        for of in (OWN, *_BESIDE):
            name = title if of == OWN else f"{title}, {of}"
            yield Column(name, {"evaluator": evaluator, "score": score, "of": of})


def _cell(entries: Sequence[Entry], evaluator: str, of: str) -> Cell | None:
    results = [entry[evaluator] for entry in entries if evaluator in entry]
    scored = [result if of == OWN else result["baselines"].get(of) for result in results]
    values = tuple(scores[headline(scores)] for scores in scored if scores)
    return Cell(values) if values else None


def _protocols(rows: Rows) -> Iterator[str]:
    """What must be known of how the columns were scored."""
    found: dict[str, set[str]] = {}
    for entry in itertools.chain(*rows.values()):
        for evaluator, result in results_of(entry).items():
            found.setdefault(evaluator, set()).add(json.dumps(result.get("protocol"), sort_keys=True))
    yield from (
        f"{name}: not all by the same protocol." for name, several in found.items() if len(several) > 1
    )
    if "finetune" in found:
        yield _OF_FINETUNE


def _seeds(rows: Sequence[Row]) -> str:
    listed = {row.name: ", ".join(map(str, sorted(row.seeds))) for row in rows}
    if len(set(listed.values())) == 1:
        return f"Seeds {next(iter(listed.values()))}."
    return f"Seeds: {'; '.join(f'{name} {seeds}' for name, seeds in listed.items())}."


def _effort(rows: Rows) -> str:
    """On what the trials were trained, and how long that took."""
    entries = list(itertools.chain(*rows.values()))
    devices = dict.fromkeys(_device(entry["environment"]) for entry in entries)
    minutes = [entry["minutes"] for entry in entries]
    span = f"{min(minutes):g}" if min(minutes) == max(minutes) else f"{min(minutes):g} to {max(minutes):g}"
    return f"Trained on {' and '.join(devices)}, {span} minutes each, {sum(minutes):.1f} in all."


def _device(environment: Mapping[str, Any]) -> str:
    if environment.get("device") != "cpu":
        return str(environment.get("device"))
    threads, processor = environment.get("threads"), environment.get("processor") or "a cpu"
    return f"{threads} thread{'s' if threads != 1 else ''} of {processor}"
