import json

import faiss
import knn
import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _keep_threads():
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    yield
    torch.set_num_threads(before[0])
    faiss.omp_set_num_threads(before[1])


def test_it_measures_every_form(tmp_path, capsys):
    out = tmp_path / "out.json"
    knn.main(["--quick", "--threads", "1", "--out", str(out)])
    rows = {row["form"]: row for row in json.loads(out.read_text())["rows"]}
    assert list(rows) == ["scikit-learn", "exact", "ivf", "hnsw"]
    for row in rows.values():
        assert row["search_clips_per_second"] > row["clips_per_second"] > 0
        assert row["ratio"][1] <= row["ratio"][0] <= row["ratio"][2]
    assert rows["scikit-learn"]["ratio"] == [1, 1, 1]
    assert (rows["exact"]["same"], rows["exact"]["recall"]) == (1, 1)
    assert 0 < rows["ivf"]["recall"] < 1
    printed = capsys.readouterr().out
    assert all(form in printed for form in rows)


def test_the_features_have_classes():
    features = knn.make_features(knn.Sizes(50, 400, 32, 1))
    turn = knn.ours(features, knn.EXACT)
    assert np.array_equal(turn.answer, knn.judge(features).answer)
    means = np.stack([features.train[features.train_labels == label].mean(axis=0) for label in range(60)])
    assert means.std(axis=0).mean() > 1
