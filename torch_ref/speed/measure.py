"""Measures a subject: times in turn, memory, and what the machine could do at best."""

import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import torch

from ..report.run import PACKAGES, hardware
from .figures import CHANNELS_LAST, COMPILED, FORMS, FUSED, OURS, TUTORIAL, WRITTEN, Figure, Rates, SpeedRun
from .memory import peak
from .ours import Ours
from .subjects import BACKWARD, STEP, Subject
from .theirs import Theirs, costs, has_form, held_bytes, input_of, twin
from .timing import Load, take_turns

MOST = {"network": 20.0, "block": 3.0}  # seconds of turns of one work
MOST_HELD = 4 * 2**30  # bytes that the twin may keep for its backward pass
# What is measured of a block unless all is asked for: compiling and memory take longer than its calls.
FORMS_OF_BLOCKS = (WRITTEN, CHANNELS_LAST)
# What a block's cost grows with: for each axis the batches and sizes of its maps.
AXES: dict[str, list[tuple[int, tuple[int, int, int]]]] = {
    "tokens": [(2, (side, side, 32)) for side in (12, 24, 48)],
    "batch": [(batch, (24, 24, 32)) for batch in (2, 8, 32)],
    "channels": [(2, (24, 24, channels)) for channels in (32, 64, 128, 256)],
}


def start_run() -> SpeedRun:
    """An empty run, with the rates of this machine."""
    versions = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    return SpeedRun(jax.default_backend(), hardware(), versions, torch.get_num_threads(), measure_rates())


def measure_rates() -> Rates:
    """Times a product of square matrices and a copy of an array that no cache holds, in both frameworks."""
    on_gpu = torch.cuda.is_available()
    side, device = (8192, "cuda") if on_gpu else (2048, "cpu")
    a, x = torch.ones(side, side, device=device), torch.ones(64 * 2**20, device=device)
    y, ours_a, ours_x = torch.empty_like(x), jnp.ones((side, side)), jnp.ones(64 * 2**20)
    product, copied = jax.jit(jnp.matmul), jax.jit(lambda x: x + 1)

    def finished(_: object) -> None:
        if on_gpu:
            torch.cuda.synchronize()

    products = take_turns({"p": lambda: finished(a @ a), "j": lambda: product(ours_a, ours_a).block_until_ready()}, 5)
    copies = take_turns({"p": lambda: finished(y.copy_(x)), "j": lambda: copied(ours_x).block_until_ready()}, 5)
    fastest = [min(times.median for times in taken.values()) for taken in (products, copies)]
    return Rates(2 * side**3 / fastest[0], 2 * 4 * len(x) / fastest[1])


def measure(
    subject: Subject,
    rates: Rates,
    devices: Sequence[int],
    repeats: int = 20,
    forms: Sequence[str] = FORMS,
    with_memory: bool = True,
) -> list[Figure]:
    """Times all works of a subject, ours on each number of devices and PyTorch's forms in turn."""
    load = Load()
    ours = {each.devices: each for each in (Ours(subject, count) for count in devices)}
    last = list(ours.values())[-1]
    module, x = twin(subject, last), input_of(last)
    forms = [form for form in forms if has_form(module, x, form)]
    memory: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    if (held := held_bytes(subject, last)) > MOST_HELD:
        notes[WRITTEN] = f"left out, for it would keep {held / 2**30:.1f} GiB for its backward pass"
    if with_memory:
        sides = [OURS, *(form for form in forms if form in (WRITTEN, FUSED, TUTORIAL) and form not in notes)]
        memory, failed = measure_memory(subject, sides)
        notes |= failed
    # The other forms take about what the twin takes as written.
    forms = [form for form in forms if (form if form in (FUSED, TUTORIAL) else WRITTEN) not in notes]
    columns = {} if OURS in notes else {f"ours, {n} device{'s' * (n > 1)}": each.works for n, each in ours.items()}
    first: dict[str, dict[str, float]] = {work: {} for work in subject.works}
    for form in forms:
        try:
            columns[form] = works = Theirs(subject, last, form).works
            if form == COMPILED:
                first_calls(works, first)
        except RuntimeError as error:  # no compiler, or something that it cannot compile
            if form != COMPILED:
                raise
            columns.pop(form, None)
            notes[form] = str(error).strip().splitlines()[0]
    taken, most = {}, MOST["block" if subject.is_block else "network"]
    for work in subject.works:
        taken[work] = take_turns({name: works[work] for name, works in columns.items()}, repeats, most)
        first[work].update({name: times.first for name, times in taken[work].items() if name not in FORMS})
    others, needed = load.others(), costs(subject, last)
    return [
        Figure(
            *(subject.name, subject.batch, subject.size, work),
            {name: times.median for name, times in taken[work].items()},
            first[work],
            memory,
            max(need / rate for need, rate in zip(needed[work], rates, strict=True)),
            notes,
            others,
        )
        for work in subject.works
    ]


def first_calls(works: dict[str, Callable[[], Any]], first: dict[str, dict[str, float]]) -> None:
    """Makes torch.compile compile, and stores the seconds of each work's first call."""
    for work, call in works.items():
        begun = time.perf_counter()
        call()
        first[work][COMPILED] = time.perf_counter() - begun
    if STEP in works:  # which calls what the passes have compiled
        first[STEP][COMPILED] += first[BACKWARD][COMPILED]


def measure_memory(subject: Subject, sides: Sequence[str]) -> tuple[dict[str, float | None], dict[str, str]]:
    """The memory of each side, and what went wrong with those that failed."""
    memory: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for side in sides:
        try:
            memory[side] = peak(subject, side)
        except RuntimeError as error:
            notes[side] = str(error)
    return memory, notes
