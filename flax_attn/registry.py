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
from .blocks.attention_pool import AttentionPool2d, RotaryAttentionPool2d
from .blocks.axial import AxialAttention
from .blocks.bam import BAM
from .blocks.bilinear import BatNonLocal
from .blocks.bottleneck import BottleneckAttention
from .blocks.cbam import CBAM, ChannelGate, SpatialGate
from .blocks.channel import UseAttentionModel
from .blocks.conv_multi_head import ConvAttention, ConvMultiHeadAttention
from .blocks.coordinate import CoordinateAttention
from .blocks.criss_cross import CrissCrossAttention
from .blocks.csra import ClassSpecificResidualAttention, MultiHeadResidualAttention
from .blocks.danet import DANetChannelAttention, DANetPositionAttention
from .blocks.differential import DifferentialAttention
from .blocks.double import DoubleAttention
from .blocks.eca import EfficientChannelAttention
from .blocks.external import ExternalAttention, MultiHeadExternalAttention
from .blocks.focal import FocalModulation
from .blocks.gather_excite import GatherExcite
from .blocks.gct import GatedChannelTransformation
from .blocks.global_context import GlobalContext
from .blocks.halo import HaloAttention
from .blocks.lambda_layer import LambdaLayer
from .blocks.large_kernel import LargeKernelAttention, VANAttention
from .blocks.local import EfficientLocalAttention
from .blocks.multi_head import MultiHeadAttention
from .blocks.multi_query import MultiQueryAttention2d
from .blocks.multi_spectral import MultiSpectralAttention
from .blocks.non_local import NonLocalAttention
from .blocks.outlook import OutlookAttention
from .blocks.parnet import ParNetAttention
from .blocks.pointwise import PointwiseSpatialAttention
from .blocks.polarized import ParallelPolarizedSelfAttention, SequentialPolarizedSelfAttention
from .blocks.pyramid_split import PyramidSplitAttention
from .blocks.response_norm import GlobalResponseNorm
from .blocks.scse import SCSE
from .blocks.selective_kernel import SelectiveKernel
from .blocks.separable import SeparableSelfAttention
from .blocks.shuffle import ShuffleAttention
from .blocks.simam import SimAM
from .blocks.spatial import SpatialAttentionModule
from .blocks.spatial_group import SpatialGroupEnhance
from .blocks.spatial_reduction import SpatialReductionAttention
from .blocks.split_attention import SplitAttention
from .blocks.squeeze_excite import EffectiveSqueezeExcite, SqueezeExcite
from .blocks.strip import StripAttention
from .blocks.triplet import TripletAttention
from .blocks.ufo import UFOAttention
from .blocks.vit import SelfAttention
from .blocks.window import ShiftedWindowAttention

Size = tuple[int, int]
PLACES = ("branch", "convolution", "stages")


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
        cost: How the work grows with the number n of tokens or pixels, for a fixed number of channels.
        place: Where a ResNet has the block, one of `PLACES`: on the "branch" before the addition, in place of a 3x3
            "convolution" with its norm and ReLU, or between the "stages".
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
    cost: str = "n"
    place: Literal["branch", "convolution", "stages"] = "branch"

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


A2_NET = ("Chen et al. 2018", "https://arxiv.org/abs/1810.11579")
AXIAL = ("Ho et al. 2019", "https://arxiv.org/abs/1912.12180")
BAHDANAU = ("Bahdanau et al. 2015", "https://arxiv.org/abs/1409.0473")
BELLO = ("Bello 2021", "https://arxiv.org/abs/2102.08602")
FERNANDEZ = ("Fernandez, Attention in computer vision", "")
HOU = ("Hou et al. 2021", "https://arxiv.org/abs/2103.02907")
LIU = ("Liu et al. 2021", "https://arxiv.org/abs/2107.00782")
MISRA = ("Misra et al. 2021", "https://arxiv.org/abs/2010.03045")
PARK = ("Park et al. 2018", "https://arxiv.org/abs/1807.06514")
ROY = ("Roy et al. 2018", "https://arxiv.org/abs/1803.02579")
SONG = ("Song 2021", "https://arxiv.org/abs/2109.14382")
STRIPS = ("timm, after Hou et al. 2020", "https://arxiv.org/abs/2003.13328")
GUO = ("Guo et al. 2023", "https://arxiv.org/abs/2202.09741")
LI = ("Li et al. 2019", "https://arxiv.org/abs/1903.06586")
LIU_2021 = ("Liu et al. 2021", "https://arxiv.org/abs/2103.14030")
SRINIVAS = ("Srinivas et al. 2021", "https://arxiv.org/abs/2101.11605")
DOSOVITSKIY = ("Dosovitskiy et al. 2021", "https://arxiv.org/abs/2010.11929")
GUO_EXTERNAL = ("Guo et al. 2022", "https://arxiv.org/abs/2105.02358")
MEHTA = ("Mehta & Rastegari 2022", "https://arxiv.org/abs/2206.02680")
QIN = ("Qin et al. 2024", "https://arxiv.org/abs/2404.10518")
RADFORD = ("Radford et al. 2021", "https://arxiv.org/abs/2103.00020")
SU = ("Su et al. 2021", "https://arxiv.org/abs/2104.09864")
BAT = (
    "Chi et al. 2020",
    "https://openaccess.thecvf.com/content_CVPR_2020/html/Chi_Non-Local_Neural_Networks_With_Grouped_Bilinear_Attentional_Transforms_CVPR_2020_paper.html",
)
CCNET = ("Huang et al. 2019", "https://arxiv.org/abs/1811.11721")
DANET = ("Fu et al. 2019", "https://arxiv.org/abs/1809.02983")
NON_LOCAL = ("Wang et al. 2018", "https://arxiv.org/abs/1711.07971")
CAO = ("Cao et al. 2019", "https://arxiv.org/abs/1904.11492")
HU = ("Hu et al. 2018", "https://arxiv.org/abs/1709.01507")
HU_GE = ("Hu et al. 2018", "https://arxiv.org/abs/1810.12348")
LEE = ("Lee & Park 2020", "https://arxiv.org/abs/1911.06667")
LI_GROUPS = ("Li et al. 2019", "https://arxiv.org/abs/1905.09646")
VASWANI = ("Vaswani et al. 2017", "https://arxiv.org/abs/1706.03762")
VASWANI_2021 = ("Vaswani et al. 2021", "https://arxiv.org/abs/2103.12731")
WANG = ("Wang et al. 2020", "https://arxiv.org/abs/1910.03151")
WANG_2021 = ("Wang et al. 2021", "https://arxiv.org/abs/2102.12122")
WOO = ("Woo et al. 2018", "https://arxiv.org/abs/1807.06521")
XU = ("Xu & Wan 2024", "https://arxiv.org/abs/2403.01123")
YE = ("Ye et al. 2025", "https://arxiv.org/abs/2410.05258")
YANG_GCT = ("Yang et al. 2020", "https://arxiv.org/abs/1909.11519")
YANG_SIMAM = ("Yang et al. 2021", "https://proceedings.mlr.press/v139/yang21o.html")
YOLOV4 = ("Bochkovskiy et al. 2020", "https://arxiv.org/abs/2004.10934")
ZHANG = ("Zhang & Yang 2021", "https://arxiv.org/abs/2102.00240")
ZHU = ("Zhu & Wu 2021", "https://arxiv.org/abs/2108.02456")
YANG_2022 = ("Yang et al. 2022", "https://arxiv.org/abs/2203.11926")
YUAN_2022 = ("Yuan et al. 2022", "https://arxiv.org/abs/2106.13112")


def _heads(c: int, _: Any) -> dict[str, Any]:
    return {"n_head": 4, "d_model": c, "d_k": c // 4, "d_v": c // 4}


def _convolutions(c: int, _: Any) -> dict[str, Any]:
    return {"mem_in": c, "query_in": c, "key_size": c, "output_size": c}


BLOCKS = (
    Entry("multi_head", MultiHeadAttention, "tokens", _heads, *VASWANI, featured=True, cost="n²"),
    Entry("conv_multi_head", ConvMultiHeadAttention, "context", _convolutions, *FERNANDEZ, featured=True, cost="n²"),
    Entry("conv_attention", ConvAttention, "context", _convolutions, *FERNANDEZ, featured=True, cost="n²"),
    Entry(
        "additive",
        AdditiveAttention,
        "tokens",
        lambda c, _: {"query_in": c, "key_in": c, "hidden": c},
        *BAHDANAU,
        featured=True,
        cost="n²",
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
    Entry("spatial_group", SpatialGroupEnhance, "gate", lambda c, _: {"groups": c // 4}, *LI_GROUPS),
    Entry("gct", GatedChannelTransformation, "gate", lambda c, _: {"num_channels": c}, *YANG_GCT),
    Entry("global_context", GlobalContext, "gate", lambda c, _: {"channels": c}, *CAO),
    Entry("gather_excite", GatherExcite, "gate", lambda c, _: {"channels": c, "extent": 4}, *HU_GE),
    # Gates that also see the places of a map.
    Entry("bam", BAM, "gate", lambda c, _: {"gate_channel": c}, *PARK, place="stages"),
    Entry("scse", SCSE, "gate", lambda c, _: {"in_channels": c}, *ROY),
    Entry("coordinate", CoordinateAttention, "gate", lambda c, _: {"channels": c}, *HOU),
    Entry("triplet", TripletAttention, "gate", lambda c, _: {}, *MISRA),
    Entry("shuffle", ShuffleAttention, "gate", lambda c, _: {"channels": c}, *ZHANG),
    Entry("polarized_parallel", ParallelPolarizedSelfAttention, "gate", lambda c, _: {"channels": c}, *LIU),
    Entry("polarized_sequential", SequentialPolarizedSelfAttention, "gate", lambda c, _: {"channels": c}, *LIU),
    Entry("efficient_local", EfficientLocalAttention, "gate", lambda c, _: {"channels": c}, *XU),
    Entry("strip", StripAttention, "gate", lambda c, _: {"channels": c}, *STRIPS),
    # Kernels, branches and frequencies.
    Entry("selective_kernel", SelectiveKernel, "gate", lambda c, _: {"in_channels": c}, *LI, place="convolution"),
    Entry(
        "split_attention",
        SplitAttention,
        "gate",
        lambda c, _: {"in_channels": c, "norm": True},
        "Zhang et al. 2022",
        "https://arxiv.org/abs/2004.08955",
        place="convolution",
    ),
    Entry(
        "response_norm",
        GlobalResponseNorm,
        "gate",
        lambda c, _: {"dim": c},
        "Woo et al. 2023",
        "https://arxiv.org/abs/2301.00808",
    ),
    Entry("large_kernel", LargeKernelAttention, "gate", lambda c, _: {"dim": c}, *GUO),
    Entry("van", VANAttention, "gate", lambda c, _: {"d_model": c}, *GUO),
    Entry(
        "pyramid_split",
        PyramidSplitAttention,
        "gate",
        lambda c, _: {"in_planes": c, "planes": c, "conv_groups": (1, 2, 4, 8), "reduction": 4},
        "Zhang et al. 2022",
        "https://arxiv.org/abs/2105.14447",
    ),
    Entry(
        "multi_spectral",
        MultiSpectralAttention,
        "gate",
        lambda c, _: {"channel": c, "dct_h": 7, "dct_w": 7},
        "Qin et al. 2021",
        "https://arxiv.org/abs/2012.11879",
    ),
    Entry("csra", ClassSpecificResidualAttention, "head", lambda c, _: {"input_dim": c, "num_classes": c}, *ZHU),
    Entry(
        "csra_multi_head",
        MultiHeadResidualAttention,
        "head",
        lambda c, _: {"num_heads": 4, "lam": 0.1, "input_dim": c, "num_classes": c},
        *ZHU,
    ),
    Entry(
        "parnet",
        ParNetAttention,
        "gate",
        lambda c, _: {"channel": c},
        "Goyal et al. 2022",
        "https://arxiv.org/abs/2110.07641",
    ),
    # Tokens.
    Entry("ufo", UFOAttention, "tokens", lambda c, _: {"d_model": c, "d_k": c // 4, "d_v": c // 4, "h": 4}, *SONG),
    Entry("self_attention", SelfAttention, "self", lambda c, _: {"dim": c, "num_heads": 4}, *DOSOVITSKIY, cost="n²"),
    Entry("external", ExternalAttention, "self", lambda c, _: {"d_model": c}, *GUO_EXTERNAL),
    Entry(
        "external_multi_head",
        MultiHeadExternalAttention,
        "self",
        lambda c, _: {"dim": c, "num_heads": 4},
        *GUO_EXTERNAL,
    ),
    Entry("differential", DifferentialAttention, "self", lambda c, _: {"dim": c, "num_heads": 4}, *YE, cost="n²"),
    Entry("separable", SeparableSelfAttention, "gate", lambda c, _: {"embed_dim": c}, *MEHTA),
    Entry("multi_query", MultiQueryAttention2d, "gate", lambda c, _: {"dim": c, "num_heads": 4}, *QIN, cost="n²"),
    Entry(
        "attention_pool",
        AttentionPool2d,
        "gate",
        lambda c, size: {"in_features": c, "feat_size": size, "num_heads": 4, "pool_type": ""},
        *RADFORD,
        needs_size=True,
        cost="n²",
    ),
    Entry(
        "rotary_attention_pool",
        RotaryAttentionPool2d,
        "gate",
        lambda c, _: {"in_features": c, "num_heads": 4, "pool_type": ""},
        *SU,
        cost="n²",
    ),
    # Between the places or the channels of a map.
    Entry("non_local", NonLocalAttention, "gate", lambda c, _: {"in_channels": c}, *NON_LOCAL, cost="n²"),
    Entry("danet_position", DANetPositionAttention, "gate", lambda c, _: {"in_dim": c}, *DANET, cost="n²"),
    Entry("danet_channel", DANetChannelAttention, "gate", lambda c, _: {"in_dim": c}, *DANET),
    Entry("criss_cross", CrissCrossAttention, "gate", lambda c, _: {"in_dim": c}, *CCNET, cost="n√n"),
    Entry("axial", AxialAttention, "gate", lambda c, _: {"dim": c}, *AXIAL, cost="n√n"),
    Entry(
        "double",
        DoubleAttention,
        "gate",
        lambda c, _: {"in_channels": c, "c_m": c // 2, "c_n": c // 4},
        *A2_NET,
    ),
    Entry("bat", BatNonLocal, "gate", lambda c, _: {"in_channels": c, "block_size": 4}, *BAT),
    # Windows and neighbourhoods.
    Entry(
        "shifted_window",
        ShiftedWindowAttention,
        "gate",
        lambda c, _: {"dim": c, "window_size": (7, 7), "shift_size": (3, 3), "num_heads": 4},
        *LIU_2021,
    ),
    Entry(
        "spatial_reduction",
        SpatialReductionAttention,
        "gate",
        lambda c, _: {"dim": c, "num_heads": 4, "sr_ratio": 2},
        *WANG_2021,
        cost="n²",
    ),
    Entry(
        "focal_modulation",
        FocalModulation,
        "gate",
        lambda c, _: {"dim": c, "focal_window": 3, "focal_level": 2},
        *YANG_2022,
    ),
    Entry("outlook", OutlookAttention, "gate", lambda c, _: {"dim": c, "num_heads": 4}, *YUAN_2022),
    Entry(
        "halo",
        HaloAttention,
        "gate",
        lambda c, _: {"dim": c, "num_heads": 4, "block_size": 4, "halo_size": 2},
        *VASWANI_2021,
    ),
    Entry(
        "bottleneck",
        BottleneckAttention,
        "gate",
        lambda c, size: {"dim": c, "feat_size": size, "num_heads": 4},
        *SRINIVAS,
        needs_size=True,
        cost="n²",
    ),
    Entry("lambda", LambdaLayer, "gate", lambda c, _: {"dim": c, "num_heads": 4}, *BELLO, cost="n"),
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
