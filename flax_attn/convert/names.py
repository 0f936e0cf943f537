"""Tables of names for ``rename=``: checkpoints of the source tutorials, of other packages and of official repositories.

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

NAMES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        # Gates from the pooled map.
        "pytorchcv.CbamBlock": {
            "ch_gate.mlp.fc1": "channel_gate.mlp.1",
            "ch_gate.mlp.fc2": "channel_gate.mlp.3",
            "sp_gate.conv": "spatial_gate.spatial",
        },
        "timm.CbamModule": {
            "channel.fc1": "channel_gate.mlp.1",
            "channel.fc2": "channel_gate.mlp.3",
            "spatial.conv": "spatial_gate.spatial",
        },
        "Jongchan.CBAM": OFFICIAL_CBAM_NAMES,
        "pytorchcv.SEBlock": {"conv1": "fc1", "conv2": "fc2"},
        "fightingcv_attention.SEAttention": {"fc.0": "fc1", "fc.2": "fc2"},
        "mmcv.ContextBlock": {
            "conv_mask": "conv_attn",
            "channel_add_conv.0": "mlp_add.fc1",
            "channel_add_conv.1": "mlp_add.norm",
            "channel_add_conv.3": "mlp_add.fc2",
            "channel_mul_conv.0": "mlp_scale.fc1",
            "channel_mul_conv.1": "mlp_scale.norm",
            "channel_mul_conv.3": "mlp_scale.fc2",
        },
        # Gates that also see the places.
        # Kernels, branches and frequencies.
        # Tokens.
        # Maps.
        # Windows.
    }
)
"""What other packages call the entries of a block, by package and class: ``rename=NAMES["pytorchcv.CbamBlock"]``.

Where a package has our names there is no table. Which of our arguments make the function the same, docs/blocks.md says.
"""
