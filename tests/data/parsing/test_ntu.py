import re

import numpy as np
import pytest
from builders import damages, one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from ntu_files import clip_of, person, plain_read, skeleton_text

from ssl_skeleton.data.parsing import ntu
from ssl_skeleton.data.parsing.ntu import parse_bodies
from ssl_skeleton.errors import DamagedClip

ID = "72057594037944738"
NEIGHBOUR = "72057594037944739"  # the same number in float64
SMALL = skeleton_text(clip_of({ID: (0, person(2)), NEIGHBOUR: (1, person(1))}, 2))
TAIL = " 4 nan -inf 7 8 9 10 11 2"


def text_of_values(values, frames: int, ending: str = "\n", gap: str = " ") -> str:
    """A file of one body whose coordinates are written as `values`, again from the first when they end."""
    place = iter(range(frames * 75))
    lines = [str(frames)]
    for _ in range(frames):
        lines += ["1", f"{ID} 0 1 1 0 1 0 0.02 -0.1 2", "25"]
        lines += [
            " ".join(values[next(place) % len(values)] for _ in range(3)) + TAIL.replace(" ", gap)
            for _ in range(25)
        ]
    return ending.join([*lines, ""])


def quick(data: bytes):
    """What the quick route reads, None when it declines."""
    try:
        return ntu._read_regular(data)
    except ntu._Irregular:
        return None


def agree(data: bytes) -> bool:
    """Whether the quick route took a file; if so, the plain route must have read the very same."""
    found = quick(data)
    if found is None:
        return False
    wanted = ntu._read_lines(data)
    assert found.x_rvc.dtype == wanted.x_rvc.dtype == np.float32
    assert found.x_rvc.tobytes() == wanted.x_rvc.tobytes()
    assert np.array_equal(found.frames, wanted.frames)
    assert [body.decode() for body in found.ids] == list(wanted.ids)
    return True


ODD = ["0", "-0", "-0.0", "1.", ".5", "-.5", "+1.5", "00.25", "12.5", "-123.456", "1e-05", "9.313226E-05"]
ODD += ["0.12345678", "0.123456789", "0.12345678901234", "0.123456789012345", "0.1234567890123456789"]
ODD += ["9.99999999999999", "1e-300", "-1e-46", "999.99999", "1000", "1000.00000001", "0.00000000", "5e2"]
JUNK = [
    "nan",
    "inf",
    "-",
    "--1.5",
    "1.2.3",
    "1_0",
    "1.5_0",
    "0x1F",
    "1e999",
    "4000",
    "1.5f",
    "0.1/2",
    "0.:5",
    "",
]
numbers = st.floats(-1000, 1000, width=32)
written = st.one_of(
    numbers.map("{:.7g}".format),
    numbers.map("{:.9g}".format),
    numbers.map("{:.7e}".format),
    numbers.map(repr),
    st.floats(-10, 10).map(repr),
    st.tuples(st.floats(-10, 10), st.integers(1, 16)).map(lambda pair: f"{pair[0]:.{pair[1]}f}"),
    st.sampled_from(ODD),
)


@given(values=st.lists(written, min_size=1, max_size=75), frames=st.integers(1, 2))
@settings(max_examples=200, deadline=None)
def test_every_number_is_read_to_the_bit(values, frames):
    data = text_of_values(values, frames).encode()
    wanted = np.array([np.float32(float(values[i % len(values)])) for i in range(frames * 75)])
    if not wanted.any():
        assert parse_bodies(data) == []
        return
    x_rvc = ntu._read_lines(data).x_rvc
    assert x_rvc.tobytes() == wanted.tobytes()
    assert agree(data)


@given(
    values=st.lists(written | st.sampled_from(JUNK), min_size=1, max_size=30),
    ending=st.sampled_from(["\n", "\r\n", " \n", "  \r\n", "\r", "\n\n", "\n ", "\x0b", "\x1c\n"]),
    gap=st.sampled_from([" ", "  ", "\t", " \t", "\x1f", "\r", "\0 ", " \x0b"]),
)
@settings(max_examples=200, deadline=None)
def test_the_quick_route_reads_the_same_or_declines(values, ending, gap):
    agree(text_of_values(values, 1, ending, gap).encode())


@given(data=damages(SMALL.encode()))
@settings(max_examples=400, deadline=None)
def test_damage_is_read_the_same_or_named_with_its_line(data):
    agree(data)
    try:
        bodies = parse_bodies(data)
    except DamagedClip as error:
        message = one_line(error)
    else:
        for body in bodies:
            assert (np.diff(body.frames) > 0).all()
            assert body.x_tvc.shape == (len(body.frames), 25, 3)
        return
    assert re.match(r"line \d+: ", message)


@given(data=damages(SMALL.replace("\n", "\r\n").encode()))
@settings(max_examples=200, deadline=None)
def test_damage_to_a_file_with_other_line_ends(data):
    agree(data)


@pytest.mark.parametrize(
    "text",
    [
        SMALL,
        SMALL[:-1],
        SMALL.replace("\n", "\r\n"),
        SMALL.replace("\n", " \n"),
        SMALL.replace(" ", "  "),
        skeleton_text([]),
        skeleton_text([[], [], []]),
        text_of_values(["1e-05", "0", "12.5"], 3),
    ],
)
def test_good_files_take_the_quick_route(text):
    assert agree(text.encode())


@st.composite
def sightings(draw):
    """Up to eight frames in which three bodies come and go, in any order; at times one is all zero."""
    shown = st.lists(st.sampled_from([ID, NEIGHBOUR, "7"]), unique=True)
    frames = []
    for t in range(draw(st.integers(0, 8))):
        zero = draw(st.booleans())
        bodies = [(body, person(1, 10 * t + i)[0]) for i, body in enumerate(draw(shown))]
        frames.append([(body, x_vc * (not zero or i > 0)) for i, (body, x_vc) in enumerate(bodies)])
    return frames


@given(frames=sightings(), ending=st.sampled_from(["\n", "\r\n", " \n", "\r"]))
@settings(max_examples=100, deadline=None)
def test_bodies_are_those_of_a_plain_reader(tmp_path_factory, frames, ending):
    path = tmp_path_factory.getbasetemp() / "plain.skeleton"
    path.write_text(skeleton_text(frames).replace("\n", ending), newline="")
    plain = plain_read(path)
    first_seen = [
        body for body in dict.fromkeys(body for frame in frames for body, _ in frame) if body in plain
    ]
    found = parse_bodies(path.read_bytes())
    assert len(found) == len(first_seen)
    for body, name in zip(found, first_seen, strict=True):
        assert body.frames.dtype == np.int64
        assert body.frames.tolist() == list(plain[name])
        assert body.x_tvc.dtype == np.float32
        assert np.array_equal(body.x_tvc, list(plain[name].values()))


def with_line(number: int, text: str) -> bytes:
    lines = SMALL.splitlines()
    lines[number - 1] = text
    return ("\n".join(lines) + "\n").encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "line 1: the file ends where the number of frames should stand"),
        (b"20001\n", "line 1: the number of frames is '20001', not 0 to 20000"),
        (b"1\n7\n", "line 2: the number of bodies is '7', not 0 to 6"),
        (SMALL.encode() + b"\n0\n", "line 86: more text follows the last frame"),
        (SMALL.encode().replace(b"\n", b"\r\n") + b"0", "line 85: more text follows the last frame"),
        (with_line(7, "1 \xff 3"), "line 7: byte 0xc3 is no ASCII text"),
        (with_line(3, f"{ID} 0 1 1"), "line 3: not a body's id and 9 states"),
        (with_line(4, "24"), "line 4: the number of joints is not 25"),
        (with_line(58, f"{ID} 0 1 1 0 1 0 0.02 -0.1 2"), f"line 58: body {ID} stands twice in frame 1"),
        (with_line(7, "1 2 3 4" + TAIL), "line 7: 13 values, not 12"),
        (with_line(7, "1 2.5x 3" + TAIL), "line 7: '1 2.5x 3 4 nan -inf 7 8 9 10 11 2' are not 12 numbers"),
        (with_line(7, "1 2 3" + TAIL[:-1] + "x"), "are not 12 numbers"),
        (with_line(29, "1 -4000.5 3" + TAIL), "line 29: coordinate y is -4000.5"),
        (with_line(29, "1 2 nan" + TAIL), "line 29: coordinate z is nan"),
    ],
)
def test_what_is_wrong_and_where(data, message):
    with pytest.raises(DamagedClip, match=re.escape(message)):
        parse_bodies(data)


def test_a_file_of_any_size_is_not_read(monkeypatch):
    monkeypatch.setattr(ntu, "MAX_BYTES", len(SMALL))
    assert len(parse_bodies(SMALL.encode())) == 2
    with pytest.raises(DamagedClip, match="bytes are more than"):
        parse_bodies(SMALL.encode() + b"\n")
