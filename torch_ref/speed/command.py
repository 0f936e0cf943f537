"""``python -m torch_ref speed``, behind its options."""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator

import jax
import torch
from rich.console import Console
from rich.progress import Progress

from train.devices import keep_memory, usable_cores, use_all_cores

from .figures import SpeedRun, to_json
from .measure import AXES, measure, measure_growth, start_run
from .shown import print_run, save_plot
from .subjects import Subject, find_subjects

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
    with settings(), Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=len(subjects) + len(AXES) * len(growing))
        run = start_run()
        for subject in subjects:
            bar.update(task, description=subject.name)
            run.figures.extend(measure(subject, run.rates, devices, options.repeats))
            bar.advance(task)
        for name in growing:
            for axis in AXES:
                bar.update(task, description=f"{name}, {axis}")
                figures = measure_growth(name, axis, run.rates, max(devices), options.repeats)
                run.growth.setdefault(axis, []).extend(figures)
                bar.advance(task)
    if options.json:
        options.json.write_text(to_json(run), encoding="utf-8")
    if options.plot:
        save_plot(run, options.plot)
    print_run(run)
    return run


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
