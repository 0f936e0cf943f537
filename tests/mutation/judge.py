"""Runs tests on a mutated copy of the project, each time in a process of its own."""

import contextlib
import gc
import importlib
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = ("flax_attn", "torch_ref", "train", "tests", "pyproject.toml", "README.md")
MEMORY = 8 << 30  # a mutated size can ask for all there is

LOADED_ONCE = (
    "einops",
    "flax.nnx",
    "hypothesis",
    "jaxlib.mlir.dialects.mhlo",
    "scipy.special",
    "scipy.stats",
    "torch",
)

# Compiled programs are kept between mutants, most of which compile what the others do; a run that is not repeated gains
# nothing from an optimiser.
ENVIRONMENT = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "OMP_NUM_THREADS": "1",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTHONWARNINGS": "ignore",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
}


class Verdict(NamedTuple):
    """How a run of tests ended.

    Attributes:
        passed: whether all passed.
        output: the end of what it printed.
        failed: the name of the test that failed, "" if none did or none ran.
        seconds: of computing time.
    """

    passed: bool
    output: str
    failed: str
    seconds: float


def prepare(results: Path) -> None:
    """Loads what every test needs, and nothing of the project, once: the processes that run tests start as copies."""
    os.environ.update(ENVIRONMENT, JAX_COMPILATION_CACHE_DIR=str(results / "compiled"))
    # A mutant is written within the second in which the last one was, which is all that a .pyc file knows of time.
    sys.dont_write_bytecode = True
    for name in LOADED_ONCE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # half of a short run would go into looking through what was loaded here


@contextlib.contextmanager
def copy_of_the_project(root: Path) -> Iterator[Path]:
    """A copy in which files can be changed; the checkout itself stays as it is."""
    with tempfile.TemporaryDirectory(prefix="flax_attn_mutants_") as folder:
        for name in PROJECT:
            source, target = root / name, Path(folder) / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        yield Path(folder)


def run_tests(copy: Path, tests: list[str], seconds: float, first: Sequence[str] = ()) -> Verdict:
    """Runs pytest in a copy until the first failure.

    Computing time is limited and not the time of the clock, which says little on a busy machine.

    Args:
        copy: the root of the copy.
        tests: files and folders.
        seconds: the limit.
        first: the names of tests that shall come first, as `Verdict.failed` gives them.
    """
    log, failed = copy / "log.txt", copy / "failed.txt"
    failed.write_text("")
    child = os.fork()
    if child == 0:
        try:
            code = _run_pytest(copy, tests, int(seconds) + 1, log, _Order(first, failed))
        except BaseException:
            code = 1
        os._exit(code)
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    output = log.read_text(errors="replace")
    if code in (pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.USAGE_ERROR):
        raise RuntimeError(f"{tests} must name tests, got:\n{output}")
    if code < 0:
        output += f"\nended by {signal.Signals(-code).name}, the limit is {seconds:.0f} s"
    return Verdict(code == 0, output[-4000:], failed.read_text(), usage.ru_utime + usage.ru_stime)


class _Order:
    """A plugin of pytest: some tests come first; the one that fails is written down."""

    def __init__(self, first: Sequence[str], failed: Path) -> None:
        self.rank = {name: place for place, name in enumerate(first)}
        self.failed = failed

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: self.rank.get(item.nodeid, len(self.rank)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.write_text(report.nodeid)


def _run_pytest(copy: Path, tests: list[str], seconds: int, log: Path, order: _Order) -> int:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    signal.alarm(60 * seconds)  # for one that waits and does not compute
    with log.open("w") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    os.chdir(copy)
    sys.path.insert(0, str(copy))
    import flax_attn

    assert Path(flax_attn.__file__).is_relative_to(copy), flax_attn.__file__
    return int(
        pytest.main(["-q", "-x", "-p", "no:cacheprovider", "-p", "no:unraisableexception", *tests], plugins=[order])
    )
