import io
import pickle
import zipfile

import pytest
import torch

from ssl_skeleton.encoders.tensor_file import check_tensors, read_tensor_file, write_tensor_file
from ssl_skeleton.errors import UserError


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        check_tensors(read_tensor_file(path), path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", [".safetensors", ".pt"])
def test_what_was_written_is_read(kind, tmp_path):
    path = tmp_path / f"a{kind}"
    tensors = {"a": torch.randn(3, 4).t(), "b": torch.tensor(7), "c": torch.arange(6)[::2]}
    write_tensor_file(path, tensors, {"what": "\u00fcber 'it'\n"})
    tree = read_tensor_file(path)
    assert tree.pop("metadata") == {"what": "\u00fcber 'it'\n"}
    assert tree.keys() == tensors.keys()
    assert all(torch.equal(tree[name], tensors[name]) for name in tensors)
    assert check_tensors(tree, path) == tree


class Harmful:
    def __reduce__(self):
        return print, ("this ran",)


def test_code_is_not_run(tmp_path, capsys):
    path = tmp_path / "harmful.pt"
    torch.save({"a": Harmful()}, path)
    assert "and what could run code is not read" in refusal(path)
    path.write_bytes(pickle.dumps({"a": Harmful()}, protocol=2))
    refusal(path)
    assert "this ran" not in capsys.readouterr().out


def test_what_is_no_plain_tensor(tmp_path):
    path = tmp_path / "a.pt"
    for tree in ({"a": [1.0]}, {"a": {"b": torch.ones(2)}}, {7: torch.ones(2)}, {"a": None}):
        torch.save(tree, path)
        assert f"'{next(iter(tree))}' is no plain tensor" in refusal(path)


@pytest.mark.parametrize("tree", [[torch.ones(2)], torch.ones(2), None])
def test_a_file_without_names(tree, tmp_path):
    torch.save(tree, tmp_path / "a.pt")
    assert "holds no tensors by name" in refusal(tmp_path / "a.pt")


def test_many_names_of_one_value_claim_more_than_the_file_holds(tmp_path):
    path, value = tmp_path / "a.pt", torch.ones(1000)
    torch.save({f"{number}": value for number in range(1000)}, path)
    assert "claims more than the file holds" in refusal(path)


def rewritten(content: bytes, compression=zipfile.ZIP_STORED, **more: bytes) -> bytes:
    """What torch.save wrote, as Python writes archives, with more files in it."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(written, "w", compression) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
        for name, value in more.items():
            new.writestr(f"archive/data/{name}", value)
    return written.getvalue()


def saved(values: int) -> bytes:
    content = io.BytesIO()
    torch.save({"a": torch.full((values,), float(values))}, content)
    return rewritten(content.getvalue())


@pytest.mark.parametrize("size", [0, 10**6])
def test_a_compressed_file_is_not_unpacked(size, tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(rewritten(saved(3), zipfile.ZIP_DEFLATED, more=bytes(size)))
    assert "is compressed" in refusal(path)


def test_parts_that_lie_over_each_other_are_not_read(tmp_path):
    """Many names for the same bytes."""
    content = rewritten(saved(3), more=bytes(10**4))
    start = zipfile.ZipFile(io.BytesIO(content)).start_dir
    entries = content[start:-22]
    last = entries[entries.rindex(b"PK\x01\x02") :]
    end = bytearray(content[-22:])
    count = int.from_bytes(end[8:10], "little") + 500
    end[8:12] = count.to_bytes(2, "little") * 2
    end[12:16] = (len(entries) + 500 * len(last)).to_bytes(4, "little")
    path = tmp_path / "a.pt"
    path.write_bytes(content[:start] + entries + 500 * last + end)
    assert "is compressed" in refusal(path)


def two_faced(shown: bytes, hidden: bytes) -> bytes:
    """An archive in which Python finds `shown`, and who trusts the place that is written in it `hidden`."""
    starts = [zipfile.ZipFile(io.BytesIO(content)).start_dir for content in (shown, hidden)]
    members, hidden_members = shown[: starts[0]], hidden[: starts[1]]
    directory, hidden_directory = bytearray(shown[starts[0] : -22]), hidden[starts[1] : -22]
    assert len(directory) == len(hidden_directory)  # since they have the same names
    entry = 0
    while entry < len(directory):
        place = int.from_bytes(directory[entry + 42 : entry + 46], "little")
        place += len(hidden_members) - len(members)
        directory[entry + 42 : entry + 46] = place.to_bytes(4, "little")
        entry += 46 + int.from_bytes(directory[entry + 28 : entry + 30], "little")
    return hidden_members + hidden_directory + members + bytes(directory) + hidden[-22:]


def test_an_archive_that_two_readers_see_differently(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(two_faced(saved(3), saved(999)))
    assert len(torch.load(path, weights_only=True)["a"]) == 999
    assert len(read_tensor_file(path)["a"]) == 3  # what was checked


def test_a_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "a.pt")
    assert "is no file" in refusal(tmp_path)
