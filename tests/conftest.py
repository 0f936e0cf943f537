"""What tests share."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Tests run in as many processes as there are cores; PyTorch's threads on top of that wait for one another.
# Before torch is imported, or it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Most of the time goes into compiling. What one process has compiled no other one, and no command that a test starts,
# compiles again; nothing is kept beyond the run.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="flax_attn_compiled_")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


def pytest_addoption(parser):
    group = parser.getgroup("properties")
    group.addoption("--examples", type=int, default=25, help="calls that are drawn for every class (25)")
    group.addoption("--all-programs", action="store_true", help="draw from every mode and dtype of every case")


@pytest.fixture(scope="session")
def photos() -> Path:
    """The archive of photographs that FLAX_ATTN_PHOTOS names."""
    named = os.environ.get("FLAX_ATTN_PHOTOS")
    if not named or not Path(named).is_file():
        pytest.skip("FLAX_ATTN_PHOTOS does not name an .npz of photographs")
    return Path(named)
