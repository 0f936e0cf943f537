"""A run of two cheap cases, made once."""

import pytest

from torch_ref.pairs import find_cases
from torch_ref.report.run import Options, run_cases


@pytest.fixture(scope="session")
def run():
    options = Options(dtypes=("float64", "bfloat16"), steps=2)
    return run_cases(find_cases(["ChannelPool", "PointwiseSpatialAttention, without norm"]), options)
