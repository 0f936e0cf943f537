"""Multiply-adds against formulas, and what is measured of a training step."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from flax_attn.networks.patch import CHANNELS
from train.config import PatchConfig
from train.report.costs import measure, multiply_adds
from train.report.runs import ROWS
from train.tasks.patch import build_network

SIDE = 96
TOKENS = (SIDE // 4) ** 2


def convolution(side, size, ins, outs):
    """The multiply-adds of a convolution of a square map with odd kernels, without those with padding."""
    pad = size // 2
    inside = sum(min(place + pad, side - 1) - max(place - pad, 0) + 1 for place in range(side))
    return inside**2 * ins * outs


CNN = (
    convolution(SIDE, 5, 3, CHANNELS)
    + convolution(SIDE // 2, 5, CHANNELS, CHANNELS)
    + convolution(SIDE // 4, 5, CHANNELS, CHANNELS)
    + CHANNELS
)
BLOCKS = {  # the products of each block, by its formula
    "cnn": 0,
    "pointwise_spatial": TOKENS * CHANNELS**2,
    "cbam_spatial": 2 * 2 * CHANNELS * CHANNELS // 16 + convolution(SIDE // 4, 7, 2, 1),
    "multi_head-pixels": 4 * TOKENS * CHANNELS**2 + 2 * TOKENS**2 * CHANNELS,
}


@pytest.mark.parametrize("row", BLOCKS)
def test_networks_have_the_multiply_adds_of_their_formula(row):
    """And half of the operations on single elements: some ten for each of the maps, and of the attention's weights.

    Attention is counted whole, though a training step computes it in a loop over blocks.
    """
    network = build_network(dataclasses.replace(PatchConfig(), **ROWS[row]), SIDE, SIDE)
    elements = CHANNELS * sum((SIDE // halved) ** 2 for halved in (1, 2, 4))
    if row.startswith("multi_head"):
        elements += network.attn1.n_head * TOKENS**2
    more = multiply_adds(network, jnp.zeros((1, SIDE, SIDE, 3))) - CNN - BLOCKS[row]
    assert elements < more < 8 * elements


def test_what_is_measured_of_a_row():
    made = measure("cbam", 4, 20, 24)
    network = build_network(PatchConfig(network="cbam"), 20, 24)
    floats = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
    assert made.row == "cbam"
    assert made.multiply_adds == multiply_adds(network, jnp.zeros((1, 20, 24, 3)))
    assert 0 < made.milliseconds < math.inf
    assert made.step_bytes > 3 * 4 * floats * made.devices  # weights, and Adam's two means of each
    assert "jax" in made.where
