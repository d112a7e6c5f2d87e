"""Whether a run that was killed ended as one that was not."""

import json
from pathlib import Path
from typing import Any

from killing import STAGES

from ssl_skeleton.training.checkpoint import Checkpoint, load_checkpoint

_CLOCK = ("seconds", "clips_per_second")


def differences(folder: Path, whole: Path) -> list[str]:
    """In what a finished run differs from one that was never killed; nothing of that knows the clock."""
    found = []
    names, wanted = ({*map(str, _files(place))} for place in (folder, whole))
    if names != wanted:
        found.append(f"files: {sorted(names ^ wanted)}")
    for path in sorted((whole / "checkpoints").glob("*.pt")):
        stage = path.name.split("-")[0].removesuffix(".pt")
        there = folder / "checkpoints" / path.name
        if there.exists() and not same(load_checkpoint(there, stage), load_checkpoint(path, stage)):
            found.append(f"{path.name} is another one")
    if read_log(folder) != read_log(whole):
        found.append("log.jsonl is another one")
    for stage in STAGES:
        if read_board(folder / "tensorboard" / stage) != read_board(whole / "tensorboard" / stage):
            found.append(f"tensorboard/{stage} shows something else")
    return found


def _files(folder: Path) -> list[Path]:
    """All files but TensorBoard's, of which every start makes a new one."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.parts[0] != "tensorboard"]


def same(one: object, other: object) -> bool:
    """Whether two trees of tensors and plain values are the same to the last bit."""
    if isinstance(one, Checkpoint):
        return isinstance(other, Checkpoint) and same(vars(one), vars(other))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)  # type: ignore[call-overload,index]
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))  # type: ignore[arg-type]
    if hasattr(one, "numpy"):
        facts = [(tensor.dtype, tensor.shape, tensor.numpy().tobytes()) for tensor in (one, other)]  # type: ignore[attr-defined]
        return facts[0] == facts[1]
    return one == other


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of log.jsonl, without what only the clock knows."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in _CLOCK} for line in lines]


def read_board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of a stage as TensorBoard shows them: steps and values by name, in order.

    A file that says from which step on it goes takes back what earlier ones have from there.
    """
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # noqa: PLC0415
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # noqa: PLC0415

    files = []
    for path in folder.glob("events.*"):
        events = [Event.FromString(raw) for raw in RawEventFileLoader(str(path)).Load()]
        if events:
            files.append((events[0].wall_time, events))
    shown: dict[str, list[tuple[int, float]]] = {}
    for _, events in sorted(files, key=lambda file: file[0]):
        for event in events:
            if event.HasField("session_log") and event.session_log.status == SessionLog.START:
                for name, points in shown.items():
                    shown[name] = [point for point in points if point[0] < event.step]
            for value in event.summary.value:
                if value.tag not in _CLOCK:
                    shown.setdefault(value.tag, []).append((event.step, value.simple_value))
    return {name: points for name, points in shown.items() if points}
