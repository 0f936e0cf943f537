"""Where arrays lie, as far as it decides how something is computed."""

import jax
from jax.sharding import AxisType


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
