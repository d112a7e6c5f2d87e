import signal
import threading

import pytest
import torch

from ssl_skeleton.errors import Stopped
from ssl_skeleton.training.signals import Asked, leaving, noted

CPU = torch.device("cpu")
every_signal = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])


@every_signal
def test_a_signal_is_noted_and_agreed_on_later(number):
    before, agreed = signal.getsignal(number), []

    def train():
        with noted() as asked:
            signal.raise_signal(number)
            agreed.append(asked.agreed)
            asked.ask(CPU)
            agreed.append(asked.agreed)
            raise Stopped(asked.agreed, "here")

    with pytest.raises(Stopped, match="here"):
        train()
    assert agreed == [None, number]
    assert signal.getsignal(number) == before


def test_no_signal_is_nothing_agreed():
    with noted() as asked:
        asked.ask(CPU)
        assert asked.agreed is None
        assert not any(asked.flags())


@every_signal
def test_one_that_came_to_another_rank_is_heeded(number):
    there, here = Asked(), Asked()
    there.note(number)
    here.agree([one + other for one, other in zip(here.flags(), there.flags(), strict=True)])
    assert here.agreed == number


def test_what_was_agreed_first_stays():
    asked = Asked()
    asked.note(signal.SIGTERM)
    asked.ask(CPU)
    asked.note(signal.SIGUSR1)
    asked.note(signal.SIGINT)
    asked.ask(CPU)
    assert asked.agreed == signal.SIGTERM


@every_signal
def test_one_that_came_too_late_is_heeded_at_the_end(number):
    def train():
        with noted() as asked:
            asked.ask(CPU)
            signal.raise_signal(number)

    with pytest.raises(Stopped, match="the end of a stage") as stopped:
        train()
    assert stopped.value.signal == number


def test_an_error_is_not_hidden_by_a_signal():
    def train():
        with noted():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        train()


def test_a_second_ctrl_c_leaves_at_once():
    with noted() as asked:
        asked.agreed = signal.SIGTERM
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt, match="go on with --resume"):
            signal.raise_signal(signal.SIGINT)
        asked.came.clear()


@every_signal
def test_where_nothing_is_half_done_a_signal_leaves_at_once(number):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped, leaving():
        signal.raise_signal(number)
    assert stopped.value.signal == number
    assert signal.getsignal(number) == before


@every_signal
def test_while_it_trains_it_is_noted_and_afterwards_it_leaves_again(number):
    with leaving():
        with noted() as asked:
            asked.ask(CPU)
        with pytest.raises(Stopped):
            signal.raise_signal(number)


def test_another_thread_hears_nothing_and_fails_at_nothing():
    heard = []

    def work():
        with leaving(), noted() as asked:
            asked.ask(CPU)
            heard.append(asked.agreed)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [None]
