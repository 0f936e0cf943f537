"""Images for whole trainings."""

import numpy as np
import pytest

from train.data import Source


def coloured_noise(seed):
    coarse = np.random.default_rng(seed).integers(20, 200, (39, 5, 6, 3), np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)


@pytest.fixture(scope="session")
def small_source():
    return Source("small", coloured_noise(0))


@pytest.fixture(scope="session")
def other_source():
    return Source("other", coloured_noise(1))


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, images=coloured_noise(0))
    return path
