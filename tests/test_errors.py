import pytest
from builders import one_line

from ssl_skeleton.errors import DamagedClip, UserError, nearest

each_kind = pytest.mark.parametrize("kind", [UserError, DamagedClip])


@each_kind
def test_a_message_is_one_line(kind):
    assert one_line(kind("a\nb\r\nc\u2028d")) == "a b c d"


@each_kind
def test_what_strangers_wrote_cannot_steer_a_terminal(kind):
    assert one_line(kind("a\x1b[2J\x07\x9b1m\tGr\u00f6\u00dfe \udcff")) == "a?[2J??1m?Gr\u00f6\u00dfe \udcff"


@each_kind
def test_what_strangers_wrote_cannot_fill_it(kind):
    line = one_line(kind("begin " + "x" * 10**6 + " end"))
    assert len(line) < 2100
    assert line.startswith("begin x")
    assert line.endswith("x end")


def test_the_nearest_name_is_named():
    assert nearest("Lossw", ["loss", "seed"]) == "did you mean 'loss'?"
    assert nearest("x", ["loss", "seed"]) == "choose one of loss, seed"
    assert nearest("x", map(str, range(5000))).endswith("1030, 1031, 1032, ... (5000 in all)")
    assert nearest("x", []) == "there is none to choose"
