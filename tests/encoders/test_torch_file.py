import collections
import io
import pickle
import resource
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from builders import one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ssl_skeleton.encoders.tensor_file import read_tensor_file
from ssl_skeleton.encoders.torch_file import read_torch
from ssl_skeleton.errors import UserError

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)
LITTLE = 64 * 2**20  # bytes that a refusal may take at most
both_kinds = pytest.mark.parametrize("archive", [True, False], ids=["archive", "legacy"])


def written(tree: object, path: Path, *, archive: bool = True) -> Path:
    torch.save(tree, path, _use_new_zipfile_serialization=archive)
    return path


def refusal(path: Path) -> str:
    """The one line that a file is refused with, soon and without much memory."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(UserError) as error:
        read_tensor_file(path)
    taken = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert taken < LITTLE
    assert time.perf_counter() - began < 10
    assert one_line(error.value).startswith(f"{path}: ")
    return str(error.value)


def same(one: object, other: object) -> bool:
    """Whether two trees of tensors and plain values are the same to the last bit, types and strides too."""
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and list(one) == list(other)
            and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        layouts = [(own.dtype, own.shape, own.stride() if own.numel() else 0) for own in (one, other)]
        return layouts[0] == layouts[1] and torch.equal(one, other)
    return type(one) is type(other) and one == other


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A tensor of any type and shape, perhaps one that lies scattered in a larger storage."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    values = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))) * 3
    tensor = values.to(draw(st.sampled_from(DTYPES)))
    change = draw(st.sampled_from(("none", "turned", "parts", "later")))
    if change == "turned":
        tensor = tensor.permute(list(reversed(range(tensor.dim()))))
    if change == "parts" and tensor.dim():
        tensor = tensor[..., ::2]
    if change == "later" and tensor.dim():
        tensor = tensor[1:]
    return tensor


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text()
    | tensors(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=4).map(collections.OrderedDict)
    ),
    max_leaves=12,
)


@both_kinds
@settings(max_examples=150, deadline=None)
@given(tree=trees)
def test_what_torch_saves_is_read_as_torch_loads_it(archive, tree, tmp_path_factory):
    path = written(tree, tmp_path_factory.getbasetemp() / "tree.pt", archive=archive)
    assert same(read_torch(path), torch.load(path, weights_only=True))


@both_kinds
def test_a_training_state_is_read_as_torch_loads_it(archive, tmp_path):
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(27, 2))
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.randn(4, 2, 5, 5)).sum().backward()
    optimiser.step()
    tree = {
        "state": module.state_dict(),
        "optimiser": optimiser.state_dict(),
        "raw": dict(module.named_parameters()),
    }
    path = written(tree, tmp_path / "tree.pt", archive=archive)
    found, expected = read_torch(path), torch.load(path, weights_only=True)
    assert same(found["optimiser"], expected["optimiser"])
    for part in ("state", "raw"):
        assert same(found[part], {name: tensor.detach() for name, tensor in expected[part].items()})


@both_kinds
def test_tensors_that_share_their_memory_still_do(archive, tmp_path):
    values = torch.arange(10.0)
    path = written({"whole": values, "same": values, "part": values[2:4]}, tmp_path / "a.pt", archive=archive)
    tree = read_torch(path)
    tree["whole"][2] = 77
    assert tree["same"][2] == tree["part"][0] == 77


def test_a_list_may_contain_itself(tmp_path):
    tree = []
    tree.append(tree)
    found = read_torch(written({"a": tree}, tmp_path / "a.pt"))["a"]
    assert found[0] is found


class Called:
    """Is pickled as a call."""

    def __init__(self, function: Callable, *arguments: object):
        self.what = (function, arguments)

    def __reduce__(self):
        return self.what


def twice_in_each(depth: int) -> tuple:
    """A tuple whose hash takes 2**depth steps."""
    value: tuple = ()
    for _ in range(depth):
        value = (value, value)
    return value


class Keyed(dict):
    """Is pickled as a dictionary with one odd key."""

    def __init__(self, key: object):
        super().__init__()
        self.key = key

    def __reduce__(self):
        return collections.OrderedDict, (), None, None, iter([(self.key, 1)])


BOMBS = {
    "tensor": Called(torch.Tensor, 2**33),
    "bytes": Called(bytearray, 2**33),
    "storage": Called(torch.FloatStorage, 2**33),
    "parameter": Called(nn.Parameter, Called(torch.Tensor, 2**33)),
    "counter": Called(collections.Counter, "x"),
    "hash": Keyed(twice_in_each(60)),
    "set": {1, 2},
    "sparse": torch.eye(3).to_sparse(),
    "meta": torch.ones(2**40, device="meta"),
    "sized": torch.Size([2]),
    "function": print,
}


@both_kinds
@pytest.mark.parametrize("bomb", BOMBS)
def test_what_is_no_plain_value_is_neither_called_nor_built(bomb, archive, tmp_path, capsys):
    refusal(written({"a": BOMBS[bomb]}, tmp_path / "a.pt", archive=archive))
    assert capsys.readouterr().out == ""


@both_kinds
def test_views_larger_than_their_storage(archive, tmp_path):
    for view in (torch.ones(1).expand(2**33), torch.ones(3, 1).expand(3, 2), torch.ones(1).expand([1] * 17)):
        line = refusal(written({"a": view}, tmp_path / "a.pt", archive=archive))
        assert "claims more than the file holds" in line or "17 dimensions" in line


def changed_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Change what an archive says of its tensors, and leave their values as they are."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in parts if name.endswith("/data.pkl"))
    assert old in parts[name]
    parts[name] = parts[name].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)


ONE, TWO = (
    b"cpuq\x06K\x05",
    b"K\x05\x85q\x08K\x01\x85",
)  # the count of a storage, the shape and strides of a tensor
A_BILLION = b"J\x00\xca\x9a\x3b"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({ONE: b"cpuq\x06K\x06"}, "tensor data 0 of 5 values claims 6"),
        ({ONE: b"cpuq\x06" + A_BILLION}, "tensor data 0 of 5 values claims 1000000000"),
        ({ONE: b"cpuq\x06K\x04"}, "tensor data 0 of 5 values claims 4"),
        ({ONE: b"cpuq\x06N"}, "no tensor"),
        ({TWO: b"K\x06\x85q\x08K\x01\x85"}, "a tensor of shape (6,) claims more"),
        ({TWO: b"K\x03\x85q\x08K\x03\x85"}, "a tensor of shape (3,) claims more"),
        ({TWO: A_BILLION + b"\x85q\x08K\x00\x85"}, "claims more"),
        ({TWO: b"J\xff\xff\xff\xff\x85q\x08K\x01\x85"}, "no list of counts"),
        ({TWO: b"K\x03\x85q\x08J\xff\xff\xff\xff\x85"}, "no list of counts"),
        ({TWO: b"K\x05\x85q\x08)"}, "1 dimensions and 0 strides"),
        ({TWO: b"N\x85q\x08K\x01\x85"}, "no list of counts"),
        ({b"FloatStorage": b"DoubleStorage"}, "values of torch.float64"),
        (
            {b"FloatStorage": b"UntypedStorage"},
            "it wants torch.UntypedStorage, and what could run code is not read",
        ),
        (
            {b"torch._utils\n_rebuild_tensor_v2": b"posix\nsystem"},
            "it wants posix.system, and what could run code",
        ),
        ({b"X\x01\x00\x00\x000": b"X\x01\x00\x00\x001"}, "damaged or no file of tensors"),
    ],
)
def test_a_tensor_that_is_not_what_it_claims(changes, message, tmp_path):
    path = written({"a": torch.ones(5)}, tmp_path / "a.pt")
    for old, new in changes.items():
        changed_pickle(path, old, new)
    assert message in refusal(path)


def test_an_archive_of_another_order_of_bytes(tmp_path):
    path = written({"a": torch.ones(5)}, tmp_path / "a.pt")
    path.write_bytes(path.read_bytes().replace(b"little", b"big   "))
    assert "Bad CRC-32" in refusal(path)
    content = io.BytesIO()
    with zipfile.ZipFile(written({"a": torch.ones(5)}, path)) as old, zipfile.ZipFile(content, "w") as new:
        for name in old.namelist():
            new.writestr(name, b"big" if name.endswith("/byteorder") else old.read(name))
    path.write_bytes(content.getvalue())
    assert "another order of bytes" in refusal(path)


def test_legacy_storages_that_claim_more_than_the_file(tmp_path):
    path = written({"a": torch.ones(5)}, tmp_path / "a.pt", archive=False)
    content = path.read_bytes()
    assert content.count(ONE) == 1
    for count in (b"M\xff\xff", A_BILLION, b"\x8a\x08" + b"\xff" * 7 + b"\x7f"):
        path.write_bytes(content.replace(ONE, b"cpuq\x06" + count))
        assert "claims more than the file holds" in refusal(path)
    path.write_bytes(content[:-1])
    assert "not all there" in refusal(path)


@both_kinds
def test_deep_and_wide_trees_end_well(archive, tmp_path):
    deep = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    wide = b"\x80\x02}(" + b"".join(b"J" + n.to_bytes(4, "little") + b"N" for n in range(200_000)) + b"u."
    path = tmp_path / "a.pt"
    for pickled in (deep, wide):
        if archive:
            with zipfile.ZipFile(path, "w") as file:
                file.writestr("a/data.pkl", pickled)
        else:
            start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
            path.write_bytes(start + pickled + pickle.dumps([], 2))
        tree = read_torch(path)
        assert len(tree) == (1 if pickled is deep else 200_000)


def test_a_pickle_of_more_parts_than_any_checkpoint(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + b"N0" * 2**20 + b".")
    assert "POP makes no plain value" in refusal(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02(" + b"N\x85" * 10 + b")" * 2**20 + b".")
    with pytest.raises(UserError, match="more parts than any checkpoint"):
        read_tensor_file(path)


@pytest.fixture(scope="module", params=[True, False], ids=["archive", "legacy"])
def whole(request, tmp_path_factory) -> Path:
    tree = {"a": torch.arange(6.0), "b": [torch.ones(2, dtype=torch.int64), {"c": 1.5, 3: "text"}]}
    return written(tree, tmp_path_factory.mktemp("whole") / "a.pt", archive=request.param)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_flipped_bytes_end_in_one_line_or_in_plain_values(data, whole):
    content = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = whole.with_name("changed.pt")
    path.write_bytes(content)
    with suppress(UserError):
        read_tensor_file(path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_other_operations_end_in_one_line_or_in_plain_values(data, whole):
    """An archive has sums of its bytes: here the pickle in it is changed, and they are right again."""
    if not zipfile.is_zipfile(whole):
        return
    with zipfile.ZipFile(whole) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        pickled = bytearray(archive.read(name))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(pickled) - 1))
        piece = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"R", b"Q", b"(", b"t", b"u", b"b", b"h\x02", b"0"])
        )
        pickled[place : place + data.draw(st.integers(0, 3))] = piece
    path = whole.with_name("changed.pt")
    path.write_bytes(whole.read_bytes())
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for member in old.namelist():
            new.writestr(member, bytes(pickled) if member == name else old.read(member))
    with suppress(UserError):
        read_tensor_file(path)
