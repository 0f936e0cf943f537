"""Multi-spectral channel attention: squeeze-and-excitation of a frequency of each channel, where that takes the mean.

Qin, Zhang, Wu & Li, "FcaNet: frequency channel attention networks", ICCV 2021: ``x * sigmoid(W2 relu(W1 z))`` with
``z_c = sum over the map of x_c * D_c``, where D_c is a function of the two-dimensional discrete cosine transform
(type II, orthonormal). The channels are split evenly among the chosen frequencies.

Differs from the paper: the frequencies are those of the authors' code, in three orders: "top" of those that did best
alone, "low" and "bot" of the lowest and the worst. They belong to a map of 7x7; on a larger one, each counts
``dct_h // 7`` or ``dct_w // 7`` times. Maps of another size than the transform's are first averaged to its size.
"""

import math
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_ratio, check_shape
from ..layers import Linear
from ..ops.dtype import promoted
from ..options import Options, check_options

# Vertical and horizontal frequencies, two digits each, in the order of the authors' lists.
ORDERS = {
    "top": "00 01 60 05 02 10 12 40 50 16 30 04 06 03 35 22 46 63 33 53 55 21 61 52 54 32 31 41 23 20 65 13",
    "low": "00 01 10 11 02 20 21 12 22 03 30 40 04 13 31 05 14 23 32 41 50 06 15 24 33 42 51 60 16 25 34 43",
    "bot": "66 14 34 36 26 43 11 24 44 45 56 15 42 62 25 51 64 13 65 20 23 41 31 32 54 52 61 21 55 53 33 63",
}
METHODS = tuple(f"{order}{count}" for order in ORDERS for count in (1, 2, 4, 8, 16, 32))


class MultiSpectralAttention(nnx.Module):
    """Scales each channel by a gate from an MLP of the channels' components at a few frequencies (FcaNet).

    Args:
        channel: Number of channels, a multiple of the number of frequencies.
        dct_h: Height of the transformed map, at least 7.
        dct_w: Width of the transformed map, at least 7.
        reduction: The MLP has channel // reduction hidden units.
        freq_sel_method: Frequencies, "top", "low" or "bot" followed by their number, 1, 2, 4, 8, 16 or 32.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is too small, the frequencies are unknown or do not divide the channels, or the ratio
            leaves no hidden unit.

    Example:
        >>> MultiSpectralAttention(32, 7, 7, rngs=nnx.Rngs(0))(jnp.ones((2, 14, 21, 32))).shape
        (2, 14, 21, 32)
    """

    def __init__(
        self,
        channel: int,
        dct_h: int,
        dct_w: int,
        reduction: int = 16,
        freq_sel_method: str = "top16",
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(channel=channel)
        check_positive(minimum=7, dct_h=dct_h, dct_w=dct_w)
        check_choice("freq_sel_method", freq_sel_method, METHODS)
        check_ratio("reduction", reduction, channel)
        frequencies = ORDERS[freq_sel_method[:3]].split()[: int(freq_sel_method[3:])]
        if channel % len(frequencies):
            raise ValueError(
                f"channel must be a multiple of {len(frequencies)}, the number of frequencies, got {channel}"
            )
        self.channel, self.size, self.dtype = channel, (dct_h, dct_w), options.get("dtype")
        # A variable that is no parameter, as it is in the state_dict but does not learn.
        functions = np.repeat(_functions(frequencies, dct_h, dct_w), channel // len(frequencies), axis=-1)
        self.dct_weight: nnx.Variable[Any] = nnx.Variable(
            jnp.asarray(functions, ops.score_dtype(options.get("param_dtype", jnp.float32)))
        )
        linear = partial(Linear, bias=False, rngs=rngs, **options)
        self.fc = nnx.Sequential(
            linear(channel, channel // reduction), ops.relu, linear(channel // reduction, channel), ops.sigmoid
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies a gate (b, 1, 1, channel) to a map (b, h, w, channel)."""
        check_shape("x", x, "b h w c", c=self.channel)
        x = ops.cast(x, self.dtype)
        weight = self.dct_weight[...]
        pooled = ops.adaptive_avg_pool(x, self.size).astype(promoted(x.dtype, weight.dtype))
        spectrum = jnp.sum(ops.multiply(pooled, weight), axis=(1, 2)).astype(x.dtype)
        gate = self.fc(spectrum)[:, None, None, :]
        ops.record(self, "gate", gate)
        return ops.multiply(x, gate)


def _functions(frequencies: list[str], height: int, width: int) -> np.ndarray:
    """The functions (height, width, number of frequencies) of the transform."""
    rows = np.stack([_cosine(int(one[0]) * (height // 7), height) for one in frequencies], axis=-1)
    columns = np.stack([_cosine(int(one[1]) * (width // 7), width) for one in frequencies], axis=-1)
    return np.asarray(rows[:, None] * columns[None])


def _cosine(frequency: int, length: int) -> np.ndarray:
    scale = math.sqrt((2 if frequency else 1) / length)
    return np.asarray(scale * np.cos(math.pi * frequency * (np.arange(length) + 0.5) / length))
