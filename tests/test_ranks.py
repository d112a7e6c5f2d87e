import itertools
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import ranked_jobs
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssl_skeleton import ranks
from ssl_skeleton.environment import pick_device
from ssl_skeleton.errors import UserError

GONE = "error: a rank is gone, and the others cannot go on without it; go on with --resume\n"


@given(world=st.integers(1, 9), count=st.integers(0, 40))
def test_every_row_is_one_rank_s(world, count):
    shares = []
    for rank in range(world):
        with ranks._with_last(ranks._stands, ranks._Rank(rank, world)):
            shares.append(range(count)[ranks.share(count)])
    if count < world:  # too few to share
        assert shares == [range(count)] * world
        return
    assert list(itertools.chain(*shares)) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_torchrun_there_is_one_rank():
    with ranks.joined(torch.device("cpu")):
        assert (ranks.world_size(), ranks.rank(), ranks.is_main()) == (1, 0, True)
        x = torch.randn(3, requires_grad=True)
        assert ranks.total(x) is x
        assert torch.equal(ranks.gather_rows(x), x)
        assert torch.equal(ranks.stacked(x), x[None])
        assert ranks.on_main(lambda: 3) == 3
    assert ranks.agreed("error: some") == "error: some"


def test_places_are_those_of_the_clips_at_hand():
    assert list(ranks.places(3)) == [0, 1, 2]
    with ranks.holding(range(5, 11, 2)):
        assert list(ranks.places(3)) == [5, 7, 9]
    assert list(ranks.places(2)) == [0, 1]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_know_their_places(world, ranks_at_hand):
    found = ranks_at_hand.together(world, ranked_jobs.places, 5)
    expected = [(rank, world, slice(rank * 5 // world, (rank + 1) * 5 // world)) for rank in range(world)]
    assert found == expected


@pytest.mark.parametrize("sizes", [[2, 3], [0, 2], [0, 0], [3, 1, 0]])
@pytest.mark.parametrize("shape", [(), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_rows_are_gathered_in_the_order_of_the_ranks(sizes, shape, dtype, ranks_at_hand):
    rows = (100 * torch.rand(sum(sizes), *shape)).to(dtype)
    found = ranks_at_hand.together(len(sizes), ranked_jobs.gathered, list(rows.split(sizes)))
    for each in found:
        assert torch.equal(each, rows)


@pytest.mark.parametrize("world", [2, 3])
def test_a_total_sums_values_and_gradients(world, ranks_at_hand):
    parts, slopes = torch.randn(2, world, 4, 3).unbind()
    found = ranks_at_hand.together(world, ranked_jobs.summed, list(parts), list(slopes))
    for total, gradient in found:
        torch.testing.assert_close(total, parts.sum(dim=0))
        torch.testing.assert_close(gradient, slopes.sum(dim=0))


def test_a_rank_can_work_alone(ranks_at_hand):
    assert ranks_at_hand.together(3, ranked_jobs.alone_and_together) == [[3, 1, 1, 2, 3, 3]] * 3


def test_the_main_rank_works_while_others_wait(ranks_at_hand):
    assert ranks_at_hand.together(2, ranked_jobs.main_alone, "") == ["done by rank 0 of 1", None]
    assert ranks_at_hand.together(2, ranked_jobs.main_alone, "full") == ["error: full", "error: full"]


def test_only_the_main_rank_speaks(ranks_at_hand):
    found = ranks_at_hand.apart(2, ranked_jobs.ending, ["", ""])
    assert found == [(0, "rank 0 of 2\n", ""), (0, "", "")]


def test_an_error_of_all_ranks_is_told_once(ranks_at_hand):
    found = ranks_at_hand.apart(3, ranked_jobs.ending, ["no such store"] * 3)
    assert [code for code, _, _ in found] == [2, 2, 2]
    assert sorted(err for _, _, err in found) == ["", "", "error: no such store\n"]


def test_an_error_of_one_rank_is_told_with_its_number(ranks_at_hand):
    (_, _, well), (code, _, ill) = ranks_at_hand.apart(2, ranked_jobs.ending, ["", "disk full"])
    assert (well, code, ill) == ("", 2, "rank 1: error: disk full\n")


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_who_is_left_behind_says_so_in_one_line(where, ranks_at_hand):
    (code, _, err), _ = ranks_at_hand.apart(2, ranked_jobs.left_behind, where, dies=1)
    assert (code, err) == (2, GONE)


@pytest.mark.parametrize("verb", ["finetune", "prepare", "describe", "synthesise", "convert"])
def test_commands_of_one_process_refuse_several(verb, ranks_at_hand):
    found = ranks_at_hand.apart(2, ranked_jobs.command, verb)
    line = f"error: python -m ssl_skeleton.{verb}: it runs in one process, not 2; start it without torchrun\n"
    assert sorted(found) == [(2, "", ""), (2, "", line)]


def test_every_rank_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("auto") == torch.device("cuda", 1)
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="this machine has 2 GPUs, fewer than ranks"):
        pick_device("auto")
    for number in ("", "many", "-1", "1.0"):
        monkeypatch.setenv("LOCAL_RANK", number)
        with pytest.raises(UserError, match=f"LOCAL_RANK is '{number}', which is no number of a GPU"):
            pick_device("auto")


@pytest.mark.parametrize("count", ["", "many"])
def test_a_number_of_ranks_that_is_none_is_told(count, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", count)
    with pytest.raises(UserError, match=f"WORLD_SIZE is {count}, but the ranks cannot meet"), ranks.started():
        pass


def test_ranks_that_cannot_meet_say_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # and nothing else, as torchrun would have set it
    monkeypatch.delenv("RANK", raising=False)
    with (
        pytest.raises(UserError, match=r"WORLD_SIZE is 2, but the ranks cannot meet \(.*RANK"),
        ranks.started(),
    ):
        pass


def test_a_signal_ends_a_rank_that_waits_for_others():
    """Nobody else comes to the meeting, at which Python's own handlers would wait with it."""
    code = "from ssl_skeleton import ranks; print(1, flush=True); ranks.started().__enter__()"
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    environment = os.environ | place | {"WORLD_SIZE": "2", "RANK": "0"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as waiting:  # noqa: S603
        waiting.stdout.readline()
        time.sleep(1)  # so that it waits
        waiting.terminate()
        assert waiting.wait(timeout=30) == -signal.SIGTERM
