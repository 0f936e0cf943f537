"""Flax layers with PyTorch's arguments, defaults, initial values and arithmetic, channels last.

What has no parameters and is equal in Flax stays Flax's: ``nnx.relu``, ``nnx.silu``,
``nnx.softmax``, ``nnx.Sequential``.
"""

from .batch_norm import BatchNorm as BatchNorm
from .conv import Conv as Conv
from .conv_transpose import ConvTranspose as ConvTranspose
from .dropout import Dropout as Dropout
from .embedding import Embedding as Embedding
from .gelu import GELU as GELU
from .group_norm import GroupNorm as GroupNorm
from .layer_norm import LayerNorm as LayerNorm
from .linear import Linear as Linear
from .multihead_attention import MultiheadAttention as MultiheadAttention
from .pooling import AdaptiveAvgPool as AdaptiveAvgPool
from .pooling import AvgPool as AvgPool
from .pooling import MaxPool as MaxPool
from .rms_norm import RMSNorm as RMSNorm
