"""``python -m torch_ref speed``, behind its options."""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence

import jax
import torch
from rich.console import Console
from rich.progress import Progress

from train.devices import keep_memory, usable_cores, use_all_cores

from ..report.docs import write_whole
from .figures import WRITTEN, Figure, Rates, SpeedRun, from_json, no_figure, to_json, update, without_busy
from .measure import AXES, FORMS_OF_BLOCKS, measure, start_run
from .shown import print_run, save_plot
from .subjects import BACKWARD, Subject, find_subjects

TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def measure_all(options: argparse.Namespace) -> SpeedRun:
    """Measures what the options name, writes the files and prints it."""
    names = find_subjects(options.names)
    keep_memory()
    use_all_cores()
    there = jax.local_device_count()
    kinds = jax.default_backend(), "gpu" if torch.cuda.is_available() else "cpu"
    if len(set(kinds)) > 1:
        hint = "JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES= make both use the CPU"
        raise ValueError(f"JAX and PyTorch must use the same kind of device, got {' and '.join(kinds)}; {hint}")
    devices = options.devices or sorted({1, there})
    if max(devices) > there:
        raise ValueError(f"--devices must be at most {there}, the number of devices that JAX finds, got {max(devices)}")
    subjects = [Subject(name, batch, size) for name in names for size in options.size for batch in options.batch]
    growing = [name for name in names if options.growth and name.startswith("block/")]
    jobs: list[tuple[str | None, Subject]] = [(None, subject) for subject in subjects]
    jobs += [(axis, Subject(name, *how)) for name in growing for axis, points in AXES.items() for how in points]
    with settings(), Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=len(jobs))
        run = start_run()
        if options.resume and options.json.is_file():
            run = update(without_busy(from_json(options.json.read_text(encoding="utf-8"))), run)
        done = {
            (axis, Subject(each.name, each.batch, each.size))
            for axis, figures in ((None, run.figures), *run.growth.items())
            for each in figures
        }
        for axis, subject in jobs:
            bar.update(task, description=f"{subject.name}, {axis}" if axis else subject.name)
            if (axis, subject) not in done:
                figures = run.growth.setdefault(axis, []) if axis else run.figures
                try:
                    figures += measure_job(axis, subject, run.rates, devices, options)
                except ValueError as error:  # a block that takes no such map
                    figures += [no_figure(subject, work, str(error)) for work in subject.works]
                if options.json:
                    write_whole(options.json, to_json(run))
            bar.advance(task)
    if options.plot:
        save_plot(run, options.plot)
    print_run(run)
    return run


def measure_job(
    axis: str | None, subject: Subject, rates: Rates, devices: Sequence[int], options: argparse.Namespace
) -> list[Figure]:
    """The figures of a subject, or how one of a block's backward pass has grown along an axis."""
    if axis:
        figures = measure(subject, rates, [max(devices)], options.repeats, [WRITTEN])
        return [figure for figure in figures if figure.work == BACKWARD]
    if subject.is_block and not options.full:
        devices = options.devices or [max(devices)]
        return measure(subject, rates, devices, options.repeats, FORMS_OF_BLOCKS, with_memory=False)
    return measure(subject, rates, devices, options.repeats)


@contextlib.contextmanager
def settings() -> Iterator[None]:
    """All cores for PyTorch, and nothing compiled taken from a cache, whose time would be no compiler's."""
    threads, cached = torch.get_num_threads(), jax.config.values["jax_enable_compilation_cache"]
    folder = os.environ.get(TORCH_CACHE)
    torch.set_num_threads(usable_cores())
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        with tempfile.TemporaryDirectory() as os.environ[TORCH_CACHE]:
            yield
    finally:
        torch.set_num_threads(threads)
        jax.config.update("jax_enable_compilation_cache", cached)
        os.environ.pop(TORCH_CACHE)
        if folder is not None:
            os.environ[TORCH_CACHE] = folder
