"""The cases of the tutorials' blocks and networks."""

from typing import Any

from .case import HEADS, MAP, SEQUENCE, Case, Input, a_map


def _heads(*shape: int) -> Input:
    return Input(shape, HEADS)


WEIGHTS = {"need_weights": True}
IMAGE = (a_map(3, 3, 22, 29, kind="image"),)
# A nearly constant gate is a common factor that the next BatchNorm cancels. Its gradient would be a small difference of
# large sums, dominated by rounding.
LIVELY_GATES = {"att_fc.0.weight": 10.0}
PATCH_NET: dict[str, Any] = {"module": "networks.patch", "inputs": IMAGE, "outputs": (None, MAP)}

CASES = (
    Case(
        "ScaledDotProductAttention",
        "blocks.dot_product",
        (_heads(2, 3, 5, 7), _heads(2, 3, 11, 7), _heads(2, 3, 11, 13)),
        (HEADS, None),
        {"temperature": 2.5},
        WEIGHTS,
    ),
    Case(
        "ScaledDotProductAttention, mask and dropout",
        "blocks.dot_product",
        (_heads(2, 3, 5, 7), _heads(2, 3, 11, 7), _heads(2, 3, 11, 13), Input((2, 1, 5, 11), kind="mask")),
        (HEADS, None),
        {"temperature": 2.5, "attn_dropout": 0.3},
        WEIGHTS,
    ),
    Case(
        "ScaledDotProductAttention, bias",
        "blocks.dot_product",
        (
            _heads(2, 3, 5, 7),
            _heads(2, 3, 11, 7),
            _heads(2, 3, 11, 13),
            Input((2, 1, 5, 11), kind="mask"),
            Input((1, 3, 5, 11)),
        ),
        (HEADS, None),
        {"temperature": 2.5},
        WEIGHTS,
    ),
    Case(
        "MultiHeadAttention",
        "blocks.multi_head",
        (Input((2, 5, 12)), Input((2, 7, 12)), Input((2, 7, 12))),
        (None, None),
        {"n_head": 3, "d_model": 12, "d_k": 5, "d_v": 11, "dropout": 0.2},
        WEIGHTS,
    ),
    Case(
        "MultiHeadAttention, mask",
        "blocks.multi_head",
        (Input((2, 5, 12)), Input((2, 7, 12)), Input((2, 7, 12)), Input((2, 5, 7), kind="mask")),
        (None,),
        {"n_head": 3, "d_model": 12, "d_k": 5, "d_v": 5},
    ),
    Case(
        "MultiHeadAttention, bias",
        "blocks.multi_head",
        (Input((2, 5, 12)), Input((2, 7, 12)), Input((2, 7, 12)), Input((2, 5, 7), kind="mask"), Input((2, 5, 7))),
        (None,),
        {"n_head": 3, "d_model": 12, "d_k": 5, "d_v": 5},
    ),
    Case(
        "MultiHeadAttention, long",
        "blocks.multi_head",
        (Input((2, 307, 6)), Input((2, 149, 6)), Input((2, 149, 6)), Input((2, 307, 149), kind="mask")),
        (None,),
        {"n_head": 2, "d_model": 6, "d_k": 3, "d_v": 5, "dropout": 0.0},
    ),
    Case(
        "MultiHeadAttention, without residual and norm",
        "blocks.multi_head",
        (Input((2, 5, 13)), Input((2, 7, 13)), Input((2, 7, 13))),
        (None, None),
        {"n_head": 2, "d_model": 13, "d_k": 5, "d_v": 7, "residual": False, "norm": False},
        WEIGHTS,
    ),
    Case(
        "AdditiveAttention",
        "blocks.additive",
        (Input((2, 5, 3)), Input((2, 7, 11)), Input((2, 7, 13))),
        (None, None),
        {"query_in": 3, "key_in": 11, "hidden": 17},
        WEIGHTS,
    ),
    Case(
        "AdditiveAttention, mask",
        "blocks.additive",
        (Input((2, 5, 3)), Input((2, 7, 11)), Input((2, 7, 13)), Input((2, 5, 7), kind="mask")),
        (None, None),
        {"query_in": 3, "key_in": 11, "hidden": 17},
        WEIGHTS,
    ),
    Case(
        "AdditiveAttention, bias",
        "blocks.additive",
        (Input((2, 5, 3)), Input((2, 7, 11)), Input((2, 7, 13)), Input((2, 5, 7), kind="mask"), Input((2, 1, 7))),
        (None, None),
        {"query_in": 3, "key_in": 11, "hidden": 17},
        WEIGHTS,
    ),
    Case(
        "ConvAttention",
        "blocks.conv_multi_head",
        (a_map(2, 5, 3, 7), Input((2, 13, 11), SEQUENCE)),
        (MAP, None),
        {"mem_in": 13, "query_in": 5, "key_size": 7, "output_size": 3},
        WEIGHTS,
        zero_gradients=("key.bias",),
    ),
    Case(
        "ConvMultiHeadAttention",
        "blocks.conv_multi_head",
        (a_map(2, 5, 3, 7), a_map(2, 5, 3, 7)),
        (MAP, None),
        {"mem_in": 5, "query_in": 5, "key_size": 11, "output_size": 13, "num_heads": 3},
        WEIGHTS,
        zero_gradients=("key.bias",),
    ),
    Case(
        "ConvMultiHeadAttention, sequences",
        "blocks.conv_multi_head",
        (Input((2, 7, 11), SEQUENCE), Input((2, 7, 11), SEQUENCE)),
        (SEQUENCE,),
        {"mem_in": 7, "query_in": 7, "key_size": 3, "output_size": 5, "num_heads": 2},
        zero_gradients=("key.bias",),
    ),
    Case(
        "BasicConv",
        "blocks.cbam",
        (a_map(3, 4, 7, 11),),
        (MAP,),
        {"in_planes": 4, "out_planes": 6, "kernel_size": (3, 5), "stride": 2, "padding": 1, "dilation": 2, "groups": 2},
    ),
    Case(
        "BasicConv, bias alone",
        "blocks.cbam",
        (a_map(3, 5, 7, 11),),
        (MAP,),
        {"in_planes": 5, "out_planes": 3, "kernel_size": 4, "padding": 2, "relu": False, "bn": False, "bias": True},
    ),
    Case(
        "ChannelGate",
        "blocks.cbam",
        (a_map(3, 13, 5, 7),),
        (MAP,),
        {"gate_channels": 13, "reduction_ratio": 4, "pool_types": ("avg", "max", "lp", "lse")},
    ),
    Case("ChannelPool", "blocks.cbam", (a_map(3, 5, 7, 11, kind="ties"),), (MAP,)),
    Case("SpatialGate", "blocks.cbam", (a_map(3, 5, 11, 7),), (MAP,)),
    Case(
        "CBAM",
        "blocks.cbam",
        (a_map(3, 17, 5, 8, kind="ties"),),
        (MAP,),
        {"gate_channels": 17, "reduction_ratio": 4},
    ),
    Case(
        "CBAM, with spatial gate",
        "blocks.cbam",
        (a_map(3, 11, 8, 13, kind="ties"),),
        (MAP,),
        {"gate_channels": 11, "reduction_ratio": 3, "no_spatial": False},
        draw=1,
    ),
    Case(
        "ChannelAttention", "blocks.channel", (a_map(3, 17, 5, 7, kind="ties"),), (MAP,), {"in_planes": 17, "ratio": 4}
    ),
    Case("UseAttentionModel", "blocks.channel", (a_map(3, 13, 7, 6),), (MAP,), {"in_planes": 13, "ratio": 5}),
    Case("SpatialAttentionModule", "blocks.spatial", (a_map(3, 5, 11, 7),), (MAP,)),
    Case("PointwiseSpatialAttention", "blocks.pointwise", (a_map(3, 5, 7, 11),), (MAP,), {"channels": 5}),
    Case(
        "PointwiseSpatialAttention, without norm",
        "blocks.pointwise",
        (a_map(3, 5, 7, 11),),
        (MAP,),
        {"channels": 5, "bn": False},
    ),
    Case(
        "SinePositionEncoding2d", "blocks.position", (a_map(2, 12, 5, 7),), (MAP,), {"channels": 12, "temperature": 300}
    ),
    Case(
        "LearnedPositionEncoding2d",
        "blocks.position",
        (a_map(2, 6, 5, 7),),
        (MAP,),
        {"height": 5, "width": 7, "channels": 6},
    ),
    Case("ConvPart", "networks.patch", IMAGE, (MAP,), draw=1),
    Case("PatchNetwork", draw=1, **PATCH_NET),
    Case("PatchNetwork, point-wise", args={"block": "pointwise_spatial"}, **PATCH_NET),
    Case("PatchNetwork, channel attention", args={"block": "channel_attention"}, **PATCH_NET),
    Case("Net", draw=2, **PATCH_NET),
    Case("NetMultiHeadAttention", draw=1, **PATCH_NET),
    Case("NetMultiHeadAttention, article order", args={"token_order": "article", "dropout": 0.3}, draw=1, **PATCH_NET),
    Case("NetMultiHeadAttention, sine", args={"position": "sine"}, draw=1, **PATCH_NET),
    Case("NetMultiHeadAttention, learned", args={"position": "learned", "height": 5, "width": 7}, **PATCH_NET),
    Case("NetConvMultiHeadAttention", zero_gradients=("key.bias",), **PATCH_NET),
    Case("NetCBAM", draw=1, **PATCH_NET),
    Case("NetCBAM, with spatial gate", args={"no_spatial": False}, draw=2, **PATCH_NET),
    Case(
        "ChannelAttentionClassifier",
        "networks.channel",
        (a_map(3, 17, 5, 7),),
        (None, MAP),
        {"in_planes": 17, "category": 5, "ratio": 3},
    ),
    Case(
        "SpatialAttentionNeuralNetwork",
        "networks.sensor",
        (a_map(3, 1, 37, 5),),
        (None,),
        {"train_shape": (100, 37, 5), "category": 7},
        gains=LIVELY_GATES,
        draw=30,
    ),
    Case(
        "SpatialAttentionNeuralNetwork, other width",
        "networks.sensor",
        (a_map(3, 1, 37, 7),),
        (None,),
        {"train_shape": (100, 37, 5), "category": 3},
        gains=LIVELY_GATES,
        draw=35,
    ),
)
