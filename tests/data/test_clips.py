import torch
from builders import LAYOUT, moving, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.data.clips import Clips, body_mask


def parts_of(clips: Clips) -> tuple[torch.Tensor, ...]:
    return clips.x, clips.lengths, clips.index, clips.label, clips.seen


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
def test_clips_are_split_and_nothing_is_lost(sizes):
    clips = moving(clips=max(1, sum(sizes)))
    found = clips.split(sizes)
    assert [len(part) for part in found] == sizes
    for whole, *parts in zip(parts_of(clips), *map(parts_of, found), strict=True):
        assert torch.equal(torch.cat(parts), whole[: sum(sizes)])


@given(seeds, st.integers(1, 6), st.integers(0, 6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_is_unseen_is_cleared_and_nothing_else(seed, clips, holed, whole):
    """However many of the clips have holes, it is the same as multiplying all of them."""
    source = torch.Generator().manual_seed(seed)
    seen = torch.ones(clips, 1, 3, 1 if whole else len(LAYOUT.joints), 2, dtype=torch.bool)
    seen[:holed] = torch.rand(seen[:holed].shape, generator=source) < 0.5
    x_nctvm = torch.randn(clips, 3, 3, len(LAYOUT.joints), 2, generator=source)
    numbers = torch.arange(clips)
    found = Clips(x_nctvm * seen, torch.full_like(numbers, 3), numbers, numbers, seen)
    unseen = [n for n in range(clips) if not seen[n].all()]
    assert found.holed.tolist() == unseen
    assert found.full is (not unseen)
    assert torch.equal(found.clear_(x_nctvm.clone()), x_nctvm * seen)
    assert found.with_x(x_nctvm).holed.tolist() == unseen


def test_what_is_seen_is_told_from_the_coordinates_where_nothing_says_it():
    clips = moving()
    assert torch.equal(clips.seen, body_mask(clips.x))
    assert torch.equal(clips.with_x(torch.zeros_like(clips.x)).seen, clips.seen)
