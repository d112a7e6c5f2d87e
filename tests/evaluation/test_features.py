import numpy as np
import pytest
import torch
from tiny import CLIPS, ENCODER, motion, tiny_store

from ssl_skeleton.data.packed import PackedClips
from ssl_skeleton.data.splits import Split, split_clips
from ssl_skeleton.data.store import open_store
from ssl_skeleton.data.views.view import SamplingConfig, ViewConfig, make_view
from ssl_skeleton.encoders.pooling import represent
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.features import RAW_FRAMES, Source, encoder_features, raw_features

VIEW = ViewConfig.from_tree({"augment": {"noise": 9.0, "crop": 0.5, "mask_frames": 0.5}}, "view")
SHUFFLED = Split("some", train=np.array([7, 2, 26, 0]), test=np.array([3, 25, 1]))
every_rate = pytest.mark.parametrize("frames", [6, None], ids=["resampled", "own rate"])


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> PackedClips:
    return PackedClips(open_store(tiny_store(tmp_path_factory.mktemp("stores") / "store")), bodies=1)


def source(view: ViewConfig = VIEW, seed: int = 0) -> Source:
    torch.manual_seed(seed)
    return Source(ENCODER.build(open_layout(), 3, 1), view, "mean_max")


def open_layout():
    from ssl_skeleton.skeleton.layout import load_layout

    return load_layout("kinect_v1_20")


@every_rate
def test_row_i_is_the_clip_i_of_the_split_seen_whole(frames, packed):
    sampling = SamplingConfig(frames=frames)
    known = source()
    features = encoder_features(packed, SHUFFLED, sampling, [known], batch=2)
    assert not known.encoder.training
    for part, labels, index in (
        (features.train, features.train_labels, SHUFFLED.train),
        (features.test, features.test_labels, SHUFFLED.test),
    ):
        assert labels.tolist() == packed.labels[index].tolist()
        for row, clip in zip(part, index, strict=True):
            seen = make_view(packed, torch.tensor([clip]), sampling, ViewConfig(), None)
            with torch.no_grad():
                alone = represent(known.encoder, seen, "mean_max")[0].numpy()
            np.testing.assert_allclose(row, alone, atol=1e-5)


@every_rate
def test_the_batch_does_not_matter(frames, packed):
    split = split_clips(open_store_of(packed), "cross_view")
    found = [
        encoder_features(packed, split, SamplingConfig(frames=frames), [source()], batch=batch)
        for batch in (1, 5, 256)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(found[0].train, other.train, atol=1e-5)
        np.testing.assert_allclose(found[0].test, other.test, atol=1e-5)
