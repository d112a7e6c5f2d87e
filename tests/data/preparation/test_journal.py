import pytest
from builders import damages, examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.preparation.journal import Journal

ENTRIES = [{"done": 1, "lines": [["é,\n", 3]]}, {"done": 2}, {"done": 3, "rows": 10**12}]


@pytest.fixture
def path(tmp_path):
    """A journal of three lines."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, "key")
    assert journal.entries == []
    assert journal.last == {}
    for entry in ENTRIES:
        journal.append(entry)
    return path


def test_the_next_one_knows_what_was_told(path):
    for _ in range(2):
        journal = Journal(path, "key")
        assert journal.entries == ENTRIES
        assert journal.last == ENTRIES[-1]
    journal.append({"done": 4})
    assert Journal(path, "key").last == {"done": 4}


def test_another_key_counts_as_none_and_what_was_told_is_forgotten(path):
    assert Journal(path, "other").entries == []
    assert Journal(path, "key").entries == []


def test_to_clear_forgets_all_but_the_key(path):
    journal = Journal(path, "key")
    journal.clear()
    assert (journal.entries, journal.last) == ([], {})
    journal.append({"done": 7})
    assert Journal(path, "key").entries == [{"done": 7}]


def test_to_remove_leaves_no_file(path):
    Journal(path, "key").remove()
    assert list(path.parent.iterdir()) == []


def test_a_journal_that_is_cut_anywhere_knows_the_lines_before_and_goes_on(path):
    data = path.read_bytes()
    for end in range(0, len(data), 3):
        path.write_bytes(data[:end])
        whole = ENTRIES[: data[:end].count(b"\n")]
        journal = Journal(path, "key")
        assert journal.entries == whole
        journal.append({"done": "more"})
        assert Journal(path, "key").entries == [*whole, {"done": "more"}]


@given(st.data())
@settings(
    max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_journal_tells_nothing_that_was_not_told(path, data):
    path.unlink(missing_ok=True)
    journal = Journal(path, "key")
    told = [{"done": number, "rows": 1000 + number} for number in range(5)]
    for entry in told:
        journal.append(entry)
    path.write_bytes(data.draw(damages(path.read_bytes())))
    found = Journal(path, "key").entries
    assert found == told[: len(found)]


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"\xff\n", b"[" * 100_000 + b"\n", b"1\n2\n", b"null\n", b'"key"\n3\n']
)
def test_what_is_no_journal_counts_as_none(tmp_path, data):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(data)
    assert Journal(path, "key").entries == []
