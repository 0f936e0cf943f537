"""Images small enough that a run takes seconds, most of them compilation."""

import contextlib
import io
import json
import logging
import re
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from train.data import Source

HEIGHT, WIDTH = 32, 36


def small_images(count=40, height=HEIGHT, width=WIDTH, seed=0):
    """Smooth coloured noise: nothing in it looks like a white patch."""
    coarse = np.random.default_rng(seed).integers(20, 200, (count, height // 4, width // 4, 3), np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


# What a shell starts in the background ignores Ctrl-C, and what it starts inherits that, these tests included.
HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
HEEDING = f"{HEED}; import runpy; runpy.run_module('train', run_name='__main__')"  # python -c: as python -m train
FILES = [  # of a finished run
    ".lock",
    "attention.png",
    "checkpoints",
    "config.json",
    "curves.png",
    "data.json",
    "localisation.json",
    "machine.json",
    "metrics.jsonl",
    "model.safetensors",
    "steps.jsonl",
]


@contextlib.contextmanager
def compiled():
    """The names of the functions that JAX compiles meanwhile, of which none is left from before."""
    jax.clear_caches()
    names = []
    handler = logging.Handler()
    handler.emit = lambda record: names.extend(re.findall(r"^Compiling jit\((\w+)\)", record.getMessage()))
    logger = logging.getLogger("jax")
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield names
    finally:
        logger.removeHandler(handler)


def wait_for(process, happened, seconds=600.0, every=0.02):
    """Waits until ``happened()`` or ``process`` ends, which it does by force where a busy machine explains no more."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and not happened():
        if time.monotonic() > deadline:
            process.kill()
            raise TimeoutError(f"what was waited for did not happen within {seconds:.0f} s")
        time.sleep(every)


def results(folder: Path) -> tuple[object, str, bytes]:
    """All that a run leaves and that does not tell the time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["images_per_second"]
    return lines, (folder / "steps.jsonl").read_text(), (folder / "model.safetensors").read_bytes()


@pytest.fixture
def console():
    """Where nothing is a terminal; what was printed is in its file."""
    return Console(file=io.StringIO(), width=97)


@pytest.fixture
def source():
    return Source("small", small_images())


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, images=small_images())
    return path


@pytest.fixture(autouse=True, scope="session")
def leave_the_devices_alone():
    """Tests of other packages run in this process, too: a run within it takes the devices that it finds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.__main__.use_all_cores", lambda: None)
        patch.setattr("train.__main__.keep_memory", lambda: None)
        patch.setattr("train.__main__.keep_programs", lambda: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def short_pictures():
    """Runs draw two rows of maps, not six, which would take longer than to train; tests/train/look draws them all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.look.grid.ROWS", 2)
        yield
