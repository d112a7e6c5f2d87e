"""The loops over frames, as TorchScript runs them, against Python; and the threads that share directions."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ssl_skeleton
from ssl_skeleton.encoders.gru_walk import _workers, advance, each_direction, retreat

some_sizes = st.lists(st.integers(1, 5), min_size=1, max_size=6).map(
    lambda sizes: sorted(sizes, reverse=True)
)


def begun(sizes: list[int], size: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """Gates, states of which the first rows are there, and weights, of two directions."""
    torch.manual_seed(seed)
    gates = torch.randn(2, sum(sizes), 4 * size).to(dtype)
    states = torch.full((2, sizes[0] + sum(sizes), size), torch.nan).to(dtype)
    states[:, : sizes[0]] = 0
    return [gates, states, torch.randn(2, size, 3 * size).to(dtype)]


def walked(way: str, sizes: list[int], size: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """What both loops fill."""
    wide = torch.promote_types(dtype, torch.float32)
    gates, states, hidden = begun(sizes, size, dtype, seed)
    slopes = torch.randn(2, sum(sizes), size).to(dtype)
    found = [torch.empty_like(gates), torch.empty(2, len(sizes), 4 * size, dtype=wide)]
    found.append(torch.zeros(2, sizes[0], 3 * size, dtype=wide))
    forth = (gates, states, hidden)
    back = (slopes, gates, states, hidden.mT.contiguous(), *found)
    if way == "python":
        for d in range(2):
            advance(*(x[d] for x in forth), sizes, wide)
            retreat(*(x[d] for x in back), sizes, wide)
    else:
        each_direction(advance, *forth, sizes, wide)
        each_direction(retreat, *back, sizes, wide)
    return [gates, states, *found]


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@settings(max_examples=examples(30), deadline=None)
@given(
    sizes=some_sizes,
    size=st.integers(1, 4),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_they_do_what_python_does(sizes, size, dtype, seed):
    each = [walked(way, sizes, size, dtype, seed) for way in ("python", "script")]
    for expected, found in zip(*each, strict=True):
        assert not expected.isnan().any()
        assert torch.equal(found, expected)


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_nothing(threads, dtype):
    torch.set_num_threads(1)
    expected = walked("script", [5, 5, 4, 2], 3, dtype)
    torch.set_num_threads(threads)
    for _ in range(5):
        for one, other in zip(walked("script", [5, 5, 4, 2], 3, dtype), expected, strict=True):
            assert torch.equal(one, other)
    assert torch.get_num_threads() == threads


@pytest.mark.usefixtures("_threads")
def test_threads_that_begin_later_have_as_many():
    """A worker that began after the others would set what they have."""
    torch.set_num_threads(2)
    for _ in range(10):
        _workers.cache_clear()
        walked("script", [3, 2], 2, torch.float32)
        with ThreadPoolExecutor(1) as other:
            assert other.submit(torch.get_num_threads).result() == 2


@pytest.mark.usefixtures("_threads")
def test_what_a_direction_meets_is_told():
    torch.set_num_threads(2)
    gates, states, hidden = begun([2, 2], 3, torch.float32)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        each_direction(advance, gates, states, hidden[:, :2], [2, 2], torch.float32)


FORKED = """
import os, sys
sys.path[:0] = {paths}
import torch
from test_gru_walk import walked
torch.set_num_threads(2)
before = walked("script", [3, 2], 2, torch.float32)
child = os.fork()
found = walked("script", [3, 2], 2, torch.float32)
same = all(map(torch.equal, before, found))
if not child:
    os._exit(0 if same else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert same
"""


def test_a_fork_has_workers_of_its_own():
    script = FORKED.format(paths=[str(Path(__file__).parent), *sys.path])
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=60)  # noqa: S603


@pytest.mark.parametrize(("before", "after"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_idle_threads_give_way_soon(before, after):
    """It is said before torch is loaded, unless somebody said otherwise."""
    script = "import os, ssl_skeleton; print(os.environ['GOMP_SPINCOUNT'])"
    path = {"PYTHONPATH": str(Path(ssl_skeleton.__file__).parents[1])}
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=path | before, capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.strip() == after
