"""What all tests share: the compilation cache and the number of hypothesis examples."""

import gc
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Tests run in as many processes as there are cores, and PyTorch's threads would compete with them. Set before torch is
# imported, or it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Most of the time goes into compilation: what one process or an earlier run has compiled is read from the cache.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


def pytest_addoption(parser):
    parser.addoption("--examples", type=int, default=100, help="calls that tests/properties draws per class at night")


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    """Programs that run a few times need no optimiser. The nightly parity run and new processes compile as usual."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()


@pytest.fixture(autouse=True)
def few_programs(request):
    """At night a test may compile thousands, each with maps of memory; XLA ends a process that has 65,530 of these."""
    yield
    if request.node.get_closest_marker("nightly"):
        import jax

        jax.clear_caches()


@pytest.fixture(scope="session")
def photos() -> Path:
    """The archive of photographs that FLAX_ATTN_PHOTOS names."""
    named = os.environ.get("FLAX_ATTN_PHOTOS")
    if not named or not Path(named).is_file():
        pytest.skip("FLAX_ATTN_PHOTOS does not name an .npz of photographs")
    return Path(named)


def pytest_collection_finish():
    # Otherwise the garbage collector goes through the loaded frameworks again and again: a tenth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
