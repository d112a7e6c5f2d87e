from dataclasses import replace

import numpy as np
import pytest
import ranked_jobs
import torch
from tiny import ENCODER, tiny_store

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split
from ssl_skeleton.data.store import open_store
from ssl_skeleton.data.views.agcn import agcn
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.encoders.pooling import represent
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import (
    RAW_FRAMES,
    Features,
    Source,
    calibrate_norms,
    encoding,
    labels_of_test,
    raw_encoding,
    split_features,
)

AUGMENTED = ViewConfig.from_tree({"augment": {"noise": 9.0, "crop": 0.5, "mask_frames": 0.5}}, "view")
SPLIT = Split("some", train=np.array([7, 2, 26, 0, 9, 8]), test=np.array([3, 25, 1]))
every_rate = pytest.mark.parametrize("frames", [6, None], ids=["resampled", "own rate"])


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> PackedClips:
    return PackedClips(open_store(tiny_store(tmp_path_factory.mktemp("stores") / "store")), bodies=1)


def source(packed: PackedClips, seed: int = 0) -> Source:
    torch.manual_seed(seed)
    return Source(ENCODER.build(packed.layout, 3, 1), AUGMENTED, "mean_max")


def encoder_features(packed, split, sampling, sources, batch=256) -> Features:
    return split_features(packed, split, encoding(packed, sampling, sources, batch))


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
    assert labels_of_test(packed, SPLIT).tolist() == packed.labels[SPLIT.test].tolist()


def test_several_encoders_stand_one_after_another(packed):
    sources, sampling = [source(packed, seed) for seed in (0, 1)], SamplingConfig(frames=6)
    both = encoder_features(packed, SPLIT, sampling, sources)
    each = [encoder_features(packed, SPLIT, sampling, [one]) for one in sources]
    assert np.array_equal(both.test, np.hstack([one.test for one in each]))


@every_rate
@pytest.mark.parametrize("batch", [2, 256])
def test_the_validation_part_has_rows_of_its_own(frames, batch, packed):
    known, index = source(packed), np.array([5, 24, 13])
    split = replace(SPLIT, validation=index)
    features = encoder_features(packed, split, SamplingConfig(frames=frames), [known], batch)
    expected = [alone(packed, known, clip, frames) for clip in index]
    np.testing.assert_allclose(features.validation, expected, atol=1e-5)
    assert features.validation_labels.tolist() == packed.labels[index].tolist()
    without = encoder_features(packed, SPLIT, SamplingConfig(frames=frames), [known], batch)
    assert without.validation is without.validation_labels is None
    assert np.array_equal(features.train, without.train)


@every_rate
def test_raw_features_are_the_coordinates(frames, packed):
    assert RAW_FRAMES == 32
    found = split_features(packed, SPLIT, raw_encoding(packed, SamplingConfig(frames=frames), ViewConfig()))
    for row, clip in zip(found.train, SPLIT.train, strict=True):
        view = make_view(packed, torch.tensor([clip]), SamplingConfig(frames=32), ViewConfig(), None)
        np.testing.assert_array_equal(row, view.x.flatten().numpy())


def test_raw_features_of_looped_clips_are_whole_clips(tmp_path):
    """Where an encoder sees them looped, the coordinates are normalised in the same way but resampled."""
    looped = SamplingConfig(frames=6, normalise="agcn")
    packed = PackedClips(open_store(tiny_store(tmp_path / "store")), bodies=1, order="moving")
    found = split_features(packed, SPLIT, raw_encoding(packed, looped, ViewConfig()))
    for row, clip in zip(found.train, SPLIT.train, strict=True):
        wanted = agcn(packed.gather(torch.tensor([clip]), 32), packed.layout)
        np.testing.assert_array_equal(row, wanted.x.flatten().numpy())


def test_features_that_are_not_finite_are_refused(packed):
    broken = source(packed)
    with torch.no_grad():
        broken.encoder.gru.bias_ih_l0.fill_(torch.nan)
    with pytest.raises(UserError, match="some features are not finite"):
        encoder_features(packed, SPLIT, SamplingConfig(), [broken])


def test_clips_without_label_are_refused(tmp_path):
    unlabelled = PackedClips(open_store(tiny_store(tmp_path / "store", labelled=False)), bodies=1)
    with pytest.raises(UserError, match="split some: no clip has a label"):
        encoder_features(unlabelled, SPLIT, SamplingConfig(), [source(unlabelled)])


@torch.no_grad()
def training_frames(packed: PackedClips, frames: int | None) -> torch.Tensor:
    """Every valid frame (K, I) of the training clips, whole and not augmented, as an encoder sees it."""
    rows = []
    for clip in SPLIT.train:
        clips = make_view(packed, torch.tensor([clip]), SamplingConfig(frames=frames), ViewConfig(), None)
        rows.append(clips.x.permute(0, 2, 3, 1, 4).flatten(2)[0])
    return torch.cat(rows)


def calibrated(packed: PackedClips, frames: int | None, batch: int) -> tuple[Source, dict]:
    known = source(packed)
    start = {name: tensor.clone() for name, tensor in known.encoder.state_dict().items()}
    calibrate_norms(packed, SPLIT, SamplingConfig(frames=frames), known, batch)
    return known, start


@every_rate
def test_an_untrained_encoder_knows_the_statistics_of_the_training_clips(frames, packed):
    known, start = calibrated(packed, frames, batch=256)
    frames_ki = training_frames(packed, frames)
    torch.testing.assert_close(known.encoder.norm.running_mean, frames_ki.mean(dim=0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(known.encoder.norm.running_var, frames_ki.var(dim=0), atol=1e-5, rtol=1e-4)
    for name, tensor in known.encoder.state_dict().items():
        moved = name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked")
        assert torch.equal(tensor, start[name]) is not moved, name
    assert not known.encoder.training
    assert not known.encoder.norm.training


@pytest.mark.parametrize("batch", [3, 5])
def test_no_batch_of_the_calibration_outweighs_another(batch, packed):
    known, _ = calibrated(packed, 6, batch)  # of 6 clips of 6 frames, 5 would leave one for a second batch
    mean = training_frames(packed, 6).mean(dim=0)
    torch.testing.assert_close(known.encoder.norm.running_mean, mean, atol=1e-5, rtol=1e-4)
    assert known.encoder.norm.num_batches_tracked == 2


def test_calibration_leaves_an_encoder_without_norms_alone(packed):
    config = ENCODER.model_copy(update={"input_norm": "none"})
    known = Source(config.build(packed.layout, 3, 1), AUGMENTED, "mean")
    start = {name: tensor.clone() for name, tensor in known.encoder.state_dict().items()}
    calibrate_norms(packed, SPLIT, SamplingConfig(frames=6), known)
    assert all(torch.equal(tensor, start[name]) for name, tensor in known.encoder.state_dict().items())


@every_rate
@pytest.mark.parametrize("batch", [1, 2, 256])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_clips_and_change_no_bit(frames, batch, world, tmp_path, ranks_at_hand):
    """Batches are those of one rank; some ranks have none in the last turn, or in any."""
    store = tiny_store(tmp_path / "store")
    alone = ranked_jobs.features(store, frames, batch)
    for features in ranks_at_hand.together(world, ranked_jobs.features, store, frames, batch):
        for name, expected in vars(alone).items():
            np.testing.assert_array_equal(getattr(features, name), expected)


def test_what_a_probe_is_given_holds_no_label_of_a_test_clip(packed):
    """Not even in part: with labels of its own, the test part of no split looks otherwise to a probe."""
    known, sampling = source(packed), SamplingConfig(frames=6)
    features = encoder_features(packed, SPLIT, sampling, [known])
    assert {name for name in vars(features) if "label" in name} == {"train_labels", "validation_labels"}
    labels, poisoned = packed.labels, packed.labels.clone()
    poisoned[SPLIT.test] = (poisoned[SPLIT.test] + 1) % 3
    try:
        packed.labels = poisoned
        found = encoder_features(packed, SPLIT, sampling, [known])
    finally:
        packed.labels = labels
    for name, value in vars(features).items():
        np.testing.assert_array_equal(getattr(found, name), value)


@every_rate
def test_clips_through_windows(frames, packed):
    known, sampling = source(packed), SamplingConfig(frames=frames)
    windows = [(0.0, 0.5), (1.0, 0.5), (0.0, 1.0)]
    features = split_features(packed, SPLIT, encoding(packed, sampling, [known]), windows)
    assert features.views.shape == (3, *features.test.shape)
    np.testing.assert_allclose(features.views[2], features.test, atol=1e-6)
    for views, window in zip(features.views, windows, strict=True):
        for row, clip in zip(views, SPLIT.test, strict=True):
            index, part = torch.tensor([clip]), torch.tensor([window])
            clips = make_view(packed, index, sampling, ViewConfig(), None, window=part)
            with torch.no_grad():
                expected = represent(known.encoder, clips, known.pooling)[0]
            np.testing.assert_allclose(row, expected, atol=1e-5)
