"""2D position encodings, added to a map before attention flattens it into tokens.

Sine: Vaswani et al. 2017, section 3.5, in two dimensions as in Carion et al., "End-to-end object detection with
transformers", ECCV 2020. With C = channels / 2 for each axis and position p = 0, 1, ...:
``encoding[2i] = sin(p / temperature^(2i / C))``, ``encoding[2i + 1] = cos(p / temperature^(2i / C))``; the first half
of the channels encodes the row, the second the column.

Learned: one embedding table for rows and one for columns, each with half of the channels, as in Carion et al.

Differs from DETR: positions count from 0 and are not normalised, and the learned encoding has rows first, like the sine
encoding.
"""

from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .. import ops
from .._check import check_positive, check_shape, check_temperature
from ..layers import Embedding
from ..options import Options, check_options


class SinePositionEncoding2d(nnx.Module):
    """Adds a fixed encoding to a map: sines and cosines of the row and column. No parameters.

    Args:
        channels: Number of channels, a multiple of 4.
        temperature: Base of the wavelengths.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If ``channels`` is not a multiple of 4, or the temperature is not positive.

    Example:
        >>> SinePositionEncoding2d(8, rngs=nnx.Rngs(0))(jnp.zeros((1, 5, 7, 8)))[0, 0, 0].tolist()
        [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    """

    def __init__(
        self,
        channels: int,
        temperature: float = 10000,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(channels=channels)
        check_temperature(temperature, positive=True)
        if channels % 4:
            raise ValueError(f"channels must be a multiple of 4, got {channels}")
        self.channels = channels
        self.temperature = temperature
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Adds the encoding to a map (b, h, w, channels)."""
        check_shape("x", x, "b h w c", c=self.channels)
        x = ops.cast(x, self.dtype)
        rows = _sines(x.shape[1], self.channels // 2, self.temperature)
        columns = _sines(x.shape[2], self.channels // 2, self.temperature)
        encoding = _rows_then_columns(jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype))
        return x + encoding[None]


class LearnedPositionEncoding2d(nnx.Module):
    """Adds a learned encoding to a map: one embedding per row and one per column.

    Args:
        height: Height of the map.
        width: Width of the map.
        channels: Number of channels, even.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, or ``channels`` is odd.

    Example:
        >>> LearnedPositionEncoding2d(5, 7, 8, rngs=nnx.Rngs(0))(jnp.zeros((2, 5, 7, 8))).shape
        (2, 5, 7, 8)
    """

    def __init__(self, height: int, width: int, channels: int, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        check_positive(height=height, width=width, channels=channels)
        if channels % 2:
            raise ValueError(f"channels must be even, got {channels}")
        self.height, self.width, self.channels = height, width, channels
        self.row_embed = Embedding(height, channels // 2, rngs=rngs, **options)
        self.col_embed = Embedding(width, channels // 2, rngs=rngs, **options)
        self.dtype = options.get("dtype")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Adds the encoding to a map (b, height, width, channels)."""
        check_shape("x", x, "b h w c", h=self.height, w=self.width, c=self.channels)
        encoding = _rows_then_columns(self.row_embed(jnp.arange(self.height)), self.col_embed(jnp.arange(self.width)))
        return ops.cast(ops.add(x, encoding), self.dtype)


def _sines(length: int, channels: int, temperature: float) -> Any:
    """The one-dimensional encoding (length, channels), in float64; of a symbolic length in JAX's default precision."""
    xp: Any = np if isinstance(length, int) else jnp
    wavelengths = temperature ** (np.arange(0, channels, 2) / channels)
    angles = xp.arange(length, dtype=float)[:, None] / xp.asarray(wavelengths)[None]
    return xp.stack([xp.sin(angles), xp.cos(angles)], axis=-1).reshape(length, channels)


def _rows_then_columns(rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Broadcasts (h, c/2) and (w, c/2) to (h, w, c)."""
    shape = (rows.shape[0], columns.shape[0])
    return jnp.concatenate(
        [
            jnp.broadcast_to(rows[:, None], (*shape, rows.shape[1])),
            jnp.broadcast_to(columns[None], (*shape, columns.shape[1])),
        ],
        axis=-1,
    )
