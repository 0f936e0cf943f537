"""Dropout as a layer: a random stream and a rate around `flax_attn.ops.dropout`."""

import jax
from flax import nnx

from .. import ops
from .._check import check_rate


class Dropout(nnx.Module):
    """Drops elements with probability ``rate`` while training; hands its input through in eval mode.

    ``module.train()`` and ``module.eval()`` switch it, as ``nnx.Dropout``.

    Attributes:
        keep_mask: the function that draws the mask, `flax_attn.ops.keep_mask`; a harness may put another in its place.

    Example:
        >>> layer = Dropout(0.5, rngs=nnx.Rngs(0))
        >>> layer.eval()
        >>> layer(jax.numpy.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs) -> None:
        check_rate("rate", rate)
        self.rate = float(rate)  # numpy's would widen a narrow input
        self.deterministic = False
        self.keep_mask: ops.KeepMask = ops.keep_mask
        # A rate of 0 draws nothing, so a caller who never drops needs no stream of random numbers.
        self.rngs: nnx.RngStream | None = nnx.data(rngs.dropout.fork() if rate > 0 else None)

    @property
    def is_active(self) -> bool:
        """Whether a call drops anything."""
        return self.rngs is not None and not self.deterministic

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies dropout to an array of any shape."""
        if self.rngs is None or self.deterministic:
            return x
        return ops.dropout(x, self.keep_mask(self.rngs(), self.rate, x.shape), self.rate)

    def set_view(self, deterministic: bool | None = None) -> None:
        """For ``nnx.view``.

        Args:
          deterministic: if True, nothing is dropped.
        """
        if deterministic is not None:
            self.deterministic = deterministic
