"""A network's results and all that its blocks record, from one pass."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flax_attn import attention_maps, ops

Named = dict[str, jax.Array]


class _Witness(nnx.Module):
    """Records results beside what the blocks of a network record."""

    def __init__(self, network: nnx.Module, judge: Callable[[Any, jax.Array], Named]) -> None:
        self.network, self.judge = network, judge

    def __call__(self, x: jax.Array) -> None:
        for name, result in self.judge(self.network, x).items():
            ops.record(self, name, result)


def witness(network: nnx.Module, judge: Callable[[Any, jax.Array], Named], x: jax.Array) -> tuple[Named, Named]:
    """Lets a network judge x in eval mode, in which it is then.

    Args:
        network: any.
        judge: gets the network and x, and gives results by name.
        x: what the network takes.

    Returns:
        The results, and what blocks recorded, by path; all in float32.
    """
    network.eval()
    seen = {path: array.astype(jnp.float32) for path, array in attention_maps(_Witness(network, judge), x).items()}
    recorded = {path.removeprefix("network."): seen.pop(path) for path in list(seen) if path.startswith("network.")}
    return seen, recorded
