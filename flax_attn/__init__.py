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
from .blocks.attention_pool import AttentionPool2d as AttentionPool2d
from .blocks.attention_pool import RotaryAttentionPool2d as RotaryAttentionPool2d
from .blocks.axial import AxialAttention as AxialAttention
from .blocks.bam import BAM as BAM
from .blocks.bilinear import BatNonLocal as BatNonLocal
from .blocks.bottleneck import BottleneckAttention as BottleneckAttention
from .blocks.cbam import CBAM as CBAM
from .blocks.cbam import BasicConv as BasicConv
from .blocks.cbam import ChannelGate as ChannelGate
from .blocks.cbam import ChannelPool as ChannelPool
from .blocks.cbam import SpatialGate as SpatialGate
from .blocks.channel import ChannelAttention as ChannelAttention
from .blocks.channel import UseAttentionModel as UseAttentionModel
from .blocks.conv_multi_head import ConvAttention as ConvAttention
from .blocks.conv_multi_head import ConvMultiHeadAttention as ConvMultiHeadAttention
from .blocks.coordinate import CoordinateAttention as CoordinateAttention
from .blocks.criss_cross import CrissCrossAttention as CrissCrossAttention
from .blocks.csra import ClassSpecificResidualAttention as ClassSpecificResidualAttention
from .blocks.csra import MultiHeadResidualAttention as MultiHeadResidualAttention
from .blocks.danet import DANetChannelAttention as DANetChannelAttention
from .blocks.danet import DANetPositionAttention as DANetPositionAttention
from .blocks.differential import DifferentialAttention as DifferentialAttention
from .blocks.dot_product import ScaledDotProductAttention as ScaledDotProductAttention
from .blocks.double import DoubleAttention as DoubleAttention
from .blocks.eca import EfficientChannelAttention as EfficientChannelAttention
from .blocks.external import ExternalAttention as ExternalAttention
from .blocks.external import MultiHeadExternalAttention as MultiHeadExternalAttention
from .blocks.focal import FocalModulation as FocalModulation
from .blocks.gather_excite import GatherExcite as GatherExcite
from .blocks.gct import GatedChannelTransformation as GatedChannelTransformation
from .blocks.global_context import GlobalContext as GlobalContext
from .blocks.halo import HaloAttention as HaloAttention
from .blocks.lambda_layer import LambdaLayer as LambdaLayer
from .blocks.large_kernel import LargeKernelAttention as LargeKernelAttention
from .blocks.large_kernel import VANAttention as VANAttention
from .blocks.local import EfficientLocalAttention as EfficientLocalAttention
from .blocks.multi_head import MultiHeadAttention as MultiHeadAttention
from .blocks.multi_query import MultiQueryAttention2d as MultiQueryAttention2d
from .blocks.multi_spectral import MultiSpectralAttention as MultiSpectralAttention
from .blocks.non_local import NonLocalAttention as NonLocalAttention
from .blocks.outlook import OutlookAttention as OutlookAttention
from .blocks.parnet import ParNetAttention as ParNetAttention
from .blocks.pointwise import PointwiseSpatialAttention as PointwiseSpatialAttention
from .blocks.polarized import ParallelPolarizedSelfAttention as ParallelPolarizedSelfAttention
from .blocks.polarized import SequentialPolarizedSelfAttention as SequentialPolarizedSelfAttention
from .blocks.position import LearnedPositionEncoding2d as LearnedPositionEncoding2d
from .blocks.position import SinePositionEncoding2d as SinePositionEncoding2d
from .blocks.pyramid_split import PyramidSplitAttention as PyramidSplitAttention
from .blocks.response_norm import GlobalResponseNorm as GlobalResponseNorm
from .blocks.scse import SCSE as SCSE
from .blocks.selective_kernel import SelectiveKernel as SelectiveKernel
from .blocks.separable import SeparableSelfAttention as SeparableSelfAttention
from .blocks.shuffle import ShuffleAttention as ShuffleAttention
from .blocks.simam import SimAM as SimAM
from .blocks.spatial import SpatialAttentionModule as SpatialAttentionModule
from .blocks.spatial_group import SpatialGroupEnhance as SpatialGroupEnhance
from .blocks.spatial_reduction import SpatialReductionAttention as SpatialReductionAttention
from .blocks.split_attention import SplitAttention as SplitAttention
from .blocks.squeeze_excite import EffectiveSqueezeExcite as EffectiveSqueezeExcite
from .blocks.squeeze_excite import SqueezeExcite as SqueezeExcite
from .blocks.strip import StripAttention as StripAttention
from .blocks.triplet import TripletAttention as TripletAttention
from .blocks.ufo import UFOAttention as UFOAttention
from .blocks.vit import SelfAttention as SelfAttention
from .blocks.window import ShiftedWindowAttention as ShiftedWindowAttention
from .blocks.window import WindowAttention as WindowAttention
from .convert import from_torch as from_torch
from .convert import to_torch as to_torch
from .ops import attention_maps as attention_maps
from .options import Options as Options
from .registry import create_block as create_block
from .registry import list_blocks as list_blocks

__version__ = "0.1.0"
