"""What a preparation has done so far, on disk, so that the next one goes on from there."""

import hashlib
import json
from pathlib import Path
from typing import Any

from ssl_skeleton.files import write_text


class Journal:
    """A file of one JSON tree a line, each after a checksum of the `key` and of all lines so far.

    The `key` says what is being prepared: a journal of another one counts as none. What follows a line that
    was damaged or cut off is left out.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self._sum = key
        self.entries: list[dict[str, Any]] = []  # what an earlier journal told
        self._read()
        self._rewrite()

    @property
    def last(self) -> dict[str, Any]:
        """The newest line that an earlier journal told; empty when there is none."""
        return self.entries[-1] if self.entries else {}

    def clear(self) -> None:
        """Forget everything."""
        self.entries = []
        self._rewrite()

    def append(self, entry: dict[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line(json.dumps(entry)))

    def remove(self) -> None:
        """Delete the file: what it told of is done."""
        self.path.unlink()

    def _line(self, text: str) -> str:
        """The line that says `text` next."""
        self._sum = hashlib.sha256((self._sum + text).encode()).hexdigest()
        return f"{self._sum} {text}\n"

    def _rewrite(self) -> None:
        """Write what was read again, without what was left out."""
        self._sum = self.key
        write_text(self.path, "".join(self._line(json.dumps(entry)) for entry in self.entries))

    def _read(self) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return
        for line in lines[:-1]:
            _, _, text = line.partition(" ")
            if line + "\n" != self._line(text):
                return
            self.entries.append(json.loads(text))
