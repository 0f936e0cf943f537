"""Rotary positions on maps: pairs of features are turned by angles that grow with row and column.

Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021, in two dimensions: half of the pairs
turn with the row, half with the column, so that a product of two turned vectors depends on the difference of their
places alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .dtype import score_dtype


def rotary_angles(height: int, width: int, bands: int, reference: tuple[int, int]) -> Any:
    """Angles (height * width, 2 * bands), ``position * 10000^(-i / bands)`` for rows and then for columns.

    Args:
        height: Height of the map.
        width: Width of the map.
        bands: Number of frequencies.
        reference: Height and width of the map to which positions are scaled, whatever the size of this one.

    Returns:
        Angles in float64; for symbolic sizes in JAX's default precision.

    Example:
        >>> rotary_angles(2, 1, 1, (7, 7)).tolist()
        [[0.0, 0.0], [3.5, 0.0]]
    """
    frequencies = 10000.0 ** (-np.arange(bands) / bands)
    fixed = isinstance(height, int) and isinstance(width, int)
    xp: Any = np if fixed else jnp
    rows, columns = (
        xp.arange(length, dtype=float)[:, None] * (size / length) * xp.asarray(frequencies)[None]
        for length, size in zip((height, width), reference, strict=True)
    )
    shape = (height, width, bands)
    both = [xp.broadcast_to(rows[:, None], shape), xp.broadcast_to(columns[None], shape)]
    return xp.concatenate(both, axis=-1).reshape(height * width, 2 * bands)


def rotate(x: jax.Array, angles: Any) -> jax.Array:
    """Turns the pairs of features (0, 1), (2, 3), ... of (b, n, heads, d) by ``angles`` (n, d / 2).

    Example:
        >>> rotate(jnp.array([[[[1.0, 0.0]]]]), np.array([[np.pi / 2]])).round(5).ravel().tolist()
        [0.0, 1.0]
    """
    wide = score_dtype(x.dtype)
    xp: Any = np if isinstance(angles, np.ndarray) else jnp
    cos, sin = (jnp.asarray(function(angles), wide)[None, :, None] for function in (xp.cos, xp.sin))
    first, second = x[..., 0::2].astype(wide), x[..., 1::2].astype(wide)
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return turned.reshape(x.shape).astype(x.dtype)
