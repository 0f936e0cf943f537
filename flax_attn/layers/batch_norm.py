"""BatchNorm with PyTorch's running statistics.

Ioffe & Szegedy, "Batch normalization", ICML 2015: ``y = (x - mean) / sqrt(var + eps) * scale + bias``, with the mean
and biased variance over all axes but the last in train mode, and the running statistics in eval mode.

Differs from ``nnx.BatchNorm``:

- ``momentum`` weights the *new* value, as in PyTorch: running = (1 - momentum) * running + momentum * batch.
- the running variance tracks the *unbiased* variance, n / (n - 1) times the one used to normalise.
- the variance is E[(x - mean)^2]; Flax's default, E[x^2] - mean^2, loses precision.

Where a batch is cut into parts for several devices, the statistics are those of the whole batch under ``jax.jit`` with
sharded arrays. Under ``jax.shard_map``, ``jax.pmap`` and ``jax.vmap`` a call sees its part alone: ``axis_name`` names
the axis over which statistics are then taken, too, as in ``nnx.BatchNorm`` and PyTorch's ``SyncBatchNorm``; without it
they are those of the part, as in PyTorch's ``DataParallel``. ``nnx.view(block, axis_name="data")`` tells a block.
"""

import math
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_shape, is_below
from ..ops.dtype import promoted, score_dtype
from ..options import Options, check_options


class BatchNorm(nnx.Module):
    """Batch normalisation of (b, ..., num_features) per feature.

    ``module.train()`` and ``module.eval()`` switch between batch and running statistics.

    Args:
        num_features: Number of features.
        eps: Added to the variance.
        momentum: Weight of a batch's statistics in the running ones; None for the mean over all batches, which counts
            them in ``num_batches_tracked``.
        axis_name: Name of a mapped axis over which a batch's statistics are taken as well.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: In train mode, if there is only one value per feature and the unbiased variance is undefined.

    Example:
        >>> norm = BatchNorm(1, momentum=0.5, rngs=nnx.Rngs(0))
        >>> _ = norm(jnp.array([[1.0], [3.0]]))
        >>> norm.mean[...].tolist(), norm.var[...].tolist()
        ([1.0], [1.5])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        *,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        del rngs  # unused: the scale starts at 1 and the bias at 0
        param_dtype = options.get("param_dtype", jnp.float32)
        # Below float32, running statistics would stop changing: their updates are too small.
        stats_dtype = score_dtype(param_dtype)
        self.scale = nnx.Param(jnp.ones(num_features, param_dtype))
        self.bias = nnx.Param(jnp.zeros(num_features, param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros(num_features, stats_dtype))
        self.var = nnx.BatchStat(jnp.ones(num_features, stats_dtype))
        if momentum is None:
            self.num_batches_tracked = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.axis_name = axis_name
        self.dtype = options.get("dtype")
        self.use_running_average = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises ``x`` and, in train mode, updates the running statistics."""
        check_shape("x", x, " ".join([*(f"axis_{i}" for i in range(x.ndim - 1)), "c"]), c=self.num_features)
        dtype = self.dtype or jnp.promote_types(x.dtype, self.scale.dtype)
        wide = x.astype(score_dtype(dtype))
        if self.use_running_average:
            mean, var = self.mean[...].astype(wide.dtype), self.var[...].astype(wide.dtype)
            centred = wide - ops.with_rank(mean, x.ndim)
        else:
            axes = tuple(range(x.ndim - 1))
            mean = self._over_parts(jnp.mean(wide, axis=axes))
            centred = wide - ops.with_rank(mean, x.ndim)
            var = self._over_parts(jnp.mean(jnp.square(centred), axis=axes))
            parts = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
            self._update(mean, var, count=parts * math.prod(x.shape[:-1]))
        factor = jax.lax.rsqrt(var + self.eps) * self.scale[...].astype(wide.dtype)
        bias = self.bias[...].astype(wide.dtype)
        return (centred * ops.with_rank(factor, x.ndim) + ops.with_rank(bias, x.ndim)).astype(dtype)

    def _over_parts(self, mean: jax.Array) -> jax.Array:
        return mean if self.axis_name is None else jax.lax.pmean(mean, self.axis_name)

    def _update(self, mean: jax.Array, var: jax.Array, count: int) -> None:
        if is_below(count, 2):
            raise ValueError(f"x must have more than 1 value per feature while training, got {count}")
        number: int | jax.Array = count if isinstance(count, int) else jnp.asarray(count).astype(var.dtype)
        unbiased = var * (number / (number - 1))
        dtype = promoted(self.mean.dtype, mean.dtype)
        weight: float | jax.Array
        if self.momentum is None:
            self.num_batches_tracked[...] += 1
            weight = 1 / self.num_batches_tracked[...].astype(dtype)
        else:
            weight = self.momentum
        for running, new in ((self.mean, mean), (self.var, unbiased)):
            moved = (1 - weight) * running[...].astype(dtype) + weight * new.astype(dtype)
            running[...] = jax.lax.stop_gradient(moved).astype(running.dtype)

    def set_view(self, use_running_average: bool | None = None, axis_name: str | None = None) -> None:
        """For ``nnx.view``.

        Args:
          use_running_average: Whether to normalise with the running statistics, without updating them.
          axis_name: Name of a mapped axis over which a batch's statistics are taken as well.
        """
        if axis_name is not None:
            self.axis_name = axis_name
        if use_running_average is not None:
            self.use_running_average = use_running_average
