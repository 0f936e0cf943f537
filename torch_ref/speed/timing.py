"""How times are taken: in turn, as medians, with an eye on what else the machine does, and without any framework."""

import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

FEWEST = 3  # timed calls, however slow they are
IN_TURN = 3  # timed calls in a turn
# Seconds of untimed calls before them: the threads of the function before (OpenMP's in PyTorch) go on waiting for work
# some milliseconds after its last call, and keep the cores busy.
SETTLE = 0.05
BUSY = 0.2  # cores: what other processes may use while times are taken
STAT = Path("/proc/stat")


class Times(NamedTuple):
    """Seconds of one function: its first call, which compiles, and the median of those in turn."""

    first: float
    median: float


def take_turns(
    functions: Mapping[str, Callable[[], object]],
    repeats: int = 20,
    most: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Times functions in turn, A B A B, so that a machine that changes its speed does so for all of them.

    A turn begins with untimed calls, at least one and for at least `SETTLE` seconds, and times up to `IN_TURN` more.

    Args:
        functions: by name; each returns when its work is done.
        repeats: timed calls of each, beside the first.
        most: seconds of timed calls after which no further turns begin, once there are `FEWEST` calls of each.
        clock: returns seconds.

    Example:
        >>> ticks = iter(range(100))
        >>> take_turns({"a": lambda: None, "b": lambda: None}, 3, clock=lambda: next(ticks))["a"]
        Times(first=1, median=1)
    """

    def timed(function: Callable[[], object]) -> float:
        begun = clock()
        function()
        return clock() - begun

    first = {name: timed(function) for name, function in functions.items()}
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for done in range(0, repeats, IN_TURN):
        if done >= FEWEST and sum(map(sum, taken.values())) > most:
            break
        for name, function in functions.items():
            begun = clock()
            function()
            while clock() - begun < SETTLE:
                function()
            taken[name] += [timed(function) for _ in range(min(IN_TURN, repeats - done))]
    return {name: Times(first[name], statistics.median(taken[name])) for name in functions}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The slope of values over sizes on log axes, by least squares: p where values grow as sizes**p.

    Raises:
        ValueError: fewer than two different sizes, or a number that is not positive.

    Example:
        >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
        2.0
    """
    if len(set(sizes)) < 2 or len(sizes) != len(values) or min(*sizes, *values) <= 0:
        raise ValueError(f"sizes and values must be at least two positive pairs, got {sizes} and {values}")
    return statistics.linear_regression([math.log(x) for x in sizes], [math.log(y) for y in values]).slope


class Load:
    """How many cores other processes keep busy, from its creation on.

    The load average cannot tell: it counts our own threads too, and those of a minute ago. It stands in where the
    system keeps no count of busy time: the average before anything has been timed.
    """

    def __init__(self) -> None:
        self._began, self._busy, self._own = time.monotonic(), busy_seconds(), sum(os.times()[:4])
        self._average = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan

    def others(self) -> float:
        """The mean number of cores; NaN where the system tells nothing."""
        busy = busy_seconds()
        if busy is None or self._busy is None:
            return self._average
        used = busy - self._busy - (sum(os.times()[:4]) - self._own)
        return max(0.0, used / max(time.monotonic() - self._began, 0.01))


def busy_seconds() -> float | None:
    """Seconds that all cores together have worked since the machine started; None where it does not say."""
    try:
        line = STAT.read_text().splitlines()[0]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, line.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def is_busy(load: float) -> bool:
    """Whether others used so much that figures are marked; what is not known counts as busy."""
    return not load <= BUSY
