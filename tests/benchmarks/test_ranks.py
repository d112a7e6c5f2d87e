import argparse
import json

import ranks
from walks import write_walks


def test_ranks_time_their_steps_and_exchanges(ranks_at_hand, tmp_path):
    store = write_walks(tmp_path / "store", [8] * 8).path
    given = argparse.Namespace(
        only=["cml"], batch=[4], precision="fp32", quick=True, store=store, out=tmp_path
    )
    ranks_at_hand.apart(2, ranks.rank_main, given)
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["seconds"] > 0
        assert 0 < found["under_way"] < 1
        assert found["waiting"] < 1


def test_time_that_spans_share_counts_once():
    assert ranks.together([(5, 7), (0, 2), (1, 3), (6, 6.5)]) == 5
    assert ranks.together([]) == 0
