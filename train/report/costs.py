"""What a network costs: multiply-adds, and the time and memory of a training step, all of JAX's compiled programs."""

import contextlib
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, PartitionSpec

from ..config import PatchConfig
from ..data import Source
from ..loop import Run
from ..step import train_step
from .runs import ROWS, Cost, machine

WARM_UP, STEPS = 3, 20


def measure(row: str, batch_size: int, height: int, width: int) -> Cost:
    """Measures the network of a row, with images of this size that are drawn at random."""
    config = PatchConfig(**ROWS[row], batch_size=batch_size, epochs=1)
    images = np.random.default_rng(0).integers(256, size=(2 * max(batch_size, 5), height, width, 3), dtype=np.uint8)
    with contextlib.closing(Run(config, Source("random", images))) as run:
        fed = next(run.feed.train(0, 0))
    network = run.network
    step: Any = train_step.lower(run.state, fed, 0, run.key, task=run.task).compile()
    memory, state, seconds = step.memory_analysis(), run.state, []
    for _ in range(WARM_UP + STEPS):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, fed, 0, run.key))
        seconds.append(time.perf_counter() - began)
    # Of one device. The new state takes the memory of the old one, which is counted with the arguments.
    sizes = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    devices, milliseconds = run.layout.devices, statistics.median(seconds[WARM_UP:]) * 1000
    used = (sizes - memory.alias_size_in_bytes) * devices
    count = multiply_adds(network, jnp.zeros((1, height, width, 3)))
    return Cost(row, count, milliseconds, used, devices, machine("ours"))


def multiply_adds(network: nnx.Module, x: jax.Array) -> float:
    """Half of the floating-point operations that XLA counts in a forward pass, in eval mode.

    A multiply-add is two operations, and so a lone addition, or another operation on each element, counts as half of
    one; products with a convolution's padding do not count. It is the program as it is lowered: the one for CPUs that
    XLA makes of it has calls of libraries, of which it knows no operations. And it is that under `jax.shard_map`, where
    our operations have no forms of their own for CPUs, which do more work, nor loops, of which XLA counts one pass.

    Example:
        >>> multiply_adds(nnx.Linear(32, 64, use_bias=False, rngs=nnx.Rngs(0)), jnp.zeros((10, 32)))
        20480.0
    """
    graph, state = nnx.split(network)

    def forward(state: Any, x: jax.Array) -> Any:
        network: Any = nnx.merge(graph, state, copy=True)
        network.eval()
        return network(x)

    mesh = jax.make_mesh((1,), ("one",), axis_types=(AxisType.Auto,), devices=jax.devices()[:1])
    everywhere = PartitionSpec()
    mapped = jax.shard_map(forward, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False)
    analysis: Any = jax.jit(mapped).lower(state, x).cost_analysis()
    return float(analysis["flops"]) / 2
