"""What people say of clips of their own: in a table of labels, or in the clips' names (docs/own_data.md)."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_skeleton.data.parsing.table import delimiter_of
from ssl_skeleton.errors import UserError, nearest

_NUMBERS = ("subject", "camera", "setup", "repetition")
_KEYS = ("label", *_NUMBERS)
_MOST_BYTES = 1 << 27
# Bounds on the time that a name may take to be read by a pattern.
MOST_LETTERS = 300
_MOST_ANYTHING = 3
Cells = dict[str, dict[str, str]]
"""The texts that are told of each clip, by column."""


@dataclass(frozen=True)
class Labels:
    """Class names in label order, and what is known of clips: name -> column of clips.csv -> value."""

    classes: tuple[str, ...] = ()
    columns: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, clip: str) -> Mapping[str, int]:
        """The known columns of a clip; none for a clip that nothing is said of."""
        return self.columns.get(clip, {})


def read_labels(path: Path, said_by: Path) -> Cells:
    """The lines of a labels file, which the file `said_by` names; UserError when it is missing or damaged."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"{path}: more than the {_MOST_BYTES} bytes that a list of labels may have")
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter_of(text), strict=True))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, though {said_by.name} names it as labels") from None
    except (OSError, ValueError, csv.Error) as error:  # not UTF-8, a name with a zero byte
        raise UserError(f"{path}: cannot be read as CSV ({error})") from None
    header = _labels_header(path, rows)
    found: Cells = {}
    for number, row in enumerate(rows[1:], 2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise UserError(f"{path}: line {number} has {len(row)} cells, not {len(header)}")
        cells = {key: cell.strip() for key, cell in zip(header, row, strict=True)}
        clip = cells.pop("clip")
        if clip in found:
            raise UserError(f"{path}: line {number}: clip '{shortened(clip)}' stands twice")
        found[clip] = cells
    return found


def take_apart(clips: Iterable[str], pattern: str, said_by: Path) -> Cells:
    """What the names of clips tell by a pattern such as "{label}_s{subject}".

    Raises UserError, which names the file `said_by` that has the pattern, at a name that does not fit it.
    """
    expression = name_pattern(pattern)
    found = {}
    for clip in clips:
        if len(clip) > MOST_LETTERS:
            continue  # reading it will say so
        match = expression.fullmatch(clip)
        if match is None:
            raise UserError(
                f"{said_by}: names: clip '{shortened(clip)}' does not read '{pattern}' "
                "(is this the right format and folder?)"
            )
        found[clip] = match.groupdict()
    return found


def resolve(found: Cells, classes: tuple[str, ...], where: str) -> Labels:
    """Turn texts into labels and numbers; an empty cell is unknown. Without `classes`, all labels make them.

    Raises UserError, which begins with `where`, at a label of no class and at what is no number.
    """
    names = {cells["label"] for cells in found.values() if cells.get("label")}
    classes = classes or tuple(sorted(names))
    place = {name: label for label, name in enumerate(classes)}
    columns: dict[str, dict[str, int]] = {}
    for clip, cells in found.items():
        columns[clip] = {}
        for key, text in cells.items():
            said = f"{where}: clip '{shortened(clip)}'"
            if text and key == "label" and text not in place:
                hint = nearest(text[:MOST_LETTERS], classes)
                raise UserError(f"{said} has the label '{shortened(text)}'; {hint}")
            if text and key != "label" and not (text.isdecimal() and len(text) < 10):
                raise UserError(
                    f"{said}: {key} '{shortened(text)}' is no whole number, "
                    f"as {', '.join(_NUMBERS)} must be (1, not P01)"
                )
            if text:
                columns[clip][key] = place[text] if key == "label" else int(text)
    return Labels(classes, columns)


def shortened(text: str) -> str:
    """A text as a message quotes it."""
    return text if len(text) <= 80 else f"{text[:80]}..."


def _labels_header(path: Path, rows: Sequence[Sequence[str]]) -> list[str]:
    """The columns of a labels file; UserError when one is unknown, stands twice, or `clip` is missing."""
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "clip" not in header:
        raise UserError(f"{path}: the first line names no column 'clip'; it reads clip,label,subject,...")
    for name in header:
        if name not in ("clip", *_KEYS):
            raise UserError(f"{path}: unknown column '{name}'; {nearest(name, ('clip', *_KEYS))}")
        if header.count(name) > 1:
            raise UserError(f"{path}: column '{name}' stands twice")
    return header


def name_pattern(text: str) -> re.Pattern[str]:
    """The regular expression of a pattern such as "{label}_s{subject}"; ValueError where it is none."""
    texts, parts = re.split(r"\{\w*\}", text), re.findall(r"\{(\w*)\}", text)
    anything = [part in ("", "label") for part in parts]
    if any(
        not between and before and after
        for between, before, after in zip(texts[1:], anything, anything[1:], strict=False)
    ):
        raise ValueError("names: two parts that stand for any text need something between them")
    if sum(anything) > _MOST_ANYTHING:
        raise ValueError(f"names: more than {_MOST_ANYTHING} parts stand for any text")
    expression = re.escape(texts[0])
    for part, following in zip(parts, texts[1:], strict=True):
        if part not in ("", *_KEYS):
            raise ValueError(f"names: unknown part '{part}'; {nearest(part, _KEYS)}")
        group = {"": ".*?", "label": "(?P<label>.+?)"}.get(part, rf"(?P<{part}>\d+)")
        expression += group + re.escape(following)
    try:
        return re.compile(expression, re.ASCII)
    except re.error:
        raise ValueError("names: a part stands twice") from None
