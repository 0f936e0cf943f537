"""The devices of a run, in one process or several: batches are cut into equal parts, one for each."""

import contextlib
import ctypes
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
    """Places arrays on the ``devices`` of a run; by default on those of this process that share a batch.

    As many in a row as ``tokens`` says share the rows of the same images, in steps under its ``mesh``.
    """

    def __init__(self, batch_size: int, devices: Sequence[jax.Device] | None = None, tokens: int = 1) -> None:
        devices = devices or jax.local_devices()[: share_out(batch_size, jax.local_device_count())]
        self.devices = len(devices)
        shape, kinds = (self.devices // tokens, tokens), (AxisType.Auto,) * 2
        self.mesh = jax.make_mesh(shape, ("data", "tokens"), axis_types=kinds, devices=devices)
        self._parts = NamedSharding(self.mesh, PartitionSpec("data"))
        self._copies = NamedSharding(self.mesh, PartitionSpec())

    def cut(self, tree: Any) -> Any:
        """Puts equal parts of each array (b, ...) of a pytree on the devices; all processes have the whole arrays."""
        return jax.tree.map(lambda leaf: _put(leaf, self._parts), tree)

    def copy(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: _put(leaf, self._copies), tree)

    def own(self, size: int) -> np.ndarray:
        """The indices of an axis of this size that lie on this process's devices, where it is cut."""
        places = self._parts.addressable_devices_indices_map((size,)).values()
        return np.unique(np.concatenate([np.arange(size)[place] for place in places if place is not None]))

    def join(self, part: np.ndarray, size: int) -> Any:
        """The array (size, ...) of which this process has the ``part`` at `own`."""
        return jax.make_array_from_process_local_data(self._parts, part, (size, *part.shape[1:]))

    def pieces(self, tree: Any) -> Any:
        """Inside ``jax.jit``: each leaf in equal pieces, one on each device, along its longest axis that allows it."""
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self._piece(leaf.shape)), tree)

    def whole(self, tree: Any) -> Any:
        """Inside ``jax.jit``: each leaf as a whole on each device."""
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self._copies), tree)

    def _piece(self, shape: tuple[int, ...]) -> NamedSharding:
        sizes = [size if size % self.devices == 0 else 0 for size in shape]
        if not any(sizes):
            return self._copies
        longest = sizes.index(max(sizes))
        return NamedSharding(self.mesh, PartitionSpec(*[None] * longest, self.mesh.axis_names))


def lay(tree: Any, *axes: str) -> Any:
    """Inside ``jax.jit``, where devices share tokens: arrays that are cut along these axes of the mesh, or whole."""
    shared = jax.sharding.get_abstract_mesh().shape.get("tokens", 1) > 1
    return jax.lax.with_sharding_constraint(tree, PartitionSpec(*axes)) if shared else tree


def _put(leaf: Any, sharding: NamedSharding) -> Any:
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, whole.__getitem__)


def run_devices(batch_size: int, wanted: int | None = None, tokens: int = 1) -> list[jax.Device]:
    """The devices of a run, as many of each process, of which so many share the tokens of the same images.

    By default those of all processes, or of one as many as `share_out` says; raises ``ValueError`` where there are not
    so many, or they do not divide the batch size.
    """
    available, processes = jax.device_count(), jax.process_count()
    if wanted is None:
        wanted = min(share_out(batch_size, available // tokens) * tokens, available) if processes == 1 else available
    if not 0 < wanted <= available or wanted % processes:
        multiple = f", a multiple of the {processes} processes," if processes > 1 else ""
        raise ValueError(f"--devices must be at least 1{multiple} and at most the {available} there are, got {wanted}")
    if wanted % tokens:
        raise ValueError(f"--token-devices must divide the number of devices, {wanted}, got {tokens}")
    if batch_size % (parts := wanted // tokens):
        raise ValueError(f"--batch-size must be a multiple of the {parts} devices that share it, got {batch_size}")
    return [device for number in range(processes) for device in jax.local_devices(number)[: wanted // processes]]


def share_out(batch_size: int, available: int) -> int:
    """How many of the available devices share a batch.

    Example:
        >>> share_out(32, 2), share_out(32, 64), share_out(10, 4), share_out(7, 2)
        (2, 8, 2, 1)
    """
    most = max(1, min(available, batch_size // SMALLEST_SHARE))
    return max(n for n in range(1, most + 1) if batch_size % n == 0)
