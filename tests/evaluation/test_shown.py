import numpy as np
import pytest
from tiny import tiny_store

from ssl_skeleton.data.store import open_store
from ssl_skeleton.errors import UserError
from ssl_skeleton.evaluation.shown import EarlyConfig, RobustnessConfig, damaged

LEVELS = {"missing": 0.3, "noise": 0.02, "rotation": 90.0, "dropped": 0.75, "size": 0.3, "tempo": 0.5}


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (EarlyConfig, {"shares": [0.0, 0.5]}, r"shares\.0: .*greater than 0, not 0"),
        (EarlyConfig, {"shares": [0.5, 1.1]}, r"shares\.1: .*less than or equal to 1, not 1\.1"),
        (EarlyConfig, {"shares": [0.5, 0.2]}, r"shares: 0\.2 stands after 0\.5; let them ascend"),
        (EarlyConfig, {"shares": [0.5, 0.5]}, r"shares: 0\.5 stands after 0\.5; let them ascend"),
        (EarlyConfig, {"shares": []}, "shares: .*at least 1"),
        (EarlyConfig, {"probe": "liner"}, "probe: 'liner' is not possible; did you mean 'linear'"),
        (EarlyConfig, {"train": "half"}, "train: 'half' is not possible"),
        (RobustnessConfig, {"missing": [0.5, 0.1]}, "missing: 0.1 stands after 0.5"),
        (RobustnessConfig, {"missing": [1.0]}, r"missing\.0: .*less than 1"),
        (RobustnessConfig, {"noise": [-0.1]}, r"noise\.0: "),
        (RobustnessConfig, {"noise": [0.1, 0.1]}, "noise: 0.1 stands after 0.1"),
        (RobustnessConfig, {"rotation": [270.0]}, r"rotation\.0: .*180"),
        (RobustnessConfig, {"dropped": [0.2, 0]}, "dropped: 0 stands after 0.2"),
        (RobustnessConfig, {"draws": 0}, "draws: "),
        (RobustnessConfig, {key: [] for key in LEVELS}, "are all empty; give one of them levels"),
    ],
)
def test_mistakes_are_named(config, change, message):
    with pytest.raises(UserError, match=message):
        config.from_tree(change, "evaluation")


def test_results_of_other_protocols_have_other_names():
    names = {
        EarlyConfig(probe=probe, train=train).evaluator
        for probe in ("linear", "knn")
        for train in ("whole", "cut")
    }
    assert names == {"early", "early_knn", "early_cut", "early_knn_cut"}
    names = {
        RobustnessConfig(probe=probe, joints=joints).evaluator
        for probe in ("linear", "knn")
        for joints in ("clip", "frame")
    }
    assert names == {"robustness", "robustness_knn", "robustness_frame", "robustness_knn_frame"}


@pytest.mark.parametrize("curve", LEVELS)
def test_a_draw_is_the_same_whenever_it_is_drawn(curve, tmp_path):
    store, config = open_store(tiny_store(tmp_path / "store")), RobustnessConfig()

    def frames(draw: int, seed: int = 0) -> np.ndarray:
        own = config.model_copy(update={"seed": seed})
        return damaged(store, curve, LEVELS[curve], draw, own).frames_rvc

    first = frames(0)
    assert (first != store.frames_rvc).any()
    np.testing.assert_array_equal(frames(0), first)
    assert (frames(1) != first).any()
    assert (frames(0, seed=1) != first).any()


def test_the_same_joints_are_missing_throughout_a_clip_or_others_in_every_frame(tmp_path):
    store = open_store(tiny_store(tmp_path / "store"))
    for joints in ("clip", "frame"):
        found = damaged(store, "missing", 0.3, 0, RobustnessConfig(joints=joints))
        gone_rv = ~found.frames_rvc.any(axis=2)
        assert (gone_rv.sum(axis=1) == 6).all()
        alike = [len(np.unique(gone_rv[row : row + frames], axis=0)) for _, row, _, frames in found.tracks]
        assert (max(alike) == 1) is (joints == "clip")
