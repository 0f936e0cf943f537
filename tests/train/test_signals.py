"""Stops within stops."""

import os
import signal

import pytest

from train.signals import INTERRUPTED, Stop


def ask(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def nothing_ends_the_process(monkeypatch):
    """A second signal would."""
    monkeypatch.setattr(os, "_exit", lambda code: pytest.fail(f"left with {code}"))


def test_a_stop_hears_of_what_came_before_it_within_the_one_around():
    with Stop() as around:
        ask()
        with Stop() as stop:
            assert stop.signal == signal.SIGTERM
    assert around.signal == signal.SIGTERM


def test_the_one_around_hears_of_what_came_within():
    with Stop() as around:
        with Stop():
            ask()
        assert around.signal == signal.SIGTERM
        with Stop() as later:
            assert later.signal == signal.SIGTERM


def test_stops_one_after_the_other_know_nothing_of_each_other():
    with Stop():
        ask()
    with Stop() as stop:
        assert stop.signal is None


def test_the_status_of_ctrl_c_is_that_of_shells():
    assert INTERRUPTED == 130
