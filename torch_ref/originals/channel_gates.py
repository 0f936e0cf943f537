"""The originals of gates that are computed from the pooled map."""

from ..cases import MAP, Input
from .original import Original, with_momentum

WIDE = (Input((3, 256, 2, 3), MAP),)

ORIGINALS: tuple[Original, ...] = (
    Original("EfficientChannelAttention", {"channels": 256}, "timm.layers:EcaModule", {"channels": 256}, WIDE),
    Original(
        "EfficientChannelAttention",
        {"channels": 256, "circular": True},
        "timm.layers:CecaModule",
        {"channels": 256},
        WIDE,
    ),
    Original(
        "EfficientChannelAttention",
        {"kernel_size": 5},
        "BangguWu/ECANet/models/eca_module.py:eca_layer",
        {"channel": 32, "k_size": 5},
    ),
    Original(
        "CBAM",
        {"gate_channels": 32, "no_spatial": False},
        "pytorchcv.models.cbamresnet:CbamBlock",
        {"channels": 32},
        names="pytorchcv.CbamBlock",
        build=with_momentum(0.01),
    ),
)
