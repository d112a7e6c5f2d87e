from collections import deque

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_skeleton import ranks
from ssl_skeleton.pretext.queue import KeyQueue


def in_order(queue: KeyQueue) -> list[list[float]]:
    """The keys, oldest first."""
    return queue.keys_kd.roll(-int(queue.oldest), dims=0).tolist()


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 7), batches=st.lists(st.integers(1, 20), max_size=6))
def test_first_in_first_out(size, batches):
    queue = KeyQueue(size, 2)
    model = deque(queue.keys_kd.tolist(), maxlen=size)
    first = 0.0
    for clips in batches:
        keys_nd = first + torch.arange(2.0 * clips).reshape(clips, 2)
        first += 2 * clips
        queue.push(keys_nd)
        model.extend(keys_nd.tolist())
        assert in_order(queue) == list(model)


def test_noted_keys_are_pushed_once_and_in_the_order_of_the_batch():
    queue, keys_nd = KeyQueue(5, 2), torch.arange(6.0).reshape(3, 2)
    before = queue.keys_kd.clone()
    for places in (range(0, 3, 2), range(1, 3, 2)):
        with ranks.holding(places):
            queue.note(keys_nd[places])
    assert torch.equal(queue.keys_kd, before)
    for _ in range(2):
        queue.push_noted()
        assert queue.oldest == 3
        assert torch.equal(queue.keys_kd[:3], keys_nd)


def test_a_queue_may_hold_nothing():
    queue = KeyQueue(0, 2)
    queue.note(torch.ones(3, 2))
    queue.push_noted()
    assert queue.keys_kd.shape == (0, 2)


def test_it_starts_with_unit_vectors_and_is_state():
    torch.manual_seed(0)
    queue, other = KeyQueue(5, 8), KeyQueue(5, 8)
    torch.testing.assert_close(queue.keys_kd.norm(dim=1), torch.ones(5))
    assert not torch.equal(queue.keys_kd, other.keys_kd)
    queue.push(torch.ones(3, 8))
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.push(torch.zeros(1, 8))
    assert in_order(queue) == in_order(other)
    assert not list(queue.parameters())
