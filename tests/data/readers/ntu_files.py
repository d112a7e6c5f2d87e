"""Writes `.skeleton` text and reads it in the plainest way, for the tests of readers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Frame = Sequence[tuple[str, NDArray[np.float32]]]  # (id, joints) of every body in it


def person(frames: int, seed: int = 0, *, speed: float = 0.01, wide: bool = False) -> NDArray[np.float32]:
    """A body (T, 25, 3) that drifts along z; upright, or spread on the ground."""
    noise = np.random.default_rng(seed).uniform(size=(frames, 25, 3))
    size = np.array([1.7, 0.4, 0.2] if wide else [0.4, 1.7, 0.2])
    x_tvc = noise * size + [0.1, 0.1, 2.0]
    x_tvc[:, :2, :2] = [0.1, 0.1], [0.1 + size[0], 0.1 + size[1]]  # every frame is of full size
    x_tvc[..., 2] += speed * np.arange(frames)[:, None]
    return x_tvc.astype(np.float32)


def clip_of(bodies: dict[str, tuple[int, NDArray[np.float32]]], frames: int) -> list[Frame]:
    """The frames of a clip: each id with the frame from which it is seen and its joints."""
    return [
        [(body, x[t - first]) for body, (first, x) in bodies.items() if 0 <= t - first < len(x)]
        for t in range(frames)
    ]


def skeleton_text(frames: Sequence[Frame]) -> str:
    """The text of a file; the values that readers ignore are not finite, as happens in real files."""
    lines = [str(len(frames))]
    for frame in frames:
        lines.append(str(len(frame)))
        for body, x_vc in frame:
            lines += [f"{body} 0 1 1 0 1 0 0.02 -0.1 2", str(len(x_vc))]
            lines += [" ".join(f"{v:.9g}" for v in x_c) + " nan 2 -inf 4 5 6 7 -8e-05 2" for x_c in x_vc]
    return "\n".join(lines) + "\n"


def write_clip(folder: Path, frames: Sequence[Frame], name: str = "S001C002P003R002A013") -> Path:
    """Write a clip to a file in `folder`."""
    path = folder / f"{name}.skeleton"
    path.write_text(skeleton_text(frames))
    return path


def write_example(folder: Path) -> None:
    """Write a small data set below `folder`: one person, two with ids that are one float64, nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    write_clip(folder, clip_of({"72057594037944738": (1, person(4))}, 6), "S001C001P001R001A001")
    two = {"72057594037944738": (0, person(3)), "72057594037944739": (1, person(2, seed=1))}
    write_clip(folder, clip_of(two, 3))
    write_clip(folder, [[], []], "S001C003P003R002A003")


def plain_read(path: Path) -> dict[str, dict[int, NDArray[np.float32]]]:
    """Read a good file line by line: what is seen of each id, frame by frame."""
    lines = iter(path.read_text().splitlines())
    bodies: dict[str, dict[int, NDArray[np.float32]]] = {}
    for t in range(int(next(lines))):
        for _ in range(int(next(lines))):
            body = next(lines).split()[0]
            joints = [list(map(float, next(lines).split())) for _ in range(int(next(lines)))]
            x_vc = np.array(joints, np.float32)[:, :3]
            if x_vc.any():
                bodies.setdefault(body, {})[t] = x_vc
    return bodies
