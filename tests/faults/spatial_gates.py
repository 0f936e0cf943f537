"""Faults planted in the gates that also see the places of a map."""

import jax.numpy as jnp

from flax_attn import ops

from .faults import Fault, rows_and_columns_swapped
from .planting import after, arguments, built, wrap


def maximum_to_the_first_of_equals(right, self, x):
    channel_gate, spatial_gate = ops.sigmoid(self.cSE(x)), ops.sigmoid(self.sSE(x))
    ops.record(self, "channel_gate", channel_gate)
    ops.record(self, "spatial_gate", spatial_gate)
    by_channel, by_place = x * channel_gate, x * spatial_gate
    return jnp.where(by_channel >= by_place, by_channel, by_place)


def spatial_gate_of_the_input(right, self, x):
    return x * self._channel_gate(x) * self._spatial_gate(x)


def without_silu(right, self, x):
    height_gate = ops.sigmoid(self.norm_h(self.conv_h(jnp.mean(x, axis=2, keepdims=True))))
    width_gate = ops.sigmoid(self.norm_w(self.conv_w(jnp.mean(x, axis=1, keepdims=True))))
    return x * height_gate * width_gate


def queries_alone(right, self, x):
    return right(self, x) if x.shape[-1] == self.fc_q.out_features // self.h else x


def gamma_once(right, self, x):
    if x.shape[-1] == self.fc_q.out_features // self.h:
        return right(self, x)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def softmax_over_the_channels(right, scores, axis):
    return right(scores, scores.ndim - 1)


# fmt: off
FAULTS: tuple[Fault, ...] = (
    Fault("BAM: branches added", arguments("BAM", combine="sum"), "BAM"),
    Fault("BAM: no one beside the sigmoid", wrap("ops.sigmoid", lambda right, x: right(x) - 1), "BAM"),
    Fault("scSE: the maximum in place of the sum", arguments("SCSE", combine="max"), "SCSE"),
    Fault("scSE: the gradient of equals to the first", wrap("SCSE.__call__", maximum_to_the_first_of_equals),
          "SCSE, maximum", ("input gradient", "input[0]"), None),
    Fault("coordinate: swish not hard", wrap("ops.hard_swish", lambda right, x: x * ops.sigmoid(x)),
          "CoordinateAttention", found=("conv_h", "output"), given=True),
    Fault("coordinate: rows and columns swapped", wrap("CoordinateAttention.__call__", rows_and_columns_swapped),
          "CoordinateAttention", found=("conv1", "output"), given=True),
    Fault("triplet: the gradient of a maximum shared among ties",
          wrap("ops.max_first", lambda right, x, axis: jnp.max(x, axis=axis, keepdims=True)), "TripletAttention",
          ("input gradient", "input[0]"), None),
    Fault("triplet: a sum in place of the mean", after("TripletAttention.__call__", lambda out: 3 * out),
          "TripletAttention"),
    Fault("shuffle: channels not shuffled",
          after("ShuffleAttention.__call__",
                lambda out: out.reshape(*out.shape[:3], -1, 2).swapaxes(3, 4).reshape(out.shape)),
          "ShuffleAttention"),
    Fault("shuffle: a norm over the group", arguments("layers.GroupNorm", num_groups=1), "ShuffleAttention",
          found=("gn", "output")),
    Fault("polarized: softmax over the channels", wrap("ops.softmax", softmax_over_the_channels),
          "ParallelPolarizedSelfAttention", found=("ch_wz", "output"), given=True),
    Fault("polarized: the layer norm's eps", arguments("layers.LayerNorm", eps=1e-6),
          "ParallelPolarizedSelfAttention"),
    Fault("polarized: the spatial gate of the input",
          wrap("SequentialPolarizedSelfAttention.__call__", spatial_gate_of_the_input),
          "SequentialPolarizedSelfAttention", found=("sp_wq", "output"), given=True),
    Fault("polarized: scores halved",
          wrap("ops.softmax", lambda right, scores, axis: right(scores / 2, axis)),
          "SequentialPolarizedSelfAttention", found=("ch_wz", "output"), given=True),
    Fault("local: no SiLU", wrap("EfficientLocalAttention.__call__", without_silu), "EfficientLocalAttention"),
    Fault("local: a norm for each channel", arguments("layers.GroupNorm", num_groups=3), "EfficientLocalAttention",
          found=("norm_h", "output")),
    Fault("strip: the product of both means", wrap("ops.add", lambda right, x, y: x * y), "StripAttention"),
    Fault("strip: no skip", built("StripAttention", lambda block: setattr(block, "has_skip", False)),
          "StripAttention, with bias"),
    Fault("UFO: keys and values not normed", wrap("blocks.ufo.UFOAttention._normalised", queries_alone),
          "UFOAttention", found=("fc_o", "output"), given=True),
    Fault("UFO: gamma once", wrap("blocks.ufo.UFOAttention._normalised", gamma_once), "UFOAttention",
          found=("fc_o", "output"), given=True),
)
# fmt: on
