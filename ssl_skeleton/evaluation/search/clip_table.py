"""Tables of clips, a line each, in folders that may come from strangers."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from ssl_skeleton.data.untrusted import table_size
from ssl_skeleton.errors import UserError
from ssl_skeleton.files import write_text

Line = Sequence[str | int]
_END = "\r\n"  # the writer puts quotes around what is in here, and not around a lone \r otherwise


class _Text(list[str]):
    """The lines that are written to it, each of which ends with a line feed alone."""

    def write(self, line: str) -> None:
        """Take a line."""
        self.append(line.removesuffix(_END) + "\n")


def write_table(path: Path, columns: Sequence[str], lines: Iterable[Line]) -> None:
    """Write a CSV file whose first line names the columns."""
    text = _Text()
    csv.writer(text, lineterminator=_END).writerows([columns, *lines])
    write_text(path, "".join(text))


def read_table(path: Path, columns: Sequence[str], clips: int, mend: str) -> dict[str, tuple[str, ...]]:
    """The cells of each column; UserError, which ends with `mend`, unless there is one line a clip."""
    table_size(path, clips, mend)
    try:
        text = path.read_bytes().decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        if not rows or tuple(rows[0]) != tuple(columns):
            raise ValueError(f"the first line does not read {','.join(columns)}")
        if len(rows) - 1 != clips:
            raise ValueError(f"{len(rows) - 1} lines for {clips} clips")
        if any(len(row) != len(columns) for row in rows):
            raise ValueError(f"a line has not {len(columns)} cells")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: damaged ({error}); {mend}") from None
    return dict(zip(columns, zip(*rows[1:], strict=True), strict=True))
