"""Flax layers with PyTorch's defaults and arithmetic."""

from .batch_norm import BatchNorm as BatchNorm
from .conv import Conv as Conv
from .dropout import Dropout as Dropout
from .embedding import Embedding as Embedding
from .layer_norm import LayerNorm as LayerNorm
from .linear import Linear as Linear
