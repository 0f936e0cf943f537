"""Class-specific residual attention: a classifier of maps that looks where a class is.

Zhu & Wu, "Residual attention: a simple but effective method for multi-label recognition", ICCV 2021: scores
``s_n = w_k x_n / |w_k|`` of class k at each pixel n, and the logit ``mean_n s_n + lam * sum_n a_n s_n`` with
``a = softmax over n of T s_n``. As T goes to infinity, the sum goes to the maximum. Several heads, each with a
classifier and a T of its own, are added.

Differs from the paper, as the authors' code does: a temperature of 99 stands for infinity.
"""

from functools import partial
from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_shape, check_temperature
from ..layers import Conv
from ..options import Options, check_options

MAXIMUM = 99
TEMPERATURES = {
    1: (1,),
    2: (1, MAXIMUM),
    4: (1, 2, 4, MAXIMUM),
    6: (1, 2, 3, 4, 5, MAXIMUM),
    8: (1, 2, 3, 4, 5, 6, 7, MAXIMUM),
}


class ClassSpecificResidualAttention(nnx.Module):
    """Classifies each pixel and adds to the mean score that of the pixels where the class scores high (CSRA).

    Args:
        input_dim: Number of channels.
        num_classes: Number of classes, k.
        temperature: Factor of the scores in the softmax, T; 99 takes the maximum instead.
        lam: Weight of the attended score.
        normalize: Whether the weights of each class are divided by their norm.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, or the temperature is not above 0.

    Example:
        >>> csra = ClassSpecificResidualAttention(8, 20, rngs=nnx.Rngs(0))
        >>> csra(jnp.ones((2, 5, 7, 8))).shape
        (2, 20)
    """

    def __init__(
        self,
        input_dim: int,
        num_classes: int,
        temperature: float = 1,
        lam: float = 0.1,
        normalize: bool = True,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_positive(input_dim=input_dim, num_classes=num_classes)
        check_temperature(temperature, positive=True)
        self.input_dim, self.temperature, self.lam, self.normalize = input_dim, temperature, lam, normalize
        self.head = Conv(input_dim, num_classes, 1, bias=False, rngs=rngs, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, h, w, input_dim) to logits (b, num_classes)."""
        check_shape("x", x, "b h w c", c=self.input_dim)
        scores = self.head(x)
        dtype = scores.dtype
        scores = jnp.reshape(scores, (x.shape[0], -1, scores.shape[-1])).astype(ops.score_dtype(dtype))
        if self.normalize:
            norm = ops.safe_norm(self.head.kernel[0, 0].astype(scores.dtype), 0)
            scores = scores / ops.with_rank(norm, 3)
        if self.temperature == MAXIMUM:
            attended = ops.max_first(scores, 1)[:, 0]
            weights = partial(jax.nn.one_hot, jnp.argmax(scores, axis=1), scores.shape[1], axis=1, dtype=dtype)
        else:
            soft = nnx.softmax(self.temperature * scores, axis=1)
            attended = jnp.sum(soft * scores, axis=1)
            weights = partial(soft.astype, dtype)
        if ops.is_recording(self):
            ops.record(self, "weights", jnp.swapaxes(weights(), 1, 2)[:, None])
        return (jnp.mean(scores, axis=1) + self.lam * attended).astype(dtype)


class MultiHeadResidualAttention(nnx.Module):
    """Adds the logits of class-specific residual attention at several temperatures (CSRA with several heads).

    Args:
        num_heads: 1, 2, 4, 6 or 8; the temperatures are 1, 2, ... and last the maximum, those of 4 heads 1, 2, 4.
        lam: Weight of the attended scores.
        input_dim: Number of channels.
        num_classes: Number of classes, k.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If there are no temperatures for this number of heads, or a size is below 1.

    Example:
        >>> csra = MultiHeadResidualAttention(2, 0.1, 8, 20, rngs=nnx.Rngs(0))
        >>> csra(jnp.ones((2, 5, 7, 8))).shape
        (2, 20)
    """

    def __init__(
        self,
        num_heads: int,
        lam: float,
        input_dim: int,
        num_classes: int,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_choice("num_heads", num_heads, tuple(TEMPERATURES))
        head = partial(ClassSpecificResidualAttention, input_dim, num_classes, lam=lam, rngs=rngs, **options)
        self.multi_head = nnx.List([head(temperature=temperature) for temperature in TEMPERATURES[num_heads]])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (b, h, w, input_dim) to logits (b, num_classes)."""
        return jnp.sum(jnp.stack([head(x) for head in self.multi_head]), axis=0)
