"""Where recordings come from: folders, zip archives, single files; read in memory, never unpacked to disk."""

import fnmatch
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ssl_skeleton.errors import DamagedClip, UserError

# A text of numbers shrinks to about a quarter; what unpacks to far more was made to fill a disk.
_MOST_RATIO = 200
# What zipfile raises: a flipped byte can ask for any place, text, or way of packing.
_DAMAGED_ZIP = (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OverflowError, struct.error)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_STORE = {"meta.json", "clips.csv", "frames.npy", "tracks.npy"}  # a prepared store holds no recordings
_SMALL = 1 << 20  # members of up to a megabyte may have any ratio, as files of zeros do


class Entry(NamedTuple):
    """One file of a source: which of its roots holds it, and its path there with forward slashes."""

    root: int
    path: str

    @property
    def name(self) -> str:
        """The file's name."""
        return PurePosixPath(self.path).name

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return PurePosixPath(self.path).stem

    @property
    def folder(self) -> str:
        """The path of the folder that holds the file; empty for the root itself."""
        return self.path.rpartition("/")[0]


class Source:
    """The files below some roots, each a folder, a zip archive, or a single file.

    Hidden files and folders are passed over. Raises UserError when a root is missing or a damaged archive.
    """

    def __init__(self, *roots: Path) -> None:
        self.roots = roots
        self._kinds = [
            "zip" if _is_archive(root) else "file" if root.is_file() else "folder" for root in roots
        ]
        self._archives: dict[int, zipfile.ZipFile] = {}
        self._raw: dict[int, dict[str, str]] = {}  # of archives: each path's name as it stands there
        self._entries = [Entry(number, path) for number in range(len(roots)) for path in self._walk(number)]

    def __str__(self) -> str:
        return ", ".join(map(str, self.roots)).encode(errors="backslashreplace").decode()

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens archives of its own, and is told what to read: the names stay behind."""
        return self.__dict__ | {"_archives": {}, "_entries": []}

    def find(self, pattern: str, what: str) -> list[Entry]:
        """The files whose names match `pattern` (any case), sorted by name; UserError when there is none."""
        found = self.matching(pattern)
        if not found:
            packed = [
                root for root in self.roots if root.suffix.lower() in (".rar", ".7z", ".gz", ".tar", ".tgz")
            ]
            mend = (
                "; unpack it first, or pack it as zip"
                if packed
                else f"; --source names the folder or zip with {what}"
            )
            raise UserError(f"{self}: holds no {pattern}{mend}")
        return found

    def matching(self, pattern: str) -> list[Entry]:
        """The files whose names match `pattern` (any case), sorted by name."""
        lower = pattern.lower()
        found = [entry for entry in self._entries if fnmatch.fnmatchcase(entry.name.lower(), lower)]
        return sorted(found, key=lambda entry: (entry.name, entry))

    def read(self, entry: Entry, most: int) -> bytes:
        """The bytes of a file; DamagedClip when there are more than `most` or its archive is damaged."""
        if self._kinds[entry.root] == "zip":
            return self._read_member(entry, most)
        # A pipe would let us wait for ever; opened so, it does not.
        with os.fdopen(os.open(self._place(entry), os.O_RDONLY | _NO_WAIT), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DamagedClip("no regular file")
            data = file.read(min(status.st_size, most) + 1)  # asking for `most` would take that much memory
        return _within(data, most)

    def stamp(self, entry: Entry) -> str:
        """What changes when the file does: its size and time, or its checksum in an archive."""
        if self._kinds[entry.root] == "zip":
            info = self._member(entry)
            return f"{info.file_size} {info.CRC}"
        try:
            status = self._place(entry).stat()
        except OSError:  # reading it will say why
            return "unknown"
        return f"{status.st_size} {status.st_mtime_ns}"

    def size(self) -> int:
        """The bytes of all files together, as they lie on the disk."""
        packed = (root for number, root in enumerate(self.roots) if self._kinds[number] != "folder")
        whole = sum(root.stat().st_size for root in packed)
        inside = (entry for entry in self._entries if self._kinds[entry.root] == "folder")
        return whole + sum(path.stat().st_size for path in map(self._place, inside) if path.exists())

    def _place(self, entry: Entry) -> Path:
        """Where a file that is in no archive lies."""
        root = self.roots[entry.root]
        return root if self._kinds[entry.root] == "file" else root / entry.path

    def _walk(self, number: int) -> Iterator[str]:
        root = self.roots[number]
        if not root.exists():
            raise UserError(f"{root}: no such folder or file; --source names where the recordings are")
        if self._kinds[number] == "zip":
            names = [info.filename for info in self._archive(number).infolist() if not info.is_dir()]
            raw = {name.replace("\\", "/").removeprefix("./"): name for name in names}
            self._raw[number] = raw  # some tools write backslashes, some begin with ./
            yield from (path for path in raw if not _is_hidden(path))
        elif self._kinds[number] == "file":
            yield root.name
        else:
            seen: set[Path] = set()  # links may lead back to where they lie
            for folder, below, files in os.walk(root, followlinks=True, onerror=_refuse):
                here = Path(folder).resolve()
                if here in seen or set(files) >= _STORE:
                    below.clear()
                    continue
                seen.add(here)
                below[:] = sorted(name for name in below if not _is_hidden(name))
                inside = Path(folder).relative_to(root).as_posix()
                prefix = "" if inside == "." else f"{inside}/"
                yield from (prefix + name for name in files if not _is_hidden(name))

    def _archive(self, number: int) -> zipfile.ZipFile:
        if number not in self._archives:
            root = self.roots[number]
            try:
                archive = zipfile.ZipFile(root)
            except (*_DAMAGED_ZIP, OSError) as error:
                raise UserError(f"{root}: not a readable zip archive ({error}); download it again") from None
            packed = sum(info.compress_size for info in archive.infolist())
            if packed > root.stat().st_size:
                raise UserError(f"{root}: its members overlap, so it was made to fill a disk; not read")
            self._archives[number] = archive
        return self._archives[number]

    def _member(self, entry: Entry) -> zipfile.ZipInfo:
        return self._archive(entry.root).getinfo(self._raw[entry.root][entry.path])

    def _read_member(self, entry: Entry, most: int) -> bytes:
        archive, info = self._archive(entry.root), self._member(entry)
        if info.file_size > max(_SMALL, _MOST_RATIO * info.compress_size):
            raise DamagedClip(f"would unpack to {info.file_size} bytes, over {_MOST_RATIO} times its size")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DamagedClip("packed otherwise than by deflate, the usual way of zip archives")
        try:
            with archive.open(info) as file:
                data = file.read(min(info.file_size, most) + 1)
        except (*_DAMAGED_ZIP, zlib.error, RuntimeError) as error:
            raise DamagedClip(f"cannot be unpacked ({error})") from None
        return _within(data, most)


def text_of(data: bytes) -> str:
    """ASCII text; DamagedClip names the first line that is none."""
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        line = len((data[: error.start] + b"?").splitlines())
        raise DamagedClip(f"line {line}: byte {data[error.start]:#04x} is no ASCII text") from None


def _within(data: bytes, most: int) -> bytes:
    if len(data) > most:
        raise DamagedClip(f"more than the {most} bytes that such a file may have")
    return data


def _is_archive(root: Path) -> bool:
    return root.suffix.lower() == ".zip" and root.is_file()


def _refuse(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot be listed ({error.strerror})")


def _is_hidden(path: str) -> bool:
    parts: Sequence[str] = path.split("/")
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
