"""Attention blocks for vision in JAX/Flax NNX, each tested for parity with a PyTorch reference.

>>> import jax, flax_attn
>>> from flax import nnx
>>> block = flax_attn.CBAM(32, rngs=nnx.Rngs(0))
>>> block(jax.numpy.ones((1, 24, 24, 32))).shape
(1, 24, 24, 32)

Import blocks from here or create them by name (`create_block`, `list_blocks`); import networks from their modules, such
as ``from flax_attn.networks.patch import NetCBAM``.

Maps are channels last, (b, h, w, c); tokens are (b, n, c). In addition to their own arguments, all blocks, networks and
layers take ``rngs`` and the keyword arguments of `Options` (`layers.Dropout` takes ``rngs`` alone). Inputs of the wrong
shape raise ``ValueError``; the message gives the argument, the expected shape and the actual shape.
"""

from .blocks.additive import AdditiveAttention as AdditiveAttention
from .blocks.cbam import CBAM as CBAM
from .blocks.cbam import BasicConv as BasicConv
from .blocks.cbam import ChannelGate as ChannelGate
from .blocks.cbam import ChannelPool as ChannelPool
from .blocks.cbam import SpatialGate as SpatialGate
from .blocks.channel import ChannelAttention as ChannelAttention
from .blocks.channel import UseAttentionModel as UseAttentionModel
from .blocks.conv_multi_head import ConvAttention as ConvAttention
from .blocks.conv_multi_head import ConvMultiHeadAttention as ConvMultiHeadAttention
from .blocks.dot_product import ScaledDotProductAttention as ScaledDotProductAttention
from .blocks.eca import EfficientChannelAttention as EfficientChannelAttention
from .blocks.gather_excite import GatherExcite as GatherExcite
from .blocks.gct import GatedChannelTransformation as GatedChannelTransformation
from .blocks.global_context import GlobalContext as GlobalContext
from .blocks.multi_head import MultiHeadAttention as MultiHeadAttention
from .blocks.pointwise import PointwiseSpatialAttention as PointwiseSpatialAttention
from .blocks.position import LearnedPositionEncoding2d as LearnedPositionEncoding2d
from .blocks.position import SinePositionEncoding2d as SinePositionEncoding2d
from .blocks.simam import SimAM as SimAM
from .blocks.spatial import SpatialAttentionModule as SpatialAttentionModule
from .blocks.spatial_group import SpatialGroupEnhance as SpatialGroupEnhance
from .blocks.squeeze_excite import EffectiveSqueezeExcite as EffectiveSqueezeExcite
from .blocks.squeeze_excite import SqueezeExcite as SqueezeExcite
from .convert import from_torch as from_torch
from .convert import to_torch as to_torch
from .ops import attention_maps as attention_maps
from .options import Options as Options
from .registry import create_block as create_block
from .registry import list_blocks as list_blocks

__version__ = "0.1.0"
