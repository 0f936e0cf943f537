"""Parameter-free functions that the blocks are built from."""

from .activations import leaky_relu as leaky_relu
from .activations import relu as relu
from .attention import additive_attention as additive_attention
from .attention import dot_product_attention as dot_product_attention
from .conv import conv_general_dilated as conv_general_dilated
from .dropout import KeepMask as KeepMask
from .dropout import dropout as dropout
from .dropout import keep_mask as keep_mask
from .dtype import add as add
from .dtype import cast as cast
from .dtype import multiply as multiply
from .dtype import score_dtype as score_dtype
from .dtype import sigmoid as sigmoid
from .dtype import with_rank as with_rank
from .maps import AttentionMap as AttentionMap
from .maps import attention_maps as attention_maps
from .maps import is_recording as is_recording
from .maps import record as record
from .pooling import adaptive_avg_pool as adaptive_avg_pool
from .pooling import global_pool as global_pool
from .pooling import max_first as max_first
from .pooling import max_pool_2x2 as max_pool_2x2
from .tokens import flatten_channels_first as flatten_channels_first
from .tokens import map_to_tokens as map_to_tokens
from .tokens import tokens_to_map as tokens_to_map
from .widths import make_divisible as make_divisible
