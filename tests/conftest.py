"""What tests share: the cases, by name."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def photos() -> Path:
    """The archive of photographs that FLAX_ATTN_PHOTOS names."""
    named = os.environ.get("FLAX_ATTN_PHOTOS")
    if not named or not Path(named).is_file():
        pytest.skip("FLAX_ATTN_PHOTOS does not name an .npz of photographs")
    return Path(named)
