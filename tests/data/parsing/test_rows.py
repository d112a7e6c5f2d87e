import re

import numpy as np
import pytest
from builders import damages
from hypothesis import given
from hypothesis import strategies as st

from ssl_skeleton.data.parsing.rows import decimals, frame_order, number_rows, seen_tracks, text_lines
from ssl_skeleton.errors import DamagedClip

numbers = st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6)


@given(st.lists(st.lists(numbers, min_size=3, max_size=3)), st.sampled_from([" ", ",", ", ", "\t", "  "]))
def test_reads_what_was_written(rows, between):
    lines = [between.join(map(repr, row)).encode() for row in rows]
    spaced = [piece for line in lines for piece in (b" " + line + b" ", b"", b"  ")]
    found = number_rows(spaced, 3)
    assert found.shape == (len(rows), 3)
    assert np.array_equal(found, np.array(rows, np.float64).reshape(-1, 3))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"1 2", "line 12: 2 values, not 3"),
        (b"1 2 3 4", "line 12: 4 values, not 3"),
        (b"1,,2", "line 12: 2 values, not 3"),
        (b"1 2 nan", "line 12: 'nan' is no number"),
        (b"1 -inf 2", "line 12: '-inf' is no number"),
        (b"1 1_0 2", "line 12: '1_0' is no number"),
        (b"1 0x10 2", "line 12: '0x10' is no number"),
        (b"1 2 1e999", "line 12: '1e999' is no number"),
        (b"1 2 1000001", "line 12: '1000001' is no number within 1000000"),
        (b"1 2 1.2.3", "line 12: '1.2.3' is no number"),
        (b"1 2 -", "line 12: '-' is no number"),
        (b"1 2 \xff\xfe", r"line 12: '\\xff\\xfe' is no number"),
        (b"1 2 \x00", r"line 12: '\x00' is no number"),
        (b"1 2 " + b"3" * 200, "line 12: 204 characters are too many for 3 numbers"),
    ],
)
def test_what_is_wrong_and_where(line, message):
    with pytest.raises(DamagedClip, match="^" + re.escape(message)):
        number_rows([b"1 2 3", b"", line, b"4 5 6"], 3, first_line=10)


@given(st.lists(numbers, min_size=1))
def test_decimals(values):
    assert decimals([repr(value).encode() for value in values], 1) == values


@pytest.mark.parametrize(
    "wrong", ["nan", "inf", "1_0", "0x10", "1e999", "-1000001", "1,2", "-", "\\xc3\\xa9", "1" * 60]
)
def test_the_first_of_several_that_is_no_number(wrong):
    word = wrong.encode().replace(rb"\xc3\xa9", "é".encode())
    with pytest.raises(DamagedClip, match=re.escape(f"line 7: {wrong[:40]!r} is no number within 1000000")):
        decimals([b"1", b"-2.5e3", word, b"also wrong"], 7)


@given(st.lists(st.sampled_from([b"a", b"", b"\xef\xbb\xbf"])))
def test_a_byte_order_mark_is_passed_over_once(lines):
    text = b"".join(line + b"\n" for line in lines)
    assert text_lines(b"\xef\xbb\xbf" + text) == lines


@pytest.mark.parametrize("lines", [[], [b""], [b" ", b"\t"], [b",", b" , ,"], [b"\x0b"]])
def test_no_numbers_at_all(lines):
    assert number_rows(lines, 3).shape == (0, 3)


@given(st.binary(max_size=60) | damages(b"1 2 3\n-4.5 6e-3 7\n0 0 0\n"))
def test_anything_is_read_or_refused(data):
    try:
        rows = number_rows(data.splitlines(), 3)
    except DamagedClip:
        return
    lines = [line.replace(b",", b" ").strip() for line in data.splitlines()]
    assert rows.shape == (sum(map(bool, lines)), 3)


@given(st.lists(st.integers(-5, 5)))
def test_frames_in_the_order_of_their_numbers(frames):
    order = frame_order(np.array(frames, np.float64))
    assert [(frames[row], row) for row in order] == sorted((t, frames.index(t)) for t in set(frames))


@pytest.mark.parametrize("value", [1001.0, -2000.0, np.nan, np.inf])
def test_coordinates_lie_within_a_kilometre(value):
    bodies = np.zeros((2, 4, 5, 3), np.float32)
    bodies[1, 2, 3, 1] = value
    with pytest.raises(DamagedClip, match=f"body 2: frame 2, joint 3: coordinate y is {value}"):
        seen_tracks(bodies)


def test_a_frame_number_is_whole():
    with pytest.raises(DamagedClip, match=r"row 2: 1\.5 is no frame number"):
        frame_order(np.array([1, 1.5]))


@given(st.lists(st.booleans(), max_size=6))
def test_a_track_runs_from_the_first_to_the_last_sight(seen):
    x_tvc = np.array(seen, np.float32).reshape(-1, 1, 1) * np.ones((1, 2, 3), np.float32)
    tracks = seen_tracks([x_tvc, np.zeros((4, 2, 3), np.float32)])
    assert len(tracks) == any(seen)
    for track in tracks:
        first, last = seen.index(True), len(seen) - 1 - seen[::-1].index(True)
        assert track.first_frame == first
        assert np.array_equal(track.x_tvc, x_tvc[first : last + 1])
