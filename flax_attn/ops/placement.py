"""Where arrays lie, as far as it decides how something is computed."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

TOKENS = "tokens"  # the axis of a mesh over which attention shares its queries


def is_automatic(*arrays: jax.Array) -> bool:
    """Whether JAX alone decides how these are spread over devices.

    It does not inside `jax.shard_map` and `jax.pmap`, nor on a mesh with explicit axes. There the types of arrays say
    how they are spread, and a loop or a backward pass of one's own would have to keep to it.

    Example:
        >>> is_automatic(jax.numpy.ones(3))
        True
    """
    meshes = [jax.typeof(array).sharding.mesh for array in arrays]
    return all(kind == AxisType.Auto for mesh in meshes for kind in mesh.axis_types)


def token_devices(n_query: int) -> int:
    """How many devices share so many queries: those of the current mesh's axis "tokens", where they divide them.

    A mesh is made current by `jax.set_mesh`; one with explicit or manual axes shares nothing here.

    Example:
        >>> token_devices(300)
        1
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = int(mesh.shape.get(TOKENS, 1))
    automatic = all(kind == AxisType.Auto for kind in mesh.axis_types)
    return devices if automatic and isinstance(n_query, int) and n_query % devices == 0 else 1


def share_queries(
    attend: Callable[..., Any], n_query: int, arrays: Sequence[jax.Array | None], axes: Sequence[int | None]
) -> Any:
    """``attend(first, *arrays)``, which each device of the mesh axis "tokens" computes for its own part of the queries.

    Args:
        attend: Also gets the number of the first query of the part. What it returns has the queries along axis 1.
        n_query: The number of all queries; where no devices share them, ``attend`` gets all.
        arrays: Arrays, or None.
        axes: The axis of queries in each; None, or an axis of size 1, gives each device the whole array.
    """
    devices = token_devices(n_query)
    if devices == 1:
        return attend(0, *arrays)
    size = n_query // devices

    # The devices are an axis of their own in all arrays, even in those that they have as a whole: so XLA divides loops
    # along it, and sums gradients over the devices after a loop and not within.
    def parts(array: jax.Array | None, axis: int | None) -> Any:
        if array is None:
            return None
        shape = array.shape
        if axis is None or shape[axis] == 1:
            return spread(jnp.broadcast_to(array[None], (devices, *shape)), 0)
        return spread(jnp.moveaxis(array.reshape(*shape[:axis], devices, size, *shape[axis + 1 :]), axis, 0), 0)

    out = jax.vmap(attend, out_axes=1)(jnp.arange(devices) * size, *map(parts, arrays, axes))
    return jax.tree.map(lambda x: x.reshape(x.shape[0], n_query, *x.shape[3:]), out)


@partial(jax.jit, static_argnames="axis")  # as it needs a mesh that arrays outside of `jax.jit` need not have
def spread(x: jax.Array, axis: int) -> jax.Array:
    """An array in parts on the devices of the mesh axis "tokens"; XLA divides what is computed from it likewise."""
    places: list[Any] = [P.UNCONSTRAINED] * x.ndim
    places[axis] = TOKENS
    parts: jax.Array = jax.lax.with_sharding_constraint(x, P(*places))
    return parts
