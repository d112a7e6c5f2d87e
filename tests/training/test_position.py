import pytest

from ssl_skeleton.training import position
from ssl_skeleton.training.position import Pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(position.time, "perf_counter", lambda: now[0])
    return now


def test_the_epoch_at_hand_and_the_last_steps_have_their_own_pace(clock):
    pace = Pace(1000)
    assert (pace.recent, pace.seconds_left) == (0, 0)
    for seconds in (30, 1, 1, 1):  # the first one is slow
        clock[0] += seconds
        pace.add(10)
    assert pace.seconds == 33
    assert pace.clips_per_second == pytest.approx(40 / 33)
    assert pace.recent == pytest.approx(40 / 33)
    clock[0] += 7  # between two epochs
    pace.begin_epoch()
    for _ in range(10):
        clock[0] += 1
        pace.add(10)
    assert (pace.seconds, pace.clips_per_second) == (10, 10)
    assert pace.recent == pytest.approx(140 / 50)
    assert pace.seconds_left == pytest.approx(860 / (140 / 50))
    for _ in range(50):
        clock[0] += 0.5
        pace.add(10)
    assert pace.recent == pytest.approx(20)
    assert pace.seconds_left == pytest.approx(360 / 20)
    clock[0] += 60  # what is done after the last step slows no step
    assert pace.recent == pytest.approx(20)
