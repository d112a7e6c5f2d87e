import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from builders import damages, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssl_skeleton.errors import UserError
from ssl_skeleton.training.log import RunLog


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def write(folder: Path, stage: str, *epochs: int, first: int = 0) -> None:
    with RunLog(folder, stage, first) as log:
        for epoch in epochs:
            log.epoch(epoch, {"loss": epoch + 0.5})


def board(folder: Path, stage: str) -> EventAccumulator:
    return EventAccumulator(str(folder / "tensorboard" / stage)).Reload()


def child(script: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a script in a process of its own, with `folder` as its argument and a minute's time."""
    words = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603


def test_the_lines_of_other_stages_and_earlier_epochs_are_kept(tmp_path):
    write(tmp_path, "one", 1, 2)
    write(tmp_path, "two", 1, 2, 3)
    write(tmp_path, "two", 2, first=1)
    write(tmp_path, "three", 1)
    assert [(line["stage"], line["epoch"]) for line in lines(tmp_path)] == [
        ("one", 1),
        ("one", 2),
        ("two", 1),
        ("two", 2),
        ("three", 1),
    ]


garbage = st.sampled_from(
    [
        *(b"5", b"null", b"[]", b"{}", b"", b"\0" * 30, b"\xff\xfe", b"[" * 100_000),
        *(b'{"stage": "main", "ep', b'{"stage": "main"}', b'{"stage": [], "epoch": 1}'),
        b'{"stage": "main", "epoch": "1"}',
    ]
)


@given(st.lists(garbage, max_size=3), st.integers(0, 4), st.booleans())
@settings(max_examples=examples(30), deadline=None)
def test_garbage_in_the_log_is_taken_out(tmp_path_factory, pieces, place, ended):
    folder = tmp_path_factory.mktemp("run")
    good = [json.dumps({"stage": "main", "epoch": epoch}).encode() for epoch in range(1, 5)]
    (folder / "log.jsonl").write_bytes(b"\n".join([*good[:place], *pieces, *good[place:]]) + b"\n" * ended)
    RunLog(folder, "main", 3)
    assert (folder / "log.jsonl").read_bytes() == b"".join(line + b"\n" for line in good[:3])


@given(st.data())
@settings(max_examples=examples(40), deadline=None)
def test_no_damage_stops_a_log(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("run")
    whole = b"".join(
        json.dumps({"stage": "main", "epoch": epoch, "loss": 0.1}).encode() + b"\n" for epoch in (1, 2, 3)
    )
    (folder / "log.jsonl").write_bytes(data.draw(damages(whole)))
    RunLog(folder, "main", 2)
    kept = lines(folder)
    assert all(line["stage"] != "main" or line["epoch"] <= 2 for line in kept)
    RunLog(folder, "main", 2)
    assert lines(folder) == kept


@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_written_through_a_link(there, tmp_path):
    target = tmp_path / "elsewhere"
    if there:
        target.write_bytes(b"mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").symlink_to(target)
    write(tmp_path / "run", "main", 1)
    assert [line["epoch"] for line in lines(tmp_path / "run")] == [1]
    assert target.read_bytes() == b"mine" if there else not target.exists()


def test_what_is_not_finite_is_null(tmp_path):
    with RunLog(tmp_path, "main", 0) as log:
        log.epoch(1, {"loss": 1.0, "lost": float("nan"), "endless": float("inf")})
    assert lines(tmp_path) == [{"stage": "main", "epoch": 1, "loss": 1.0, "lost": None, "endless": None}]


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder of a run that was killed in its fourth epoch, and what it had loaded before its first."""
    script = """
        import os, signal, sys
        from pathlib import Path
        import ssl_skeleton.runs.run
        from ssl_skeleton.training.log import RunLog
        with RunLog(Path(sys.argv[1]), "main", 0) as log:
            print(*sys.modules, flush=True)
            for epoch in range(1, 4):
                log.epoch(epoch, {"loss": epoch / 2})
            log.board.add_scalar("loss", 9.0, 4)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    folder = tmp_path_factory.mktemp("killed")
    found = child(script, folder)
    assert (found.returncode, found.stderr) == (-9, "")
    return folder, found.stdout.split()


def test_a_killed_run_loses_no_finished_epoch(killed):
    folder, _ = killed
    assert [line["epoch"] for line in lines(folder)] == [1, 2, 3]
    assert [event.value for event in board(folder, "main").Scalars("loss")][:3] == [0.5, 1.0, 1.5]


def test_boards_and_figures_are_not_loaded_before_they_are_needed(killed):
    assert "torch" in killed[1]
    assert not [name for name in killed[1] if name.startswith(("tensorboard", "matplotlib"))]


def test_the_board_forgets_what_comes_again(tmp_path):
    write(tmp_path, "main", 1, 2, 3)
    (events,) = (tmp_path / "tensorboard" / "main").iterdir()
    events.write_bytes(events.read_bytes()[:-3])  # killed while it wrote
    began = int(time.time())
    while int(time.time()) == began:  # a board's files are read in order of the second they began in
        time.sleep(0.02)
    with RunLog(tmp_path, "main", 1) as log:
        log.epoch(2, {"loss": 9.0})
        assert [event.step for event in board(tmp_path, "main").Scalars("loss")] == [1, 2]  # flushed
    assert [event.value for event in board(tmp_path, "main").Scalars("loss")] == [1.5, 9.0]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
def test_a_disk_that_is_full_is_one_line(tmp_path):
    """Files may not grow beyond a limit, which TensorBoard's own thread meets as well."""
    script = """
        import resource, sys
        from pathlib import Path
        from ssl_skeleton.cli import run_command
        from ssl_skeleton.training.log import RunLog

        def main(arguments):
            with RunLog(Path(arguments[0]), "main", 0) as log:
                resource.setrlimit(resource.RLIMIT_FSIZE, (int(arguments[1]), resource.RLIM_INFINITY))
                for epoch in range(1, 1000):
                    if arguments[2] == "much":
                        log.board.add_text("words", "x" * 5000, epoch)
                    log.epoch(epoch, {"loss": 1.0, "rate": 2.0})

        for most in (0, 30, 200, 20_000):
            for kind in ("little", "much"):
                print(most, kind, run_command(main, [f"{sys.argv[1]}/{most}-{kind}", str(most), kind]))
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    """
    for most in (0, 30, 200, 20_000):
        for kind in ("little", "much"):
            (tmp_path / f"{most}-{kind}").mkdir()
    found = child(script, tmp_path)
    assert found.returncode == 0, found.stderr
    assert [line.split()[-1] for line in found.stdout.splitlines()] == ["2"] * 8
    reason = f"{os.strerror(errno.EFBIG)}); larger files are not allowed here (ulimit -f)"
    errors = found.stderr.splitlines()
    assert len(errors) == 8, found.stderr
    for error, run in zip(errors, found.stdout.splitlines(), strict=True):
        folder = tmp_path / "-".join(run.split()[:2])
        assert error.startswith(f"error: {folder}/")
        assert error.endswith(f": cannot be written ({reason}; then go on with --resume")
    assert any("tensorboard" in error for error in errors)
    assert any("log.jsonl" in error for error in errors)


def full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_other_errors_are_not_hidden_by_a_board_that_cannot_be_closed(tmp_path, monkeypatch):
    log = RunLog(tmp_path, "main", 0)
    monkeypatch.setattr(log.board, "close", full)
    with pytest.raises(ZeroDivisionError), log:
        _ = 1 / 0
    with pytest.raises(UserError, match="No space left on device"), log:
        pass


def test_errors_of_other_threads_are_still_shown(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("ssl_skeleton.training.log._show_thread_error", seen.append)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # as it was, afterwards
    with RunLog(tmp_path, "main", 0) as log:
        log.epoch(1, {"loss": 1.0})
        other = threading.Thread(target=full)
        other.start()
        other.join()
    assert [args.exc_type for args in seen] == [OSError]
