import pytest
import torch
from builders import seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from ssl_skeleton.data.views.augment import AugmentConfig, draw_window
from ssl_skeleton.data.views.draws import Draws

shapes = st.lists(st.integers(1, 4), max_size=3)
kinds = st.lists(st.sampled_from(["uniform", "normal"]), min_size=1, max_size=4)


def source(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def drawn(draws: Draws, kinds: list[str], shape: list[int]) -> list[Tensor]:
    return [getattr(draws, kind)(*shape) for kind in kinds]


def parts(clips: int, ranks: int) -> list[slice]:
    return [slice(rank * clips // ranks, (rank + 1) * clips // ranks) for rank in range(ranks)]


@given(seeds, st.integers(1, 40), kinds, shapes)
@settings(max_examples=40, deadline=None)
def test_numbers_are_those_that_torch_draws(seed, clips, kinds, shape):
    generator = source(seed)
    draw = {"uniform": torch.rand, "normal": torch.randn}
    wanted = [draw[kind](clips, *shape, generator=generator) for kind in kinds]
    for found, expected in zip(drawn(Draws(source(seed), clips), kinds, shape), wanted, strict=True):
        assert torch.equal(found, expected)


@given(seeds, st.integers(1, 20), st.integers(1, 5), kinds, shapes)
@settings(max_examples=40, deadline=None)
def test_every_clip_meets_its_numbers_on_whichever_rank_it_is(seed, clips, ranks, kinds, shape):
    whole, alone = Draws(source(seed), clips), source(seed)
    wanted = drawn(whole, kinds, shape)
    shares = [drawn(Draws(source(seed), clips, mine), kinds, shape) for mine in parts(clips, ranks)]
    for together, expected in zip(zip(*shares, strict=True), wanted, strict=True):
        assert torch.equal(torch.cat(together), expected)
    one = Draws(alone, clips, slice(0, 0))
    drawn(one, kinds, shape)
    again = source(seed)
    drawn(Draws(again, clips), kinds, shape)
    assert torch.equal(alone.get_state(), again.get_state())


@given(seeds, st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 3), kinds, shapes)
@settings(max_examples=40, deadline=None)
def test_joined_batches_keep_their_numbers(seed, sizes, ranks, kinds, shape):
    for rank in range(ranks):
        each = [Draws(source(seed + n), size, parts(size, ranks)[rank]) for n, size in enumerate(sizes)]
        wanted = [torch.cat(part) for part in zip(*(drawn(one, kinds, shape) for one in each), strict=True)]
        again = [Draws(source(seed + n), size, parts(size, ranks)[rank]) for n, size in enumerate(sizes)]
        joined = Draws.joined(again)
        for found, expected in zip(drawn(joined, kinds, shape), wanted, strict=True):
            assert torch.equal(found, expected)
        clips = torch.arange(sum(sizes)).split(sizes)
        mine = torch.cat([some[parts(len(some), ranks)[rank]] for some in clips])
        assert torch.equal(torch.arange(sum(sizes))[joined.mine], mine)


@pytest.mark.parametrize("mine", [slice(0, 3), slice(3, 7)])
def test_what_depends_on_the_whole_batch_is_drawn_for_all_clips(mine):
    change = AugmentConfig(crop=0.3)
    start, share = torch.rand(2, 7, generator=source(0))
    window = draw_window(change, Draws(source(0), 7, mine))
    assert torch.equal(window, torch.stack([start, 0.3 + 0.7 * share], dim=1))
