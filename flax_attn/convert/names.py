"""Tables of names for ``rename=``: checkpoints of the source tutorials and of the official CBAM repository.

The networks have the attribute names of the tutorials; only CBAM's two gates, which its authors wrote in CamelCase, are
named differently. Token order is *not* part of a checkpoint: the tutorial's NetMultiheadAttention was trained with what
`flax_attn` calls ``token_order="article"``; its weights also load into ``"pixels"``, where they compute a different
function.
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
