"""Lambda layers: a map is summarised as linear functions, which are then applied to its queries.

Bello, "LambdaNetworks: modeling long-range interactions without attention", ICLR 2021, section 3: the content's lambda
``sum_m softmax_m(k_m) v_m^T`` is one for the map, a position's ``sum_m e_(m - n) v_m^T`` is one for each place n, and
``y_n = (content + position_n)^T q_n`` for all heads. Vectors e exist for the r x r places around n, or for all
distances of a map of one size. Queries and values are batch-normalised, keys are not.

Differs from the paper: for r x r places there is a bias, as in the packages. From timm: ``dim_out`` may differ from
``dim``, and ``dim_u``, the intra-depth of the paper, is that of lambda-networks.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_heads, check_positive, check_shape
from ..layers import AvgPool, BatchNorm, Conv
from ..layers.initializers import reset_truncated_normal, truncated_normal
from ..options import Options, check_options


class LambdaLayer(nnx.Module):
    """Applies linear functions of a map's content and relative positions to its queries, without attention weights.

    Args:
        dim: Number of channels.
        dim_out: Number of output channels; None for ``dim``.
        feat_size: Height and width of the map, in pixels; only used if ``r`` is None.
        stride: 1, or 2 to halve the output by average pooling.
        num_heads: Number of heads, which must divide ``dim_out``.
        dim_head: Number of query and key features per head.
        r: Height and width of the neighbourhood whose positions count, odd; None for all of a map of ``feat_size``.
        qkv_bias: Whether queries, keys and values have a bias.
        dim_u: Number of keys and values that are summed up for each place.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If a size is below 1, ``r`` is even, ``feat_size`` is missing, ``num_heads`` does not divide
            ``dim_out``, or ``stride`` is neither 1 nor 2.

    Example:
        >>> layer = LambdaLayer(32, r=5, rngs=nnx.Rngs(0))
        >>> layer(jnp.ones((2, 5, 7, 32))).shape
        (2, 5, 7, 32)
    """

    def __init__(
        self,
        dim: int,
        dim_out: int | None = None,
        feat_size: tuple[int, int] | None = None,
        stride: int = 1,
        num_heads: int = 4,
        dim_head: int = 16,
        r: int | None = 9,
        qkv_bias: bool = False,
        dim_u: int = 1,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        dim_out = dim if dim_out is None else dim_out
        check_heads(num_heads, dim_out=dim_out)
        check_positive(dim=dim, dim_head=dim_head, dim_u=dim_u)
        check_choice("stride", stride, (1, 2))
        self.dim, self.num_heads, self.precision = dim, num_heads, options.get("precision")
        self.k, self.v, self.u = dim_head, dim_out // num_heads, dim_u
        self.qkv = Conv(dim, num_heads * self.k + dim_u * (self.k + self.v), 1, bias=qkv_bias, rngs=rngs, **options)
        reset_truncated_normal(self.qkv, rngs, dim**-0.5)
        self.norm_q = BatchNorm(num_heads * self.k, rngs=rngs, **options)
        self.norm_v = BatchNorm(dim_u * self.v, rngs=rngs, **options)
        self.feat_size: tuple[int, int] | None = None
        self.conv_lambda: Conv | None = nnx.data(None)
        self.pos_emb: nnx.Param[jax.Array] | None = nnx.data(None)
        if r is not None:
            check_positive(r=r)
            if r % 2 == 0:
                raise ValueError(f"r must be odd, got {r}")
            around = (r // 2, r // 2, 0)
            self.conv_lambda = Conv(dim_u, self.k, (r, r, 1), padding=around, rngs=rngs, **options)
            reset_truncated_normal(self.conv_lambda, rngs, self.k**-0.5)
        else:
            if not isinstance(feat_size, tuple | list) or len(feat_size) != 2:
                raise ValueError(
                    f"feat_size must be the height and width of the map where r is None, got {feat_size!r}"
                )
            h, w = feat_size
            check_positive(**{"feat_size[0]": h, "feat_size[1]": w})
            self.feat_size, shape = (h, w), (2 * h - 1, 2 * w - 1, self.k, dim_u)
            self.pos_emb = nnx.Param(
                truncated_normal(0.02)(rngs.params(), shape, options.get("param_dtype", jnp.float32))
            )
        self.pool = nnx.data(AvgPool(2) if stride == 2 else None)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the layer to a map (b, h, w, dim)."""
        h, w = self.feat_size or (None, None)
        check_shape("x", x, "b h w dim", h=h, w=w, dim=self.dim)
        b, h, w, _ = x.shape
        queries = self.num_heads * self.k
        q, k, v = jnp.split(self.qkv(x), (queries, queries + self.u * self.k), axis=-1)
        q = self.norm_q(q).reshape(b, h, w, self.num_heads, self.k)
        k = ops.softmax(k.reshape(b, h * w, self.u, self.k), axis=1)
        v = self.norm_v(v).reshape(b, h, w, self.u, self.v)
        content = jnp.einsum("bmuk,bmuv->bkv", k, v.reshape(b, h * w, self.u, self.v), precision=self.precision)
        lambdas = content[:, None, None] + jnp.swapaxes(self._positions(jnp.swapaxes(v, 3, 4)), 3, 4)
        out = jnp.einsum("byxhk,byxkv->byxhv", q, lambdas, precision=self.precision)
        out = out.reshape(b, h, w, self.num_heads * self.v)
        return out if self.pool is None else self.pool(out)

    def _positions(self, v: jax.Array) -> jax.Array:
        """The lambda of each place, (b, h, w, v, k), from values (b, h, w, v, u)."""
        if self.conv_lambda is not None:
            return self.conv_lambda(v)
        assert self.pos_emb is not None
        # A vector for each distance is a kernel that reaches over the whole map: no array of all pairs is needed.
        kernel = jnp.swapaxes(self.pos_emb[...], 2, 3)[:, :, None].astype(v.dtype)
        h, w = v.shape[1:3]
        return ops.conv_general_dilated(
            v,
            kernel,
            (1, 1, 1),
            [(h - 1, h - 1), (w - 1, w - 1), (0, 0)],
            dimension_numbers=("NHWDC", "HWDIO", "NHWDC"),
            precision=self.precision,
        )
