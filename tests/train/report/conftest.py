"""Images, and made-up outcomes for tables."""

import numpy as np
import pytest

from train.data import Source
from train.report.runs import Cost, Outcome, Report

from ..conftest import small_images


def coloured_noise(seed):
    return small_images(39, height=20, width=24, seed=seed)


@pytest.fixture(scope="session")
def other_source():
    return Source("other", coloured_noise(1))


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, images=coloured_noise(0))
    return path


def outcome(row, error, *, protocol="per_image", side="ours", seed=0, pointing=0.9, accuracy=0.97, **maps):
    scores = {"pointing": pointing, "energy": 3.5, "average_precision": 0.8, "patched": 48, "images": 100}
    return Outcome(
        row=row,
        protocol=protocol,
        side=side,
        seed=seed,
        parameters=53_857,
        train_errors=[0.7, 0.11],
        test_errors=[error, error + 0.1],
        test_accuracy=accuracy,
        maps={"class_activation": scores, **{name: {**scores, "pointing": value} for name, value in maps.items()}},
        where="a processor; jax 1.2.3",
    )


def cost(row, multiply_adds=92_812_345.5, milliseconds=38.96):
    return Cost(row, multiply_adds, milliseconds, 92_274_688, 2, "a processor; jax 1.2.3")


def report(*outcomes, costs=()):
    options = {"data": "npz:photos.npz", "epochs": 2, "batch_size": 10, "learning_rate": 1e-3, "seeds": [0, 1]}
    images = {"images": 50, "train": [0, 40], "test": [40, 50], "image_size": [32, 36]}
    return Report(options, images, list(outcomes), list(costs))
