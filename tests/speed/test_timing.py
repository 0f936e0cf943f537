"""How times are taken, with functions and clocks that do as they are told."""

import math
import os

import pytest

from torch_ref.speed import timing
from torch_ref.speed.timing import FEWEST, IN_TURN, SETTLE, Load, Times, exponent, is_busy, take_turns


class Clock:
    """A clock that only work moves on."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def work(self, name, seconds):
        """A function whose calls take these seconds, the last of them ever after."""

        def call():
            self.calls.append(name)
            self.now += seconds.pop(0) if len(seconds) > 1 else seconds[0]

        return call


def test_functions_take_turns_of_which_the_first_calls_do_not_count():
    clock = Clock()
    functions = {"a": clock.work("a", [50, 9, 1, 7, 2, 9, 4]), "b": clock.work("b", [60, 8, 3])}
    taken = take_turns(functions, IN_TURN + 1, clock=clock)
    assert "".join(clock.calls) == "ab" + "aaaa" + "bbbb" + "aa" + "bb"
    assert taken == {"a": Times(50, 3), "b": Times(60, 3)}  # of 1, 7, 2, 4


def test_short_functions_are_called_until_the_machine_has_settled():
    clock = Clock()
    take_turns({"a": clock.work("a", [SETTLE / 7.5]), "b": clock.work("b", [2 * SETTLE])}, IN_TURN, clock=clock)
    assert "".join(clock.calls) == "ab" + "a" * 8 + "a" * IN_TURN + "b" + "b" * IN_TURN


@pytest.mark.parametrize(("most", "timed"), [(0, FEWEST), (35, 2 * IN_TURN), (math.inf, 10)])
def test_slow_functions_are_called_less_often(most, timed):
    clock = Clock()
    take_turns({"a": clock.work("a", [4]), "b": clock.work("b", [5])}, 10, most, clock)
    assert len(clock.calls) == 2 * (1 + timed + math.ceil(timed / IN_TURN))


@pytest.mark.parametrize("power", [0, 0.5, 1, 2, -1])
def test_the_exponent_of_a_power_law(power):
    sizes = [144, 576, 2304]
    assert round(exponent(sizes, [size**power / 7 for size in sizes]), 9) == power


def test_the_exponent_of_scattered_values_lies_between():
    assert 1 < exponent([1, 2, 4], [1, 2, 8]) < 2


@pytest.mark.parametrize(("sizes", "values"), [([2], [3]), ([2, 2], [3, 4]), ([1, 2], [0, 1]), ([1, 2, 3], [1, 2])])
def test_no_exponent_without_two_positive_pairs(sizes, values):
    with pytest.raises(ValueError, match="sizes and values must be at least two positive pairs, got"):
        exponent(sizes, values)


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Sets how many ticks the cores have worked and idled, our own seconds, and the time."""
    clock = {"now": 100.0, "own": 5.0}
    monkeypatch.setattr(timing, "STAT", tmp_path / "stat")
    monkeypatch.setattr(timing.time, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(timing.os, "times", lambda: (clock["own"], 1.0, 2.0, 3.0, 0.0))
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (1.9, 0.0, 0.0), raising=False)
    ticks = os.sysconf("SC_CLK_TCK")

    def at(now, own, busy, idle):
        clock.update(now=now, own=own)
        (tmp_path / "stat").write_text(f"cpu {busy * ticks} 0 0 {idle * ticks} 40 0 0 0 0 0\ncpu0 1 2 3\n")

    return at


@pytest.mark.parametrize(("worked", "others", "busy"), [(16, 0, False), (17, 0.1, False), (35, 1.9, True)])
def test_the_load_is_what_others_use(machine, worked, others, busy):
    machine(100, 5, 1000, 50)
    load = Load()
    machine(110, 21, 1000 + worked, 99)
    assert round(load.others(), 9) == others
    assert is_busy(load.others()) is busy


def test_the_load_average_stands_in(machine):
    assert Load().others() == 1.9  # no file of times
    assert is_busy(math.nan)
