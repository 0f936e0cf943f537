"""The PyTorch reference of flax_attn, written to be read.

``python -m torch_ref parity`` compares every block of `flax_attn` with its twin here.
"""

from .maps import attention_maps as attention_maps
