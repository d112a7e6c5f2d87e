import torch
from builders import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton.encoders.frame_rows import FrameRows

some_lengths = st.lists(st.integers(1, 6), min_size=1, max_size=5)


def rows_by_loops(lengths, frames) -> tuple[list[int], list[int], list[list[int]]]:
    """How many clips each frame has, which clip comes when, and the frames of all rows in both directions."""
    order = sorted(range(len(lengths)), key=lambda clip: -lengths[clip])
    sizes, forwards, backwards = [], [], []
    for frame in range(max(lengths)):
        there = [clip for clip in order if frame < lengths[clip]]
        sizes.append(len(there))
        forwards += [clip * frames + frame for clip in there]
        backwards += [clip * frames + lengths[clip] - 1 - frame for clip in there]
    return sizes, order, [forwards, backwards]


@settings(max_examples=examples(40), deadline=None)
@given(lengths=some_lengths, more=st.integers(0, 3), directions=st.sampled_from([1, 2]))
def test_rows_come_frame_by_frame_and_longer_clips_first(lengths, more, directions):
    frames = max(lengths) + more
    rows = FrameRows.of(torch.tensor(lengths), frames, directions)
    sizes, order, all_frames = rows_by_loops(lengths, frames)
    assert (rows.sizes, rows.clip_n.tolist()) == (sizes, order)
    assert rows.frame_dk.tolist() == all_frames[:directions]
    assert rows.shape == (directions, len(lengths), sum(lengths))


@settings(max_examples=examples(40), deadline=None)
@given(lengths=some_lengths, directions=st.sampled_from([1, 2]))
def test_states_lie_frame_by_frame_behind_those_of_the_start(lengths, directions):
    rows = FrameRows.of(torch.tensor(lengths), max(lengths), directions)
    lie = []
    for way in range(directions):
        lie += [(-1, way, place) for place in range(len(lengths))]
        lie += [(frame, way, place) for frame, size in enumerate(rows.sizes) for place in range(size)]
    index_dk, before_dk = rows.state_rows(), rows.state_rows(before=True)
    for way in range(directions):
        row = 0
        for frame, size in enumerate(rows.sizes):
            for place in range(size):
                assert lie[int(index_dk[way, row])] == (frame, way, place)
                assert lie[int(before_dk[way, row])] == (frame - 1, way, place)
                row += 1


@settings(max_examples=examples(40), deadline=None)
@given(lengths=some_lengths, more=st.integers(0, 3))
def test_numbers_of_rows_go_to_their_frames(lengths, more):
    frames = max(lengths) + more
    rows = FrameRows.of(torch.tensor(lengths), frames, 2)
    numbers_dk = torch.arange(1, 2 * sum(lengths) + 1).view(2, -1)
    scattered_fd = rows.scattered(numbers_dk).tolist()
    expected = [[0, 0] for _ in range(len(lengths) * frames)]
    for way in range(2):
        for frame, number in zip(rows.frame_dk[way].tolist(), numbers_dk[way].tolist(), strict=True):
            expected[frame][way] = number
    assert scattered_fd == expected
    assert sum(map(sum, scattered_fd)) == int(numbers_dk.sum())
