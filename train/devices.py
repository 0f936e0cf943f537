"""The devices of a run: batches are cut into equal parts, one for each."""

import contextlib
import ctypes
import os
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

SMALLEST_SHARE = 4  # images: with fewer, devices spend more time waiting for one another than computing


def usable_cores() -> int:
    """The number of cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_all_cores() -> None:
    """Makes every CPU core a device, as XLA runs a convolution on one thread per device; call it before JAX is used."""
    # No more than this process may use: with more devices than threads, XLA's would block one another for good.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", usable_cores())


def keep_memory() -> None:
    """Keeps the memory of arrays that are gone for new ones, where the C library is glibc; call it before JAX is used.

    glibc returns large arrays to the system, and takes memory anew at each step: a microsecond for each 4 KiB.
    """
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # as in malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        options = ctypes.CDLL(None).mallopt
        options(mmap_max, 0)  # large arrays on the heap,
        options(trim_threshold, -1)  # which never shrinks,
        options(arena_max, 1)  # and is one for all threads


class Layout:
    """Places arrays on the ``devices`` of a run, whose number divides the batch size; ``most_devices`` limits them."""

    def __init__(self, batch_size: int, most_devices: int | None = None) -> None:
        self.devices = share_out(batch_size, most_devices or jax.local_device_count())
        devices = jax.local_devices()[: self.devices]
        mesh = jax.make_mesh((self.devices,), ("batch",), axis_types=(AxisType.Auto,), devices=devices)
        self._parts = NamedSharding(mesh, PartitionSpec("batch"))
        self._copies = NamedSharding(mesh, PartitionSpec())

    def cut(self, tree: Any) -> Any:
        """Puts an equal part of each array (b, ...) of a pytree on each device."""
        return jax.device_put(tree, self._parts)

    def copy(self, tree: Any) -> Any:
        return jax.device_put(tree, self._copies)


def share_out(batch_size: int, available: int) -> int:
    """How many of the available devices share a batch.

    Example:
        >>> share_out(32, 2), share_out(32, 64), share_out(10, 4), share_out(7, 2)
        (2, 8, 2, 1)
    """
    most = max(1, min(available, batch_size // SMALLEST_SHARE))
    return max(n for n in range(1, most + 1) if batch_size % n == 0)
