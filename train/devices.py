"""Where a run computes: batches are cut into equal parts, one for each device."""

import contextlib
import math
import os
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def usable_cores() -> int:
    """As many as this process may use, which a container or a job's settings make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


SMALLEST_SHARE = 4  # images: with fewer, devices wait for one another longer than they compute
COPIES_BYTES = 2**31  # 2 GiB, of what all devices hold a copy of where their memory is the host's

Tree = TypeVar("Tree")


def use_all_cores() -> None:
    """Makes every core a device of its own, where it is the CPU that computes.

    XLA runs a convolution on one thread per device. To be called before JAX is used for the first time; after that it
    changes nothing.
    """
    # As many as this process may use: with more devices than threads, XLA's would wait for one another for good.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", usable_cores())


class Layout:
    """Puts arrays where a run needs them.

    Attributes:
        devices: how many devices are used, a number that divides the batch.
    """

    def __init__(self, batch_size: int) -> None:
        self.devices = share_out(batch_size, jax.local_device_count())
        devices = jax.local_devices()[: self.devices]
        mesh = jax.make_mesh((self.devices,), ("batch",), axis_types=(AxisType.Auto,), devices=devices)
        self._parts = NamedSharding(mesh, PartitionSpec("batch"))
        self._copies = NamedSharding(mesh, PartitionSpec())

    @property
    def most(self) -> float:
        """Bytes of which each device may have a copy: CPU devices have theirs in the same memory."""
        platform = next(iter(self._copies.device_set)).platform
        return COPIES_BYTES / self.devices if platform == "cpu" else math.inf

    def cut(self, array: np.ndarray) -> jax.Array:
        """An array (b, ...) with an equal part on each device."""
        return jax.device_put(array, self._parts)

    def copy(self, tree: Tree) -> Tree:
        """A pytree with a copy on each device."""
        copied: Tree = jax.device_put(tree, self._copies)
        return copied


def share_out(batch_size: int, available: int) -> int:
    """How many of the available devices a batch is cut for.

    Example:
        >>> share_out(32, 2), share_out(32, 64), share_out(10, 4), share_out(7, 2)
        (2, 8, 2, 1)
    """
    most = max(1, min(available, batch_size // SMALLEST_SHARE))
    return max(n for n in range(1, most + 1) if batch_size % n == 0)
