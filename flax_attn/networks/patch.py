"""Small CNNs that detect a white patch in an image.

From Javier Fernandez' tutorial "Attention in computer vision": a convolutional part, an optional attention block,
global average pooling and a linear classifier. `PatchNetwork` accepts any block, for example from
`flax_attn.create_block`; the tutorial's own networks are separate classes.
"""

import inspect
from collections.abc import Set
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from .. import ops
from .._check import check_choice, check_positive, check_shape, is_below
from ..blocks.cbam import CBAM
from ..blocks.conv_multi_head import ConvMultiHeadAttention
from ..blocks.multi_head import MultiHeadAttention
from ..blocks.position import LearnedPositionEncoding2d, SinePositionEncoding2d
from ..layers import BatchNorm, Conv, Linear
from ..ops.dtype import score_dtype
from ..ops.tokens import TOKEN_ORDERS
from ..options import Options, check_options

CHANNELS = 32  # number of channels of the attended map
POSITIONS = (None, "sine", "learned")


class ConvPart(nnx.Module):
    """Three 5x5 convolutions, the first two with leaky ReLU (slope 0.01), BatchNorm (momentum 0.1) and 2x2 max-pooling.

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> ConvPart(rngs=nnx.Rngs(0))(jnp.ones((1, 96, 96, 3))).shape
        (1, 24, 24, 32)
    """

    def __init__(self, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        conv = partial(Conv, kernel_size=(5, 5), padding=2, rngs=rngs, **options)
        norm = partial(BatchNorm, momentum=0.1, rngs=rngs, **options)
        self.c1a = conv(3, CHANNELS)
        self.c2a = conv(CHANNELS, CHANNELS)
        self.c3 = conv(CHANNELS, CHANNELS)
        self.bn1a = norm(CHANNELS)
        self.bn2a = norm(CHANNELS)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (b, h, w, 3) to features (b, h // 4, w // 4, 32).

        Raises:
            ValueError: If the shape is wrong, or the image is smaller than 4 by 4 pixels.
        """
        check_shape("x", x, "b h w c", c=3)
        if any(is_below(size, 4) for size in x.shape[1:3]):
            raise ValueError(
                f"x must be at least 4 by 4 pixels, as it is halved twice, got {x.shape[1]} by {x.shape[2]}"
            )
        z = ops.max_pool_2x2(self.bn1a(ops.leaky_relu(self.c1a(x))))
        z = ops.max_pool_2x2(self.bn2a(ops.leaky_relu(self.c2a(z))))
        return self.c3(z)


class PatchNetwork(nnx.Module):
    """Predicts the probability of a patch: ``p = sigmoid(final(mean over the map of block(conv(x))))``.

    Args:
        block: Any block for 32 channels, or None. The signature of its call decides its input: tokens for
            (query, key, value) and for (tokens), the map as both arguments for (query, context), otherwise the map.
        token_order: Token order for token attention: "pixels", or "article" for the tutorial's reshape. Weights
            trained with one order load into the other without an error, but compute a different function.
        position: Position encoding added to the map before token attention, or None.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the token order is unknown, ``block`` is not a module, or ``position`` or a token order other
            than "pixels" is given without token attention.

    Example:
        >>> from flax_attn import ChannelGate
        >>> rngs = nnx.Rngs(0)
        >>> network = PatchNetwork(ChannelGate(32, 8, rngs=rngs), rngs=rngs)
        >>> p, attended = network(jnp.ones((2, 96, 96, 3)))
        >>> p.shape, attended.shape
        ((2,), (2, 24, 24, 32))
    """

    def __init__(
        self,
        block: nnx.Module | None = None,
        token_order: str = "pixels",
        position: nnx.Module | None = None,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_choice("token_order", token_order, TOKEN_ORDERS)
        if not (block is None or isinstance(block, nnx.Module)):
            raise ValueError(f"block must be an nnx.Module or None, got {block!r}")
        if block is None or call_arguments(block).isdisjoint(("key", "tokens")):
            if position is not None:
                raise ValueError(f"position must be None without token attention, got {type(position).__name__}")
            if token_order != "pixels":
                raise ValueError(f"token_order must be 'pixels' without token attention, got {token_order!r}")
        self.conv = ConvPart(rngs=rngs, **options)
        self.position = nnx.data(position)
        self.attn1 = nnx.data(block)
        self.final = Linear(CHANNELS, 1, rngs=rngs, **options)
        self.token_order = token_order

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Classifies images.

        Args:
            x: Images (b, h, w, 3), scaled as (uint8 - 128) / 128.

        Returns:
            The probability of a patch (b,), in at least float32, and the attended map (b, h//4, w//4, 32).
        """
        z = self.conv(x)
        attended = self.attend(z)
        check_shape("the block's output", attended, "b h w c", **dict(zip("bhwc", z.shape, strict=True)))
        logits = self.final(jnp.mean(attended, axis=(1, 2)))[:, 0]
        # Low precision cannot tell 0.999 from 1, and the loss takes log(1 - p).
        return nnx.sigmoid(logits.astype(score_dtype(logits.dtype))), attended

    def attend(self, z: jax.Array) -> jax.Array:
        """Applies the block to a map (b, h, w, 32) and returns a map."""
        if self.attn1 is None:
            return z
        return self_attend(self.attn1, z, self.token_order, self.position)


def call_arguments(block: Any) -> Set[str]:
    """The argument names of a block's call, which determine its kind."""
    return inspect.signature(block).parameters.keys()


def self_attend(block: Any, z: jax.Array, token_order: str = "pixels", position: Any = None) -> jax.Array:
    """Applies any block to a map (b, h, w, c), as self-attention for token blocks, and returns a map."""
    arguments = call_arguments(block)
    if "context" in arguments:
        attended: jax.Array = block(z, z)[0]
        return attended
    if arguments.isdisjoint(("key", "tokens")):
        gated: jax.Array = block(z)
        return gated
    z = z if position is None else position(z)
    tokens = ops.map_to_tokens(z, token_order)
    attended = block(tokens, tokens, tokens)[0] if "key" in arguments else block(tokens)
    return ops.tokens_to_map(attended, z.shape[1], z.shape[2], token_order)


def create_position(
    position: str | None, height: int, width: int, *, rngs: nnx.Rngs, **options: Unpack[Options]
) -> nnx.Module | None:
    """Creates the position encoding (None, "sine" or "learned") for a map (b, height, width, 32)."""
    if position == "sine":
        return SinePositionEncoding2d(CHANNELS, rngs=rngs, **options)
    if position == "learned":
        return LearnedPositionEncoding2d(height, width, CHANNELS, rngs=rngs, **options)
    return None


class Net(PatchNetwork):
    """The plain CNN without attention; returns p and the feature map.

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> Net(rngs=nnx.Rngs(0))(jnp.ones((2, 96, 96, 3)))[0].shape
        (2,)
    """

    def __init__(self, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        super().__init__(rngs=rngs, **options)


class NetMultiHeadAttention(PatchNetwork):
    """The CNN with `MultiHeadAttention` (4 heads, d_k = d_v = 8) between the pixels of the map.

    Args:
        token_order: "pixels", or "article" for checkpoints from the tutorial, which load into "pixels" without an
            error, but compute a different function.
        position: Position encoding, None, "sine" or "learned".
        height: Height of the attended map, only used by the learned encoding.
        width: Width of the attended map, only used by the learned encoding.
        dropout: Dropout rate of the attention block.
        rngs, **options: see `flax_attn.Options`.

    Raises:
        ValueError: If the token order or position is unknown, or a size is below 1.

    Example:
        >>> network = NetMultiHeadAttention(position="sine", rngs=nnx.Rngs(0))
        >>> network(jnp.ones((2, 96, 96, 3)))[1].shape
        (2, 24, 24, 32)
    """

    def __init__(
        self,
        token_order: str = "pixels",
        position: str | None = None,
        height: int = 24,
        width: int = 24,
        dropout: float = 0.1,
        *,
        rngs: nnx.Rngs,
        **options: Unpack[Options],
    ) -> None:
        check_options(self, options)
        check_choice("position", position, POSITIONS)
        check_positive(height=height, width=width)
        encoding = create_position(position, height, width, rngs=rngs, **options)
        block = MultiHeadAttention(4, CHANNELS, 8, 8, dropout, rngs=rngs, **options)
        super().__init__(block, token_order, encoding, rngs=rngs, **options)


class NetConvMultiHeadAttention(PatchNetwork):
    """The CNN with `ConvMultiHeadAttention` as self-attention.

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> NetConvMultiHeadAttention(rngs=nnx.Rngs(0))(jnp.ones((2, 96, 96, 3)))[0].shape
        (2,)
    """

    def __init__(self, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        super().__init__(ConvMultiHeadAttention(rngs=rngs, **options), rngs=rngs, **options)


class NetCBAM(PatchNetwork):
    """The CNN with `CBAM`; as in the tutorial, only its channel gate by default (``no_spatial=True``).

    Args:
        rngs, **options: see `flax_attn.Options`.

    Example:
        >>> NetCBAM(no_spatial=False, rngs=nnx.Rngs(0))(jnp.ones((2, 96, 96, 3)))[0].shape
        (2,)
    """

    def __init__(self, no_spatial: bool = True, *, rngs: nnx.Rngs, **options: Unpack[Options]) -> None:
        check_options(self, options)
        super().__init__(CBAM(CHANNELS, no_spatial=no_spatial, rngs=rngs, **options), rngs=rngs, **options)
