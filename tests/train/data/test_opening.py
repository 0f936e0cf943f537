"""What `--data` understands."""

import re
import subprocess
import sys

import pytest

from train.data import open_source
from train.data.opening import KINDS

UNKNOWN = ["", "npz", "npz:", "folder", "folder:", "stl", "stl10:", "stl10-labelled", "synthetic:3", "Synthetic"]


@pytest.mark.parametrize("data", UNKNOWN)
def test_an_unknown_kind_is_an_error_that_lists_the_known_ones(data):
    with pytest.raises(ValueError, match=f"^{re.escape(f'--data must be {KINDS}, got {data!r}')}$"):
        open_source(data)


def test_training_on_a_small_set_needs_neither_grain_nor_tensorflow(tmp_path):
    """On a machine without them; a stream then says what to install."""
    code = """
import sys
for name in ("grain", "tensorflow", "tensorflow_datasets"):
    sys.modules[name] = None
import numpy as np
import train.training
from train.data import open_source
from train.data.stream import Stream
np.savez("a.npz", images=np.zeros((7, 17, 19, 3), np.uint8))
source = open_source("npz:a.npz")
assert source.resident and source.images.shape == (7, 17, 19, 3)
for use in (lambda: Stream(source, 2, seed=0, shuffle=True), lambda: open_source("stl10")):
    try:
        use()
    except ValueError as error:
        print(error)
"""
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=path, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "streaming needs grain, got none; install it with: pip install -e '.[train]'",
        "stl10: tensorflow-datasets is needed, got: import of tensorflow_datasets halted; None in sys.modules; "
        "install it with: pip install -e '.[stl10]'",
    ], done.stderr
