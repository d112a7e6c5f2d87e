import numpy as np
import pytest
import torch
from tiny import ENCODER, tiny_store

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.store import open_store
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.encoders.pooling import represent
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import RAW_FRAMES, Source, encoder_features, raw_features

AUGMENTED = ViewConfig.from_tree({"augment": {"noise": 9.0, "crop": 0.5, "mask_frames": 0.5}}, "view")
SPLIT = Split("some", train=np.array([7, 2, 26, 0, 9, 8]), test=np.array([3, 25, 1]))
every_rate = pytest.mark.parametrize("frames", [6, None], ids=["resampled", "own rate"])


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> PackedClips:
    return PackedClips(open_store(tiny_store(tmp_path_factory.mktemp("stores") / "store")), bodies=1)


def source(packed: PackedClips, seed: int = 0) -> Source:
    torch.manual_seed(seed)
    return Source(ENCODER.build(packed.layout, 3, 1), AUGMENTED, "mean_max")


@torch.no_grad()
def alone(packed: PackedClips, known: Source, clip: int, frames: int | None) -> np.ndarray:
    """The feature of one clip, whole and not augmented."""
    clips = make_view(packed, torch.tensor([clip]), SamplingConfig(frames=frames), ViewConfig(), None)
    return represent(known.encoder, clips, known.pooling)[0].numpy()


@every_rate
@pytest.mark.parametrize("batch", [1, 4, 256])
def test_row_i_is_clip_i_of_the_split(frames, batch, packed):
    known = source(packed)
    features = encoder_features(packed, SPLIT, SamplingConfig(frames=frames), [known], batch)
    assert not known.encoder.training
    for part, index in ((features.train, SPLIT.train), (features.test, SPLIT.test)):
        expected = [alone(packed, known, clip, frames) for clip in index]
        np.testing.assert_allclose(part, expected, atol=1e-5)
    assert features.train_labels.tolist() == packed.labels[SPLIT.train].tolist()
    assert features.test_labels.tolist() == packed.labels[SPLIT.test].tolist()


def test_several_encoders_stand_one_after_another(packed):
    sources, sampling = [source(packed, seed) for seed in (0, 1)], SamplingConfig(frames=6)
    both = encoder_features(packed, SPLIT, sampling, sources)
    each = [encoder_features(packed, SPLIT, sampling, [one]) for one in sources]
    assert np.array_equal(both.test, np.hstack([one.test for one in each]))


@pytest.mark.parametrize(("frames", "seen"), [(6, 6), (None, RAW_FRAMES)])
def test_raw_features_are_the_coordinates(frames, seen, packed):
    found = raw_features(packed, SPLIT, SamplingConfig(frames=frames), ViewConfig())
    for row, clip in zip(found.train, SPLIT.train, strict=True):
        view = make_view(packed, torch.tensor([clip]), SamplingConfig(frames=seen), ViewConfig(), None)
        np.testing.assert_array_equal(row, view.x.flatten().numpy())


def test_features_that_are_not_finite_are_refused(packed):
    broken = source(packed)
    with torch.no_grad():
        broken.encoder.gru.bias_ih_l0.fill_(torch.nan)
    with pytest.raises(UserError, match="6 of 6 training features are not finite"):
        encoder_features(packed, SPLIT, SamplingConfig(), [broken])


def test_clips_without_label_are_refused(tmp_path):
    unlabelled = PackedClips(open_store(tiny_store(tmp_path / "store", labelled=False)), bodies=1)
    with pytest.raises(UserError, match="split some: some clips have no label"):
        encoder_features(unlabelled, SPLIT, SamplingConfig(), [source(unlabelled)])
