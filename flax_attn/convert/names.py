"""Tables of names for ``rename=``: checkpoints of the source tutorials, of other packages and of official repositories.

The networks have the attribute names of the tutorials; only CBAM's two gates, which its authors wrote in CamelCase, are
named differently. Token order is *not* part of a checkpoint: the tutorial's NetMultiheadAttention was trained with what
`flax_attn` calls ``token_order="article"``; its weights also load into ``"pixels"``, where they compute a different
function.
"""

from collections.abc import Mapping
from types import MappingProxyType

from .resnets import BAM, RESNETS

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
        # Networks.
        **RESNETS,
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
            "spatial.conv.conv": "spatial_gate.mean_max",
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
        "pytorchcv.BamBlock": BAM,
        "squeeze_and_excitation.ChannelSpatialSELayer": {
            "cSE.fc1": "cSE.1",
            "cSE.fc2": "cSE.3",
            "sSE.conv": "sSE.0",
        },
        # Kernels, branches and frequencies.
        "ConvNeXt-V2.GRN": {"gamma": "weight", "beta": "bias"},
        "fightingcv_attention.ParNetAttention": {
            "sse.1": "se.cvsig.conv",
            "conv1x1.0": "rbr_1x1.conv",
            "conv1x1.1": "rbr_1x1.bn",
            "conv3x3.0": "rbr_dense.conv",
            "conv3x3.1": "rbr_dense.bn",
        },
        "fightingcv_attention.ResidualAttention": {"fc": "head"},
        "pytorchcv.saconv3x3_block": {
            "conv.conv": "conv",
            "conv.bn": "bn0",
            "att.conv1": "fc1",
            "att.bn": "bn1",
            "att.conv2": "fc2",
        },
        "pytorchcv.SKConvBlock": {
            "branches.branch2": "paths.0",
            "branches.branch3": "paths.1",
            "fc1.conv": "attn.fc_reduce",
            "fc1.bn": "attn.bn",
            "fc2": "attn.fc_select",
        },
        # Tokens.
        "fightingcv_attention.MobileViTv2Attention": {
            "fc_i": "score_proj",
            "fc_k": "key_proj",
            "fc_v": "value_proj",
            "fc_o": "out_proj",
        },
        "torch.nn.MultiheadAttention": {
            "in_proj_weight": "qkv.weight",
            "in_proj_bias": "qkv.bias",
            "out_proj": "proj",
        },
        "openai.AttentionPool2d": {
            "positional_embedding": "pos_embed",
            "q_proj": "q",
            "k_proj": "k",
            "v_proj": "v",
            "c_proj": "proj",
        },
        # Maps.
        "AlexHex7.NONLocalBlock2D": {"theta": "t", "phi.0": "p", "g.0": "g", "W.0": "z", "W.1": "norm"},
        "AlexHex7.NONLocalBlock2D, sub_sample=False": {"theta": "t", "phi": "p", "W.0": "z", "W.1": "norm"},
        "BA-Transform.NonLocal": {"bn": "norm"},
        "pytorchcv.ChaAttBlock": {"scale.alpha": "gamma"},
        "pytorchcv.PosAttBlock": {"scale.alpha": "gamma"},
        # Windows.
        "fightingcv_attention.OutlookAttention": {"v_pj": "v"},
        "halonet_pytorch.HaloAttention": {
            "to_q": "q",
            "to_kv": "keys_values",
            "to_out": "proj",
            "rel_pos_emb.rel_height": "pos_embed.height_rel",
            "rel_pos_emb.rel_width": "pos_embed.width_rel",
        },
        "bottleneck_transformer_pytorch.Attention": {
            "to_qkv": "qkv",
            "pos_emb.rel_height": "pos_embed.height_rel",
            "pos_emb.rel_width": "pos_embed.width_rel",
        },
        "lambda_networks.LambdaLayer": {
            "to_q": "q",
            "to_k": "k",
            "to_v": "v",
            "pos_conv": "conv_lambda",
            "rel_pos_emb": "pos_emb",
        },
    }
)
"""What other packages call the entries of a block, by package and class: ``rename=NAMES["pytorchcv.CbamBlock"]``.

Where a package has our names there is no table. Which of our arguments make the function the same, docs/checkpoints.md
says. A name that no part of our block has, such as ``keys_values``, is that of rows in another order or other arrays,
which the block's rule knows (`flax_attn.convert.Entry.instead`); with our own name they would load in the wrong order.
"""
