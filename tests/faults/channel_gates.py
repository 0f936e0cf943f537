"""Faults in gates that are computed from the pooled map."""

import jax.numpy as jnp

from .faults import Fault
from .planting import arguments, built, wrap


def another(name, value):
    return lambda block: setattr(block, name, value)


def padded_with_zeros(block):
    block.circular, block.conv.padding = False, "SAME"


# fmt: off
FAULTS: tuple[Fault, ...] = (
    Fault("SE's sigmoid a hard one", wrap("ops.sigmoid", lambda right, x: jnp.clip(x / 6 + 0.5, 0, 1)),
          "SqueezeExcite"),
    Fault("SE without its ReLU", wrap("ops.relu", lambda right, x: x), "SqueezeExcite, narrow and without bias",
          found=("fc2", "output"), given=True),
    Fault("eSE's hard sigmoid a soft one", wrap("ops.hard_sigmoid", lambda right, x: 1 / (1 + jnp.exp(-x))),
          "EffectiveSqueezeExcite"),
    Fault("eSE's pool a maximum", arguments("ops.global_pool", pool_type="max"), "EffectiveSqueezeExcite",
          found=("fc", "output"), given=True),
    Fault("ECA's channels padded with zeros where they go round", built("EfficientChannelAttention", padded_with_zeros),
          "EfficientChannelAttention, circular", found=("conv", "output")),
    Fault("ECA's pool a maximum", arguments("ops.global_pool", pool_type="max"), "EfficientChannelAttention",
          found=("conv", "output"), given=True),
    Fault("ECA's kernel of another width", arguments("EfficientChannelAttention", gamma=1),
          "EfficientChannelAttention, circular",
          error=r"cannot be paired: (.|\n)*conv\.weight \(1, 1, 9\)"),
    Fault("SimAM's lambda ten times as large", built("SimAM", another("e_lambda", 1e-3)), "SimAM"),
    Fault("SimAM without its sigmoid", wrap("ops.sigmoid", lambda right, x: x), "SimAM"),
    Fault("SGE's deviation biased", arguments("ops.safe_std", ddof=0), "SpatialGroupEnhance"),
    Fault("SGE's bias left out", wrap("ops.add", lambda right, x, y: x), "SpatialGroupEnhance"),
    Fault("GCT's epsilon ten times as large", built("GatedChannelTransformation", another("epsilon", 1e-4)),
          "GatedChannelTransformation"),
    Fault("GCT's sum without the absolute value", built("GatedChannelTransformation", another("after_relu", True)),
          "GatedChannelTransformation, l1"),
    Fault("GC's eps left to the layer's default", arguments("layers.LayerNorm", eps=1e-5),
          "GlobalContext, scale and add", found=("mlp_scale.fc2", "output"), given=True),
    Fault("GC's mean unweighted", wrap("GlobalContext._context", lambda right, self, x: x.mean((1, 2), keepdims=True)),
          "GlobalContext", found=("mlp_scale.fc1", "output"), given=True),
    Fault("GE's windows count the padding", arguments("layers.AvgPool", count_include_pad=True),
          "GatherExcite, windows", found=("mlp.fc1", "output"), given=True),
    Fault("GE without a ReLU between convolutions", wrap("ops.relu", lambda right, x: x),
          "GatherExcite, convolutions", found=("gather.conv2", "output"), given=True),
)
# fmt: on
