"""The registry of blocks: name, class, and the arguments for a map of a given number of channels.

`create_block`, the PyTorch twins (same module path and class name in ``torch_ref``), ``python -m train --network
NAME``, the training report and the documentation all read this table. To add a block, add an entry to `BLOCKS`.
"""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flax import nnx

from ._check import check_positive, nearest
from .blocks.additive import AdditiveAttention
from .blocks.cbam import CBAM, ChannelGate, SpatialGate
from .blocks.channel import UseAttentionModel
from .blocks.conv_multi_head import ConvAttention, ConvMultiHeadAttention
from .blocks.eca import EfficientChannelAttention
from .blocks.gather_excite import GatherExcite
from .blocks.gct import GatedChannelTransformation
from .blocks.global_context import GlobalContext
from .blocks.multi_head import MultiHeadAttention
from .blocks.pointwise import PointwiseSpatialAttention
from .blocks.simam import SimAM
from .blocks.spatial import SpatialAttentionModule
from .blocks.spatial_group import SpatialGroupEnhance
from .blocks.squeeze_excite import EffectiveSqueezeExcite, SqueezeExcite

Size = tuple[int, int]


@dataclass(frozen=True)
class Entry:
    """A registered block.

    Attributes:
        name: Name of the block in `create_block`.
        block: Class of the block.
        kind: Signature of the call. "gate": ``block(x)``, from map to map (b, h, w, c); "tokens": ``block(query, key,
            value)`` on tokens (b, n, c); "self": ``block(tokens)``, from tokens to tokens; "context": ``block(query,
            context)`` on maps or tokens; "head": ``block(x)``, from a map to a vector (b, k).
        arguments: Function from the number of channels and the map's size (h, w) to the arguments of the class.
        paper: Authors and year of the paper, or empty.
        url: URL of the paper, or empty.
        variant: What the arguments select, where several entries share a class.
        featured: Whether the README lists the block.
        needs_size: Whether the arguments depend on the map's size.
    """

    name: str
    block: type[nnx.Module]
    kind: Literal["gate", "tokens", "self", "context", "head"]
    arguments: Callable[[int, Any], dict[str, Any]]
    paper: str
    url: str
    variant: str = ""
    featured: bool = False
    needs_size: bool = False

    @property
    def over_tokens(self) -> bool:
        """Whether the block sees tokens, so that their order and positions matter."""
        return self.kind in ("tokens", "self")

    def arguments_for(self, channels: int, size: Size | None = None) -> dict[str, Any]:
        """Returns the arguments of the class for a map (b, h, w, channels).

        Raises:
            ValueError: If ``channels`` is below 1, or ``size`` is missing for a block that needs it.
        """
        check_positive(channels=channels)
        if self.needs_size and size is None:
            raise ValueError(f"size must be the height and width of the map for {self.name!r}, got None")
        return self.arguments(channels, size)


BAHDANAU = ("Bahdanau et al. 2015", "https://arxiv.org/abs/1409.0473")
CAO = ("Cao et al. 2019", "https://arxiv.org/abs/1904.11492")
FERNANDEZ = ("Fernandez, Attention in computer vision", "")
HU = ("Hu et al. 2018", "https://arxiv.org/abs/1709.01507")
HU_GE = ("Hu et al. 2018", "https://arxiv.org/abs/1810.12348")
LEE = ("Lee & Park 2020", "https://arxiv.org/abs/1911.06667")
LI = ("Li et al. 2019", "https://arxiv.org/abs/1905.09646")
VASWANI = ("Vaswani et al. 2017", "https://arxiv.org/abs/1706.03762")
WANG = ("Wang et al. 2020", "https://arxiv.org/abs/1910.03151")
WOO = ("Woo et al. 2018", "https://arxiv.org/abs/1807.06521")
YANG_GCT = ("Yang et al. 2020", "https://arxiv.org/abs/1909.11519")
YANG_SIMAM = ("Yang et al. 2021", "https://proceedings.mlr.press/v139/yang21o.html")
YOLOV4 = ("Bochkovskiy et al. 2020", "https://arxiv.org/abs/2004.10934")


def _heads(c: int, _: Any) -> dict[str, Any]:
    return {"n_head": 4, "d_model": c, "d_k": c // 4, "d_v": c // 4}


def _convolutions(c: int, _: Any) -> dict[str, Any]:
    return {"mem_in": c, "query_in": c, "key_size": c, "output_size": c}


BLOCKS = (
    Entry("multi_head", MultiHeadAttention, "tokens", _heads, *VASWANI, featured=True),
    Entry("conv_multi_head", ConvMultiHeadAttention, "context", _convolutions, *FERNANDEZ, featured=True),
    Entry("conv_attention", ConvAttention, "context", _convolutions, *FERNANDEZ, featured=True),
    Entry(
        "additive",
        AdditiveAttention,
        "tokens",
        lambda c, _: {"query_in": c, "key_in": c, "hidden": c},
        *BAHDANAU,
        featured=True,
    ),
    Entry(
        "cbam",
        CBAM,
        "gate",
        lambda c, _: {"gate_channels": c},
        *WOO,
        variant="Channel gate alone, the tutorial's default.",
        featured=True,
    ),
    Entry(
        "cbam_spatial",
        CBAM,
        "gate",
        lambda c, _: {"gate_channels": c, "no_spatial": False},
        *WOO,
        variant="Both gates, the authors' default.",
        featured=True,
    ),
    Entry("channel_gate", ChannelGate, "gate", lambda c, _: {"gate_channels": c}, *WOO, featured=True),
    Entry("spatial_gate", SpatialGate, "gate", lambda c, _: {}, *WOO, featured=True),
    Entry("channel_attention", UseAttentionModel, "gate", lambda c, _: {"in_planes": c}, *WOO, featured=True),
    Entry("eca", EfficientChannelAttention, "gate", lambda c, _: {"channels": c}, *WANG, featured=True),
    Entry("pointwise_spatial", PointwiseSpatialAttention, "gate", lambda c, _: {"channels": c}, *YOLOV4, featured=True),
    Entry("sensor_spatial", SpatialAttentionModule, "gate", lambda c, _: {}, "", "", featured=True),
    # Gates from the pooled map.
    Entry("squeeze_excite", SqueezeExcite, "gate", lambda c, _: {"channels": c}, *HU),
    Entry("effective_squeeze_excite", EffectiveSqueezeExcite, "gate", lambda c, _: {"channels": c}, *LEE),
    Entry("simam", SimAM, "gate", lambda c, _: {}, *YANG_SIMAM),
    Entry("spatial_group", SpatialGroupEnhance, "gate", lambda c, _: {"groups": c // 4}, *LI),
    Entry("gct", GatedChannelTransformation, "gate", lambda c, _: {"num_channels": c}, *YANG_GCT),
    Entry("global_context", GlobalContext, "gate", lambda c, _: {"channels": c}, *CAO),
    Entry("gather_excite", GatherExcite, "gate", lambda c, _: {"channels": c, "extent": 4}, *HU_GE),
    # Gates that also see the places of a map.
    # Kernels, branches and frequencies.
    # Tokens.
    # Between the places or the channels of a map.
    # Windows and neighbourhoods.
)


def list_blocks(pattern: str = "*") -> list[str]:
    """Lists the names of all blocks that match a shell-style pattern, in alphabetical order.

    Example:
        >>> list_blocks("cbam*")
        ['cbam', 'cbam_spatial']
    """
    return sorted(entry.name for entry in BLOCKS if fnmatch.fnmatchcase(entry.name, pattern))


def find_block(name: str) -> Entry:
    """Returns the entry of a block.

    Raises:
        ValueError: If no block has this name; the message suggests the nearest names.
    """
    by_name = {entry.name: entry for entry in BLOCKS}
    if name not in by_name:
        hint = nearest(name, list_blocks())
        raise ValueError(f"name must be a block of flax_attn.list_blocks(), got {name!r}; {hint}")
    return by_name[name]


def create_block(name: str, channels: int, *, size: Size | None = None, rngs: nnx.Rngs, **arguments: Any) -> Any:
    """Creates a block by name.

    Args:
        name: One of `list_blocks`.
        channels: Number of channels of the map (b, h, w, channels) or features of the tokens (b, n, channels).
        size: Height and width of the map, for blocks whose parameters depend on it.
        rngs: Random number generators, as for the class.
        **arguments: Arguments of the class, which override the registered ones, and options (`flax_attn.Options`).

    Raises:
        ValueError: If the name is unknown or the class rejects an argument's value.
        TypeError: If the class does not accept an argument.

    Example:
        >>> import jax.numpy as jnp
        >>> block = create_block("cbam", 32, reduction_ratio=8, rngs=nnx.Rngs(0))
        >>> type(block).__name__, block(jnp.ones((2, 5, 7, 32))).shape
        ('CBAM', (2, 5, 7, 32))
        >>> create_block("cbma", 32, rngs=nnx.Rngs(0))
        Traceback (most recent call last):
        ...
        ValueError: name must be a block of flax_attn.list_blocks(), got 'cbma'; did you mean 'cbam'?
    """
    entry = find_block(name)
    given: dict[str, Any] = {**entry.arguments_for(channels, size), **arguments, "rngs": rngs}
    return entry.block(**given)
