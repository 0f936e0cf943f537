"""What tests share."""

import os
from pathlib import Path

import pytest

# Tests run in as many processes as there are cores; PyTorch's threads on top of that wait for one another.
# Before torch is imported, or it is too late.
os.environ.setdefault("OMP_NUM_THREADS", "1")


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
