"""Tables of names for ``rename=``: checkpoints of the source tutorials and of the official CBAM repository.

The networks have the attribute names of the tutorials, so that only CBAM's two gates, which its authors wrote in
CamelCase, are called differently. Token order is *not* part of a checkpoint: the tutorial's NetMultiheadAttention was
trained on what `flax_attn` calls ``token_order="article"``; its weights load into ``"pixels"`` just as well and compute
another function there.
"""

from collections.abc import Mapping
from types import MappingProxyType

TUTORIAL_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "ChannelGate": "channel_gate",
        "SpatialGate": "spatial_gate",
    }
)
"""What the tutorials' own code saves, for every network and block in them."""

OFFICIAL_CBAM_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "module": "",
        "ChannelGate": "channel_gate",
        "SpatialGate": "spatial_gate",
    }
)
"""What github.com/Jongchan/attention-module saves: the same gates, under DataParallel's leading ``module``."""
