"""Whatever is trained is the same on one rank and on several: the batch counts, and not who computes it."""

import pytest
import ranked_jobs
import torch
from contracts.test_encoders import CONFIGS, every_encoder
from tiny import ENCODER, PRETEXTS, same, tiny_store

every_pretext = pytest.mark.parametrize("pretext", PRETEXTS)
SIZES = [5, 2]  # which no number of ranks divides, and for three of them too few


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.mktemp("stores") / "store", layout="kinect_v2_25", bodies=2)


def assert_same_on_ranks(ranks_at_hand, *given, worlds=(2, 3)):
    alone = ranked_jobs.trained(*given)
    for world in worlds:
        together = ranks_at_hand.together(world, ranked_jobs.trained, *given)
        assert all(same(other, together[0]) for other in together[1:])
        # The values that are logged have 32 bits.
        (values, state), (expected, expected_state) = together[0], alone
        for (parts, gradients), (expected_parts, expected_gradients) in zip(values, expected, strict=True):
            assert parts == pytest.approx(expected_parts, rel=1e-6)
            assert_close(gradients, expected_gradients)
        assert_close(state, expected_state)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=1e-7, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}"
        )


@every_pretext
def test_every_pretext_with_a_graph_encoder(pretext, store, ranks_at_hand):
    assert CONFIGS["st_gcn"].dropout > 0
    assert_same_on_ranks(ranks_at_hand, store, pretext, CONFIGS["st_gcn"], SIZES)


@every_pretext
def test_every_pretext_with_a_gru(pretext, store, ranks_at_hand):
    assert ENCODER.input_norm == "batch"
    assert ENCODER.dropout > 0
    assert_same_on_ranks(ranks_at_hand, store, pretext, ENCODER, SIZES)


@every_encoder
def test_every_encoder(config, store, ranks_at_hand):
    assert_same_on_ranks(ranks_at_hand, store, "contrast", config, [5], worlds=(2,))


@pytest.mark.parametrize(
    ("pretext", "encoder"), [("joint", "gru_batch"), ("joint", "st_gcn"), ("contrast_decoded", "gru_batch")]
)
def test_parts_of_a_batch(pretext, encoder, store, ranks_at_hand):
    assert_same_on_ranks(ranks_at_hand, store, pretext, CONFIGS[encoder], [6, 7], 2)
