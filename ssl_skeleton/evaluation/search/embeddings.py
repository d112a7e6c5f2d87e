"""Embeddings: the features of clips with what is known of each, and the folder that keeps them.

`embeddings.npz` `features` float32 (N, D), `names`, `labels` int64 (N,), `lengths` int64 (N,) in frames
`clips.csv`      a line a clip: what its store says of it, the name of its class, and its row in the features
`meta.json`      which encoder made them, of which store, how clips were seen, versions, checksums
`skipped.csv`    where recordings were embedded that had to be read first: what was left out, and why
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ssl_skeleton.config import Config
from ssl_skeleton.data.parsing.arrays import read_npz
from ssl_skeleton.data.store import COLUMNS as STORED
from ssl_skeleton.data.store import sha256
from ssl_skeleton.data.untrusted import plain_size, read_tree
from ssl_skeleton.errors import DamagedClip, UserError
from ssl_skeleton.evaluation.search.clip_table import read_table, write_table
from ssl_skeleton.files import write_atomically, write_json

FORMAT = 1
COLUMNS = ("name", "label", "class", *STORED[2:], "row")
DATA_FILES = ("embeddings.npz", "clips.csv")
FILES = frozenset(("meta.json", *DATA_FILES, "skipped.csv"))
_MEND = "embed the clips again"
_MOST_BYTES = 1 << 32  # of embeddings.npz, which is read as a whole
_MOST_LETTERS = 1 << 28  # of all names together, each as long as the longest


class Origin(Config):
    """Which encoder made features: a run's. `encoder_sum` is of all that decides a feature, weights first."""

    run: str
    recipe_sum: str
    encoder_sum: str
    epoch: int


class EmbeddedStore(Config):
    """Where embedded clips come from; of recordings that are in no store, `path` is theirs."""

    name: str
    path: str
    sum: str
    dataset: str
    layout: str
    fps: float
    split: str
    part: str


class EmbeddingsMeta(Config):
    """The contents of meta.json.

    `seen` says how clips were shown to the encoder and pooled, `environment` what it was done with.
    """

    format: int = FORMAT
    origin: Origin
    store: EmbeddedStore
    seen: dict[str, Any]
    classes: tuple[str, ...]
    clips: int = Field(ge=1)
    dim: int = Field(ge=1)
    environment: dict[str, Any]
    sha256: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True)
class Embeddings:
    """Features (N, D) of clips, their names, and the other columns of clips.csv of their store, (N,) each."""

    meta: EmbeddingsMeta
    features: NDArray[np.float32]
    names: tuple[str, ...]
    columns: Mapping[str, NDArray[np.int64]]

    def __len__(self) -> int:
        return len(self.names)

    def at(self, rows: NDArray[np.int64]) -> "Embeddings":
        """The same clips in another order."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        names = tuple(self.names[row] for row in rows.tolist())
        return replace(self, features=self.features[rows], names=names, columns=columns)

    @property
    def class_names(self) -> list[str]:
        """The name of every clip's class, empty when it is unknown."""
        return [self.meta.classes[label] if label >= 0 else "" for label in self.columns["label"].tolist()]


def write_embeddings(folder: Path, embeddings: Embeddings) -> None:
    """Write the files of a folder that is there; UserError when a clip's name is too long to be kept."""
    columns = embeddings.columns
    arrays: dict[str, Any] = {
        "features": embeddings.features,
        "names": _name_array(embeddings.names),
        "labels": columns["label"],
        "lengths": columns["frames"],
    }
    write_atomically(folder / "embeddings.npz", lambda file: np.savez(file, **arrays))
    rows = np.arange(len(embeddings))
    numbers = [columns[column].tolist() for column in STORED[2:]]
    lines = zip(
        embeddings.names,
        columns["label"].tolist(),
        embeddings.class_names,
        *numbers,
        rows.tolist(),
        strict=True,
    )
    write_table(folder / "clips.csv", COLUMNS, lines)
    sums = {name: sha256(folder / name) for name in DATA_FILES}
    write_json(folder / "meta.json", embeddings.meta.model_copy(update={"sha256": sums}).to_tree())


def read_embeddings(folder: Path) -> Embeddings:
    """What `write_embeddings` wrote; UserError when it is damaged, or something else."""
    if not (folder / "meta.json").is_file():
        raise UserError(f"{folder}: holds no embeddings; make some with: python -m ssl_skeleton.embed")
    tree = read_tree(folder / "meta.json", _MEND)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT or "store" not in tree:
        raise UserError(f"{folder / 'meta.json'}: does not tell of embeddings in format {FORMAT}; {_MEND}")
    meta = EmbeddingsMeta.from_tree(tree, str(folder / "meta.json"))
    cells = read_table(folder / "clips.csv", COLUMNS, meta.clips, _MEND)
    columns = {name: _numbers(cells[name], folder / "clips.csv") for name in STORED[1:]}
    if columns["label"].min() < -1 or columns["label"].max() >= len(meta.classes):
        raise UserError(f"{folder / 'clips.csv'}: a label is not below {len(meta.classes)}; {_MEND}")
    features = _read_features(folder / "embeddings.npz", (meta.clips, meta.dim))
    for name in DATA_FILES:
        if meta.sha256.get(name) != sha256(folder / name):
            raise UserError(f"{folder / name}: is not what meta.json tells of, by its SHA-256 sum; {_MEND}")
    return Embeddings(meta, features, cells["name"], columns)


def is_embeddings(folder: Path) -> bool:
    """Whether a folder holds embeddings, in whatever state, and nothing else."""
    if not (folder / "meta.json").is_file() or not {path.name for path in folder.iterdir()} <= FILES:
        return False
    try:
        tree = read_tree(folder / "meta.json")
    except UserError:
        return (folder / "embeddings.npz").is_file()
    return isinstance(tree, dict) and {"format", "origin", "store", "seen"} <= tree.keys()


def _name_array(names: tuple[str, ...]) -> NDArray[np.str_]:
    longest = max(names, key=len)
    if len(longest) * len(names) > _MOST_LETTERS:
        raise UserError(f"clip '{longest[:80]}...': a name of {len(longest)} letters is too long; shorten it")
    return np.array(names, dtype=np.str_)


def _numbers(cells: tuple[str, ...], path: Path) -> NDArray[np.int64]:
    try:
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: damaged ({error}); {_MEND}") from None


def _read_features(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    size = plain_size(path, _MEND)
    if size > _MOST_BYTES:
        raise UserError(f"{path}: {size} bytes are too many to be read at once; build from the store instead")
    found: object = None
    try:
        found = dict(read_npz(path.read_bytes())).get("features")
    except DamagedClip as error:
        found = error
    if not isinstance(found, np.ndarray) or (found.shape, found.dtype.str) != (shape, "<f4"):
        told = (
            found if isinstance(found, DamagedClip) else "its features are not those that meta.json tells of"
        )
        raise UserError(f"{path}: damaged ({told}); {_MEND}")
    if not np.isfinite(found).all():
        raise UserError(f"{path}: some features are not finite; {_MEND}")
    return found
