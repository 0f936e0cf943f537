"""Windows of maps, and where the places in them lie relative to each other.

`window_partition` cuts a map into windows that do not overlap, `unfold` into windows that may. `fold` sums overlapping
windows, so it is the transpose of `unfold`; both are as in PyTorch, but for the order of the axes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from .attention import dot_product_attention

Size = tuple[int, int]


def window_partition(x: jax.Array, window_size: Size) -> jax.Array:
    """Cuts a map (b, h, w, c) into windows of tokens (b * windows, n, c), where n is the area of a window.

    Windows and tokens go row by row, and the windows of one map follow each other.

    Raises:
        ValueError: If the map is not a whole number of windows high and wide.

    Example:
        >>> window_partition(jnp.arange(8).reshape(1, 2, 4, 1), (2, 2))[..., 0].tolist()
        [[0, 1, 4, 5], [2, 3, 6, 7]]
    """
    b, h, w, c = x.shape
    height, width = window_size
    check_divides("window_size", window_size, (h, w))
    x = jnp.reshape(x, (b, h // height, height, w // width, width, c))
    return jnp.reshape(jnp.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height * width, c))


def window_reverse(windows: jax.Array, window_size: Size, size: Size) -> jax.Array:
    """Puts windows (b * windows, n, c) back together to maps (b, h, w, c) of a given size (h, w).

    Raises:
        ValueError: If the maps are not a whole number of windows high and wide.

    Example:
        >>> window_reverse(window_partition(jnp.ones((3, 4, 6, 5)), (2, 3)), (2, 3), (4, 6)).shape
        (3, 4, 6, 5)
    """
    (height, width), (h, w) = window_size, size
    check_divides("window_size", window_size, size)
    x = jnp.reshape(windows, (-1, h // height, w // width, height, width, windows.shape[-1]))
    return jnp.reshape(jnp.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, h, w, windows.shape[-1]))


def repeat_windows(array: jax.Array, b: int) -> jax.Array:
    """Repeats what is for the windows of one map, (windows, ...), for those of several, (b, ...).

    Example:
        >>> repeat_windows(jnp.arange(2), 6).tolist()
        [0, 1, 0, 1, 0, 1]
    """
    windows, *rest = array.shape
    return jnp.broadcast_to(array[None], (b // windows, windows, *rest)).reshape(b, *rest)


def check_divides(argument: str, window_size: Size, size: Size) -> None:
    """Raises ``ValueError`` unless a map of ``size`` is a whole number of windows high and wide."""
    if any(length % window != 0 for length, window in zip(size, window_size, strict=True)):
        raise ValueError(f"{argument} must divide the map's height and width {size}, got {window_size}")


def unfold(x: jax.Array, kernel_size: int, stride: int = 1, padding: int = 0) -> jax.Array:
    """The windows around the places of a map: (b, h, w, c) -> (b, rows, columns, kernel_size, kernel_size, c).

    Args:
        x: (b, h, w, c).
        kernel_size: Height and width of a window.
        stride: Distance between windows.
        padding: Number of zeros on each side of the map.

    Raises:
        ValueError: If the padded map is smaller than a window.

    Example:
        >>> unfold(jnp.arange(3.0).reshape(1, 1, 3, 1), 3, padding=1)[0, 0, :, 1, :, 0].tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 0.0]]
    """
    if any(isinstance(length, int) and length + 2 * padding < kernel_size for length in x.shape[1:3]):
        raise ValueError(f"x must have h and w >= {kernel_size - 2 * padding} for its windows, got {x.shape}")
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    x = _along(_along(x, 1, kernel_size, stride), 3, kernel_size, stride)
    return jnp.transpose(x, (0, 1, 3, 2, 4, 5))


def _along(x: jax.Array, axis: int, kernel_size: int, stride: int) -> jax.Array:
    """The windows along one axis, which becomes two: windows and places in them.

    Slices rather than one gather, whose backward pass, a scatter, is slow on CPUs.
    """
    end = (x.shape[axis] - kernel_size) // stride * stride + 1
    slices = [jax.lax.slice_in_dim(x, first, first + end, stride, axis) for first in range(kernel_size)]
    return jnp.stack(slices, axis + 1)


def fold(windows: jax.Array, size: Size, stride: int = 1, padding: int = 0) -> jax.Array:
    """Sums windows (b, rows, columns, kernel_size, kernel_size, c), where they overlap, to maps (b, *size, c).

    Example:
        >>> fold(unfold(jnp.ones((1, 1, 3, 1)), 3, padding=1), (1, 3), padding=1)[0, 0, :, 0].tolist()
        [2.0, 3.0, 2.0]
    """
    kernel_size = windows.shape[3]
    whole = jax.ShapeDtypeStruct((windows.shape[0], *size, windows.shape[-1]), windows.dtype)
    transposed = jax.linear_transpose(partial(unfold, kernel_size=kernel_size, stride=stride, padding=padding), whole)
    folded: jax.Array = transposed(windows)[0]
    return folded


def relative_position_index(window_size: Size) -> np.ndarray:
    """The row, for a query and a key in a window, of a table of all relative positions: whole numbers (n, n).

    The table has (2 * height - 1) * (2 * width - 1) rows, sorted by how far below the key the query is, then by how far
    to the right.

    Example:
        >>> relative_position_index((1, 3)).tolist()
        [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    """
    height, width = window_size
    rows, columns = (places.ravel() for places in np.mgrid[:height, :width])
    down = rows[:, None] - rows[None] + height - 1
    right = columns[:, None] - columns[None] + width - 1
    return np.asarray(down * (2 * width - 1) + right)


def relative_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    height_rel: jax.Array,
    width_rel: jax.Array,
    *,
    scale_positions: bool = False,
    mask: jax.Array | None = None,
    need_weights: bool = True,
    precision: jax.lax.PrecisionLike = None,
) -> tuple[jax.Array, jax.Array | None]:
    """Computes ``softmax(s q k^T + q r_rows + q r_columns) v`` over maps, with s = 1/sqrt(d).

    Row j of the keys is j - y rows below row y of the queries, and both are counted from the first, also where keys
    surround the queries. Queries and keys get features whose products are what the positions add, so that the scores
    are those of `dot_product_attention`, and never held at once where that does not.

    Args:
        query: (b, h, w, heads, d).
        key: (b, rows, columns, heads, d).
        value: (b, rows, columns, heads, d_v).
        height_rel: A vector for each distance between rows, from -(rows - 1) to rows - 1: (2 * rows - 1, d).
        width_rel: The same for columns: (2 * columns - 1, d).
        scale_positions: Whether s also scales what the positions add.
        mask: (b, heads, h * w, rows * columns), as for `dot_product_attention`, as are the others.
        need_weights: Whether to return the attention weights.
        precision: Precision of the products.

    Returns:
        The output (b, h * w, heads, d_v), and the weights (b, heads, h * w, rows * columns) or None.

    Example:
        >>> query, key = jnp.ones((2, 3, 5, 4, 8)), jnp.ones((2, 7, 9, 4, 8))
        >>> out, weights = relative_attention(query, key, key, jnp.ones((13, 8)), jnp.ones((17, 8)))
        >>> out.shape, weights.shape
        ((2, 15, 4, 8), (2, 4, 15, 63))
    """
    b, h, w, heads, d = query.shape
    rows, columns = key.shape[1:3]
    by_row = jnp.einsum("byxhd,yjd->byxhj", query, _distances(height_rel, h, query.dtype), precision=precision)
    by_column = jnp.einsum("byxhd,xjd->byxhj", query, _distances(width_rel, w, query.dtype), precision=precision)
    scaled = query if scale_positions else query * d**-0.5
    places = jnp.asarray(row_and_column((rows, columns)), key.dtype)[None, :, :, None]
    places = jnp.broadcast_to(places, (*key.shape[:-1], rows + columns))
    return dot_product_attention(
        jnp.concatenate([scaled, by_row, by_column], axis=-1).reshape(b, h * w, heads, -1),
        jnp.concatenate([key, places], axis=-1).reshape(b, rows * columns, heads, -1),
        value.reshape(b, rows * columns, heads, -1),
        temperature=d**0.5 if scale_positions else 1.0,
        mask=mask,
        need_weights=need_weights,
        precision=precision,
    )


def _distances(table: jax.Array, queries: int, dtype: DTypeLike) -> jax.Array:
    """The vector for each query and key along one axis: (queries, keys, d)."""
    keys = (table.shape[0] + 1) // 2
    return table.astype(dtype)[np.arange(keys)[None] - np.arange(queries)[:, None] + keys - 1]


def row_and_column(size: Size) -> np.ndarray:
    """For each place of a map (h, w), ones at its row and, behind the rows, at its column: (h, w, h + w).

    Example:
        >>> row_and_column((1, 2)).tolist()
        [[[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]]]
    """
    rows, columns = (np.eye(length, dtype=np.float32) for length in size)
    h, w = size
    return np.concatenate(
        [np.broadcast_to(rows[:, None], (h, w, h)), np.broadcast_to(columns[None], (h, w, w))], axis=-1
    )
