"""Images for whole trainings."""

import numpy as np
import pytest

from train.data import Source

from ..conftest import small_images


def coloured_noise(seed):
    return small_images(39, height=20, width=24, seed=seed)


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
