"""Names of ResNets in other packages, for ``rename=``: tables for `flax_attn.networks.resnet.ResNet`.

torchvision's names are ours. Of a table saving back needs that each run stands for one place; pytorchcv's networks with
BAM keep the residual unit in the first unit of a stage under one more name.
"""

from collections.abc import Mapping

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
_FIRST = {f"features.stage{stage}.unit1": f"layer{stage}.0" for stage in STAGES[1:]}
_CBAM = {
    "cbam.ch_gate.mlp.fc1": "attention.channel_gate.mlp.1",
    "cbam.ch_gate.mlp.fc2": "attention.channel_gate.mlp.3",
    "cbam.sp_gate.conv": "attention.spatial_gate.spatial",
}

RESNETS: Mapping[str, Mapping[str, str]] = {
    "timm.ResNet": {"se": "attention"},
    "pytorchcv.ResNet": _PYTORCHCV,
    "pytorchcv.CbamResNet": _PYTORCHCV | _CBAM,
    "attention-module.ResNet": {
        "module": "",
        "cbam": "attention",
        "ChannelGate": "channel_gate",
        "SpatialGate": "spatial_gate",
        **{f"bam{stage}": f"attention{stage}" for stage in STAGES[:3]},
    },
    "ECANet.ResNet": {"module": "", "eca": "attention"},
}
