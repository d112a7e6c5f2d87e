import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ssl_skeleton.pretext.losses import distillation, info_nce, reconstruction

seeds = st.integers(0, 999)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def units(*shape, seed=0):
    return functional.normalize(normal(*shape, seed=seed), dim=1)


def reconstruction_by_loops(estimate, target, lengths) -> float:
    total = 0.0
    for clip, length in enumerate(lengths):
        error = 0.0
        for frame in range(length):
            for one, other in zip(estimate[clip][frame], target[clip][frame], strict=True):
                error += (one - other) ** 2
        total += error / length
    return total / len(lengths)


def dot(one, other) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def info_nce_by_loops(queries, keys, negatives, temperature) -> tuple[float, float]:
    losses, nearest = [], []
    for query, key in zip(queries, keys, strict=True):
        own = dot(query, key)
        others = [dot(query, negative) for negative in negatives]
        total = sum(math.exp(value / temperature) for value in [own, *others])
        losses.append(-math.log(math.exp(own / temperature) / total))
        nearest.append(all(own > other for other in others))
    return sum(losses) / len(losses), sum(nearest) / len(nearest)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), seed=seeds)
def test_reconstruction(lengths, seed):
    estimate, target = normal(2, len(lengths), 5, 3, seed=seed)
    expected = reconstruction_by_loops(estimate.tolist(), target.tolist(), lengths)
    found = reconstruction(estimate, target, torch.tensor(lengths))
    assert found.item() == pytest.approx(expected, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    clips=st.integers(1, 4),
    negatives=st.integers(1, 5),
    temperature=st.floats(0.05, 2),
    seed=seeds,
)
def test_info_nce(clips, negatives, temperature, seed):
    query, key, queue = (
        units(rows, 4, seed=3 * seed + part) for part, rows in enumerate((clips, clips, negatives))
    )
    loss, accuracy = info_nce(query, key, queue, temperature)
    expected = info_nce_by_loops(query.tolist(), key.tolist(), queue.tolist(), temperature)
    assert loss.item() == pytest.approx(expected[0], rel=1e-7, abs=1e-12)
    assert accuracy.item() == pytest.approx(expected[1])


def contrast_by_loops(queries, keys, negatives, counted, positives) -> float:
    """With a temperature of 1/2."""
    losses = []
    for query, key, here in zip(queries, keys, counted, strict=True):
        there = [negative for negative, is_here in zip(negatives, here, strict=True) if is_here]
        ordered = sorted((math.exp(2 * dot(query, negative)) for negative in there), reverse=True)
        own = math.exp(2 * dot(query, key))
        each = [math.log((own + sum(ordered)) / positive) for positive in [own, *ordered[:positives]]]
        losses.append(sum(each) / len(each))
    return sum(losses) / len(losses)


@settings(max_examples=30, deadline=None)
@given(clips=st.integers(1, 4), negatives=st.integers(1, 5), data=st.data(), seed=seeds)
def test_info_nce_of_some_negatives_and_mined_positives(clips, negatives, data, seed):
    query, key, queue = (
        units(rows, 4, seed=3 * seed + part) for part, rows in enumerate((clips, clips, negatives))
    )
    rows = st.lists(st.booleans(), min_size=negatives, max_size=negatives)
    counted = data.draw(st.lists(rows, min_size=clips, max_size=clips))
    positives = data.draw(st.integers(0, min(map(sum, counted))))
    query.requires_grad_()

    def loss(x_nd):
        return info_nce(x_nd, key, queue, 0.5, counted_nk=torch.tensor(counted), positives=positives)[0]

    expected = contrast_by_loops(query.tolist(), key.tolist(), queue.tolist(), counted, positives)
    assert loss(query).item() == pytest.approx(expected, rel=1e-7, abs=1e-12)
    assert torch.autograd.gradcheck(loss, query)


def test_info_nce_at_its_ends():
    query = units(3, 4)
    assert info_nce(query, query, -query[:1].expand(2, 4), 1e-3)[1] == 1
    none_right = info_nce(query, -query, query, 0.1)
    assert none_right[1] == 0
    assert none_right[0] > 10
    even = info_nce(query, query, query[:1].expand(7, 4), 1e6)[0]  # the temperature drowns every difference
    assert even.item() == pytest.approx(math.log(8), abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(clips=st.integers(1, 4), seed=seeds)
def test_distillation(clips, seed):
    student, teacher = normal(2, clips, 3, seed=seed)
    distances = [
        sum((a - b) ** 2 for a, b in zip(*pair, strict=True))
        for pair in zip(student.tolist(), teacher.tolist(), strict=True)
    ]
    assert distillation(student, teacher).item() == pytest.approx(sum(distances) / clips, rel=1e-9)


def test_gradients():
    lengths = torch.tensor([2, 4])
    estimate = normal(2, 4, 3, seed=1).requires_grad_()
    target = normal(2, 4, 3, seed=2)
    assert torch.autograd.gradcheck(lambda x: reconstruction(x, target, lengths), estimate)
    query = units(2, 4, seed=3).requires_grad_()
    key, queue = units(2, 4, seed=4), units(3, 4, seed=5)
    assert torch.autograd.gradcheck(lambda x: info_nce(x, key, queue, 0.1)[0], query)
    student = normal(2, 3, seed=6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: distillation(x, normal(2, 3, seed=7)), student)


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_goes_no_further_than_the_features(autocast):
    """What autocast makes of the features is in bfloat16; what the losses make of them is not."""
    lengths, target = torch.tensor([2, 4]), normal(2, 4, 3, seed=2).float()
    estimate, student, teacher = (normal(2, 4, 3, seed=seed).bfloat16() for seed in (1, 3, 4))
    query, key, queue = (units(6, 4, seed=seed).float() for seed in (5, 6, 7))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = [
            reconstruction(estimate, target, lengths),
            distillation(student[:, 0], teacher[:, 0]),
            info_nce(query, key, queue, 0.1)[0],
        ]
    expected = [
        reconstruction(estimate.double(), target.double(), lengths),
        distillation(student[:, 0].double(), teacher[:, 0].double()),
        info_nce(query.double(), key.double(), queue.double(), 0.1)[0],
    ]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert one.item() == pytest.approx(other.item(), rel=1e-6)
