"""Names of ResNets in other packages, for ``rename=``: tables for `flax_attn.networks.resnet.ResNet`.

torchvision's names are ours.
"""

from collections.abc import Mapping

BAM: Mapping[str, str] = {
    "ch_att.init_fc.fc": "channel_att.gate_c.gate_c_fc_0",
    "ch_att.init_fc.bn": "channel_att.gate_c.gate_c_bn_1",
    "ch_att.final_fc": "channel_att.gate_c.gate_c_fc_final",
    "sp_att.init_conv.conv": "spatial_att.gate_s.gate_s_conv_reduce0",
    "sp_att.init_conv.bn": "spatial_att.gate_s.gate_s_bn_reduce0",
    "sp_att.dil_convs.conv1.conv": "spatial_att.gate_s.gate_s_conv_di_0",
    "sp_att.dil_convs.conv1.bn": "spatial_att.gate_s.gate_s_bn_di_0",
    "sp_att.dil_convs.conv2.conv": "spatial_att.gate_s.gate_s_conv_di_1",
    "sp_att.dil_convs.conv2.bn": "spatial_att.gate_s.gate_s_bn_di_1",
    "sp_att.final_conv": "spatial_att.gate_s.gate_s_conv_final",
}
"""What pytorchcv calls the entries of BAM."""

STAGES, LONGEST = (1, 2, 3, 4), 36  # the longest stage of all depths

_BODY = {f"body.conv{i}.conv": f"conv{i}" for i in (1, 2, 3)} | {f"body.conv{i}.bn": f"bn{i}" for i in (1, 2, 3)}
_PYTORCHCV = {
    "features.init_block.conv.conv": "conv1",
    "features.init_block.conv.bn": "bn1",
    **{f"features.stage{stage}.unit{n}": f"layer{stage}.{n - 1}" for stage in STAGES for n in range(1, LONGEST + 1)},
    **_BODY,
    "identity_conv.conv": "downsample.0",
    "identity_conv.bn": "downsample.1",
    "output": "fc",
}
_CBAM = {
    "cbam.ch_gate.mlp.fc1": "attention.channel_gate.mlp.1",
    "cbam.ch_gate.mlp.fc2": "attention.channel_gate.mlp.3",
    "cbam.sp_gate.conv": "attention.spatial_gate.spatial",
}

# BAM stands at the entry of a stage, whose first unit is then one name further inside.
_BAM = {f"features.stage{stage}.unit1.res_unit": f"layer{stage}.0" for stage in STAGES[1:]}
_BAM |= {
    f"features.stage{stage + 1}.unit1.bam.{theirs}": f"attention{stage}.{ours}"
    for stage in STAGES[:3]
    for theirs, ours in BAM.items()
}

RESNETS: Mapping[str, Mapping[str, str]] = {
    "timm.ResNet": {"se": "attention"},
    "pytorchcv.ResNet": _PYTORCHCV,
    "pytorchcv.SEResNet": _PYTORCHCV | {"se.conv1": "attention.fc1", "se.conv2": "attention.fc2"},
    "pytorchcv.CbamResNet": _PYTORCHCV | _CBAM,
    "pytorchcv.BamResNet": {theirs: ours for theirs, ours in _PYTORCHCV.items() if ours not in _BAM.values()} | _BAM,
    "attention-module.ResNet": {
        "module": "",
        "cbam": "attention",
        "ChannelGate": "channel_gate",
        "SpatialGate": "spatial_gate",
        **{f"bam{stage}": f"attention{stage}" for stage in STAGES[:3]},
    },
    "ECANet.ResNet": {"module": "", "eca": "attention"},
    "timm.SKResNet": {
        **{f"conv{i}.conv": f"conv{i}" for i in (1, 2, 3)},
        **{f"conv{i}.bn": f"bn{i}" for i in (1, 2, 3)},
    },
}
