"""The originals of attention between the places or the channels of a map."""

from ..cases import MAP, Input
from .original import Original

ORIGINALS: tuple[Original, ...] = (
    Original("NonLocalAttention", {"in_channels": 32}, "timm.layers:NonLocalAttn", {"in_channels": 32}),
    Original(
        "NonLocalAttention",
        {"in_channels": 32, "scale": 1.0},
        "timm.layers:NonLocalAttn",
        {"in_channels": 32, "use_scale": False},
        only="unscaled",
    ),
    *(
        Original(
            "NonLocalAttention",
            {"in_channels": 32, "rd_ratio": 1 / 2, "scale": 1.0, "sub_sample": sub_sample},
            "AlexHex7/Non-local_pytorch/lib/non_local_embedded_gaussian.py:NONLocalBlock2D",
            {"in_channels": 32, "sub_sample": sub_sample},
            names=f"AlexHex7.NONLocalBlock2D{'' if sub_sample else ', sub_sample=False'}",
            only="" if sub_sample else "all places",
        )
        for sub_sample in (False, True)
    ),
    Original(
        "NonLocalAttention",
        {"in_channels": 32, "rd_ratio": 1 / 2, "scale": 16**-0.5},
        "BA-Transform/BAT-Image-Classification/model_zoo/non_local.py:NonLocal",
        {"inplanes": 32},
        names="BA-Transform.NonLocal",
    ),
    Original(
        "DANetPositionAttention",
        {"in_dim": 32},
        "pytorchcv.models.danet:PosAttBlock",
        {"channels": 32},
        names="pytorchcv.PosAttBlock",
    ),
    Original(
        "DANetPositionAttention", {"in_dim": 32}, "junfu1115/DANet/encoding/nn/da_att.py:PAM_Module", {"in_dim": 32}
    ),
    Original(
        "DANetChannelAttention", {"in_dim": 32}, "pytorchcv.models.danet:ChaAttBlock", names="pytorchcv.ChaAttBlock"
    ),
    Original(
        "DANetChannelAttention", {"in_dim": 32}, "junfu1115/DANet/encoding/nn/da_att.py:CAM_Module", {"in_dim": 32}
    ),
    Original(
        "CrissCrossAttention",
        {"in_dim": 32},
        "fightingcv_attention.attention.CrissCrossAttention:CrissCrossAttention",
        {"in_dim": 32},
    ),
    *(
        Original(
            "AxialAttention",
            {"dim": 32, "heads": 4, "sum_axial_out": summed},
            "axial_attention:AxialAttention",
            {"dim": 32, "dim_index": 1, "heads": 4, "sum_axial_out": summed},
            only="" if summed else "one axis after the other",
        )
        for summed in (True, False)
    ),
    *(
        Original(
            "DoubleAttention",
            {"in_channels": 32, "c_m": 16, "c_n": 8, "reconstruct": reconstruct},
            "nguyenvo09/Double-Attention-Network/double_attention_layer.py:DoubleAttentionLayer",
            {"in_channels": 32, "c_m": 16, "c_n": 8, "reconstruct": reconstruct},
            only="" if reconstruct else "without the last convolution",
        )
        for reconstruct in (True, False)
    ),
    Original(
        "BatNonLocal",
        {"in_channels": 32, "block_size": 4, "drop_rate": 0.0},
        "timm.layers:BatNonLocalAttn",
        {"in_channels": 32, "block_size": 4, "drop_rate": 0.0},
        (Input((3, 32, 8, 12), MAP),),
    ),
)
