"""Features as points in TensorBoard's embedding projector: plain files, which it finds in a run's folder."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssl_skeleton.data.store import Store
from ssl_skeleton.files import write_atomically, write_text

_POINTS, _FACTS = "tensors.tsv", "metadata.tsv"


def add_points(
    folder: Path, name: str, features_nd: NDArray[np.floating], facts: Mapping[str, Sequence[str]]
) -> None:
    """Add features (N, D) under a name to those that the projector shows of `folder`, or replace them.

    `facts` are columns, at least two, of N texts each, which the projector colours and searches the points
    by. What other processes have added stays: SummaryWriter.add_embedding would forget it.
    """
    points = io.BytesIO()
    np.savetxt(points, features_nd, fmt="%.6g", delimiter="\t")
    write_atomically(folder / name / _POINTS, lambda file: file.write(points.getbuffer()))
    rows = [facts.keys(), *zip(*facts.values(), strict=True)]
    lines = ["\t".join(" ".join(cell.split()) for cell in row) for row in rows]
    write_text(folder / name / _FACTS, "\n".join(lines) + "\n")
    names = sorted(path.parent.name for path in folder.glob(f"*/{_FACTS}"))
    write_text(folder / "projector_config.pbtxt", "".join(map(_entry, names)))


def clip_facts(stores: Sequence[Store], index: NDArray[np.int64]) -> dict[str, list[str]]:
    """Columns about the clips `index` (N,) of all `stores` together; `-` is unknown."""
    ends = np.cumsum([len(store) for store in stores])
    facts: dict[str, list[str]] = {name: [] for name in ("clip", "class", "subject", "camera", "store")}
    for clip, number in zip(index.tolist(), np.searchsorted(ends, index, side="right"), strict=True):
        store = stores[number]
        place = clip - int(ends[number]) + len(store)
        label, subject, camera = (int(store.columns[name][place]) for name in ("label", "subject", "camera"))
        cells = (
            store.names[place],
            store.meta.classes[label] if label >= 0 else "-",
            str(subject) if subject >= 0 else "-",
            str(camera) if camera >= 0 else "-",
            store.path.name,
        )
        for column, cell in zip(facts.values(), cells, strict=True):
            column.append(cell)
    return facts


def _entry(name: str) -> str:
    """What the projector's config says of one set of points: a message of protocol buffers, as text."""
    return (
        f'embeddings {{\n  tensor_name: "{name}"\n'
        f'  tensor_path: "{name}/{_POINTS}"\n  metadata_path: "{name}/{_FACTS}"\n}}\n'
    )
