"""Dropout as a layer: `flax_attn.ops.dropout` with a rate and a random stream."""

import jax
from flax import nnx

from .. import ops
from .._check import check_rate


class Dropout(nnx.Module):
    """Drops elements with probability ``rate`` in train mode; the identity in eval mode.

    ``module.train()`` and ``module.eval()`` switch modes, as for ``nnx.Dropout``.

    Attributes:
        keep_mask: Function that draws the mask, `flax_attn.ops.keep_mask` by default; test harnesses may replace it.

    Example:
        >>> layer = Dropout(0.5, rngs=nnx.Rngs(0))
        >>> layer.eval()
        >>> layer(jax.numpy.ones(3)).tolist()
        [1.0, 1.0, 1.0]
    """

    def __init__(self, rate: float, *, rngs: nnx.Rngs) -> None:
        check_rate("rate", rate)
        self.rate = float(rate)  # a NumPy float would promote low-precision inputs
        self.deterministic = False
        self.keep_mask: ops.KeepMask = ops.keep_mask
        # A rate of 0 draws nothing, so it does not require a random stream.
        self.rngs: nnx.RngStream | None = nnx.data(rngs.dropout.fork() if rate > 0 else None)

    @property
    def is_active(self) -> bool:
        """Whether calls drop elements."""
        return self.rngs is not None and not self.deterministic

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies dropout to an array of any shape."""
        draw = self.draw()
        return x if draw is None else draw(x)

    def draw(self) -> ops.DropoutDraw | None:
        """What the next call would apply, as a function; None where it drops nothing."""
        if self.rngs is None or self.deterministic:
            return None
        return ops.DropoutDraw(self.rngs(), self.rate, self.keep_mask)

    def set_view(self, deterministic: bool | None = None) -> None:
        """For ``nnx.view``.

        Args:
          deterministic: Whether to disable dropout.
        """
        if deterministic is not None:
            self.deterministic = deterministic
