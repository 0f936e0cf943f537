"""Networks of a few places, and run folders without a run."""

import dataclasses
import json

import numpy as np
import pytest

import flax_attn
from train.config import PatchConfig
from train.tasks.patch import build_network

HEIGHT, WIDTH = 20, 28  # maps of 5 by 7 places


@pytest.fixture(autouse=True, scope="module")
def short_pictures():
    """Whole pictures: these tests look at them."""


def some_images(count, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def write_run(folder, height=HEIGHT, width=WIDTH, **options):
    """What a finished run leaves, from a network with the weights it starts from."""
    folder.mkdir(parents=True, exist_ok=True)
    config = PatchConfig(**options)
    network = build_network(config, height, width)
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(config)))
    (folder / "data.json").write_text(json.dumps({"image_size": [height, width]}))
    flax_attn.to_torch(network, folder / "model.safetensors")
    network.eval()
    return network


@pytest.fixture
def images():
    return some_images


@pytest.fixture
def make_run():
    return write_run


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    write_run(folder, network="cnn", seed=3)
    return folder
