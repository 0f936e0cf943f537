"""The planted faults: what is wrong, in which case it shows, and how the comparison names it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import flax_attn
from flax_attn import ops
from flax_attn.blocks.conv_multi_head import attend_heads
from flax_attn.layers import BatchNorm
from torch_ref.cases import HEADS, MAP, Case, Input

from .planting import Plant, after, arguments, built, constant, entry, wrap


@dataclass(frozen=True)
class Fault:
    """A fault and what the comparison says about it.

    Attributes:
        name: what is wrong.
        plant: plants it.
        case: where it is looked for: a case of torch_ref/cases or of `MORE_CASES`.
        shows: quantity and path of the first row that fails.
        found: the submodule that is named, "" for the module itself, and what of it. None for buffers and maps.
        given: whether the input of that submodule is wrong already.
        also: the other quantity that fails, where outputs do not.
        mode: "eval" or "train".
        error: in place of a report: the comparison refuses the pair, with this message.
    """

    name: str
    plant: Plant
    case: str
    shows: tuple[str, str] = ("output", "output")
    found: tuple[str, str] | None = ("", "output")
    given: bool = False
    also: str = ""
    mode: str = "eval"
    error: str = ""

    @property
    def hidden(self) -> set[str]:
        """The quantities that fail where outputs do not: a harness that compares outputs alone would let it pass."""
        return set() if self.shows[0] == "output" else {self.shows[0], self.also} - {""}


# What the table of cases avoids, shapes in which a swapped axis raises no error, and what it does not need.
MORE_CASES = (
    Case(
        "MultiHeadAttention, square",
        "blocks.multi_head",
        (Input((2, 6, 6)), Input((2, 6, 6)), Input((2, 6, 6))),
        (None,),
        {"n_head": 2, "d_model": 6, "d_k": 3, "d_v": 3, "dropout": 0.0},
    ),
    Case("SinePositionEncoding2d, square", "blocks.position", (Input((2, 8, 5, 5), MAP),), (MAP,), {"channels": 8}),
    Case("NetMultiHeadAttention, square", "networks.patch", (Input((2, 3, 12, 12), MAP),), (None, MAP)),
    Case("ConvPart, zeros", "networks.patch", (Input((2, 3, 13, 15), MAP, "zeros"),), (MAP,)),
    Case(
        "BasicConv, zeros",
        "blocks.cbam",
        (Input((2, 1, 5, 7), MAP, "zeros"),),
        (MAP,),
        {"in_planes": 1, "out_planes": 3, "kernel_size": 1, "bn": False},
    ),
    Case(
        "ScaledDotProductAttention, long",
        "blocks.dot_product",
        (
            *(Input(shape, HEADS) for shape in ((1, 2, 131, 3), (1, 2, 5, 3), (1, 2, 5, 7))),
            Input((1, 1, 131, 5), kind="mask"),
        ),
        (HEADS,),
        {"temperature": 2.5},
    ),
    Case(
        "ScaledDotProductAttention, weights not asked for",
        "blocks.dot_product",
        tuple(Input(shape, HEADS) for shape in ((2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))),
        (HEADS,),
        {"temperature": 2.5, "attn_dropout": 0.3},
    ),
)


# ---- the arithmetic of attention


def mask_inverted(right, *args, mask=None, **kwargs):
    return right(*args, mask=mask == 0, **kwargs)


def mask_after_softmax(right, scores, mask=None, *args):
    return jnp.where(mask == 0, 0, right(scores, None, *args))


def softmax_over_queries(right, scores, *args):
    return right(scores.swapaxes(-1, -2), *args).swapaxes(-1, -2)


def softmax_in_float32(right, scores, *args):
    return right(scores.astype(jnp.float32), *args)


def heads_reversed(right, query, key, value, **kwargs):
    reordered, _ = right(query, key, value[:, :, ::-1], **kwargs)
    return reordered, right(query, key, value, **kwargs)[1]


def mask_forgotten_in_blocks(right, query, *args, mask=None, need_weights=True, **kwargs):
    many = not need_weights and query.shape[1] > ops.attention.PLAIN_QUERIES
    return right(query, *args, mask=None if many else mask, need_weights=need_weights, **kwargs)


def weights_before_dropout(right, *args, weights_fn=None, **kwargs):
    return right(*args, weights_fn=weights_fn, **kwargs)[0], right(*args, **kwargs)[1]


def scores_multiplied(right, query, key, value, score_fn, **kwargs):
    product = jnp.tanh(query[:, :, None] * key[:, None])
    return right(query, key, value, lambda hidden: score_fn(product), **kwargs)


# ---- pools and tokens


def mean_in_place_of_sum(pool):
    def wrong(right, x, pool_type):
        pixels = x.shape[1] * x.shape[2]
        pooled = right(x, pool_type)
        if pool_type != pool:
            return pooled
        return pooled - np.log(pixels) if pool == "lse" else pooled / np.sqrt(pixels)

    return wrong


def last_of_ties(right, x):
    even = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return right(even[:, ::-1, ::-1])[:, ::-1, ::-1]


# ---- BatchNorm


def in_training(change):
    """A wrong output while training: ``change(norm, x, out)``."""

    def wrong(right, self, x):
        out = right(self, x)
        return out if self.use_running_average else change(self, x, out)

    return wrong


def batch_statistics(x):
    axes = tuple(range(x.ndim - 1))
    return jnp.mean(x, axis=axes), jnp.var(x, axis=axes), x.size // x.shape[-1]


def unbiased_divisor(norm, x, out):
    _, var, count = batch_statistics(x)
    factor = jnp.sqrt((var + norm.eps) / (var * count / (count - 1) + norm.eps))
    return (out - norm.bias[...]) * factor + norm.bias[...]


def no_gradient_through_mean(norm, x, out):
    mean, var, _ = batch_statistics(x)
    factor = jax.lax.rsqrt(var + norm.eps) * norm.scale[...]
    return out + (mean - jax.lax.stop_gradient(mean)) * factor


def running_statistics(change):
    """Other running statistics after a call: ``change(norm, x, mean before, variance before)``."""

    def wrong(right, self, x):
        before = self.mean[...], self.var[...]
        out = right(self, x)
        change(self, x, *before)
        return out

    return wrong


def biased_variance(norm, x, mean, var):
    _, biased, _ = batch_statistics(x)
    norm.var[...] = jax.lax.stop_gradient((1 - norm.momentum) * var + norm.momentum * biased)


def variance_not_updated(norm, x, mean, var):
    norm.var[...] = var


def moved_in_eval_mode(norm, x, mean, var):
    norm.mean[...], norm.var[...] = mean, 1.1 * var


def running_statistics_in_training(right, self, x):
    train, self.use_running_average = self.use_running_average, True
    out = right(self, x)
    self.use_running_average = train
    return out


def statistics_in_float32(right, self, x):
    mean, var = self.mean[...], self.var[...]
    self.mean[...], self.var[...] = mean.astype(jnp.float32), var.astype(jnp.float32)
    out = right(self, x)
    self.mean[...], self.var[...] = mean, var
    return out


# ---- layers and blocks


def dropout_in_eval_mode(right, self, x):
    deterministic, self.deterministic = self.deterministic, False
    out = right(self, x)
    self.deterministic = deterministic
    return out


def multi_head(split, residual_first=False):
    """A MultiHeadAttention without mask, the features of a head split off by ``split(tokens, heads)``."""

    def wrong(right, self, query, key, value, mask=None, *, need_weights=False):
        projected = self.w_qs(query), self.w_ks(key), self.w_vs(value)
        out, weights = self.attention(*(split(x, self.n_head) for x in projected), need_weights=need_weights)
        out = self.fc(out.reshape(*query.shape[:2], -1))
        if self.layer_norm is None:
            return self.dropout(out), weights
        return self.layer_norm(self.dropout(out + query) if residual_first else self.dropout(out) + query), weights

    return wrong


def heads_first(x, heads):
    return x.reshape(*x.shape[:2], heads, -1)


def features_first(x, heads):
    return x.reshape(*x.shape[:2], -1, heads).swapaxes(2, 3)


def residual_from_query(right, self, query, context, *, need_weights=False):
    z1, weights = attend_heads(self.layers, query, context, need_weights=True)
    ops.record(self, "weights", weights)
    ops.record(self, "z1", z1)
    z2 = self.norm1(self.proj_down(z1) + query)
    return self.norm2(self.mixing_layer2(ops.relu(self.mixing_layer1(z2))) + z2), None


def bias_of_values_dropped(right, heads, *args, **kwargs):
    out, weights = right(heads, *args, **kwargs)
    return out - jnp.concatenate([head.value.bias[...] for head in heads]), weights


def heads_interleaved(right, heads, *args, **kwargs):
    out, weights = right(heads, *args, **kwargs)
    return out.reshape(*out.shape[:2], len(heads), -1).swapaxes(2, 3).reshape(out.shape), weights


def gate_before_its_sigmoid(right, module, name, value):
    return right(module, name, jnp.log(value / (1 - value)) if name == "gate" else value)


def no_gradient_through_gate(right, self, x):
    return ops.multiply(x, jax.lax.stop_gradient(self.channel_attention(x)))


def rows_and_columns_swapped(right, self, x):
    return right(self, x.swapaxes(1, 2)).swapaxes(1, 2)


def maximum_in_place_of_mean(right, self, x):
    gate = self.att_fc(jnp.max(x, axis=-1, keepdims=True))
    ops.record(self, "gate", gate)
    return ops.multiply(x, gate)


def head_reads_the_map_before_the_block(right, self, x):
    z = self.conv(x)
    attended = self.attend(z)
    return nnx.sigmoid(self.final(jnp.mean(z, axis=(1, 2)))[:, 0]), attended


# ---- conversion


def last_not_loaded(right, module, state_dict, **kwargs):
    own = flax_attn.to_torch(module)
    last = list(own)[-1]
    return right(module, {**state_dict, last: own[last]}, **kwargs)


def lists_left_out(right, module):
    return () if isinstance(module, nnx.List) else right(module)


def numbered_from_one(right, module):
    return [(str(int(name) + 1) if name.isdecimal() else name, child) for name, child in right(module)]


SCALED, MULTI_HEAD = "ScaledDotProductAttention", "MultiHeadAttention"
FIRST = ("output", "output[0]")
ATTENTION = ("attention", "output")
NORM = "layers.BatchNorm"
SAME_BITS = "must rearrange and undo each other"

# fmt: off
FAULTS = (
    Fault("no temperature", arguments("ops.dot_product_attention", temperature=1.0), SCALED, FIRST),
    Fault("mask inverted", wrap("ops.dot_product_attention", mask_inverted), f"{SCALED}, mask and dropout", FIRST),
    Fault("mask applied after the softmax", wrap("ops.attention.attention_weights", mask_after_softmax),
          f"{MULTI_HEAD}, mask", found=ATTENTION),
    Fault("masked scores of minus infinity: a row without keys is NaN",
          constant("ops.attention.MASKED_SCORE", -jnp.inf), "AdditiveAttention, mask", FIRST, ("", "not finite")),
    Fault("softmax over the queries", wrap("ops.attention.attention_weights", softmax_over_queries),
          f"{MULTI_HEAD}, without residual and norm", FIRST, ATTENTION),
    Fault("softmax in float32", wrap("ops.attention.attention_weights", softmax_in_float32), SCALED, FIRST),
    Fault("scores in float32", wrap("ops.dtype.score_dtype", lambda right, dtype: jnp.dtype(jnp.float32)),
          "AdditiveAttention", FIRST, ("v", "output"), given=True),
    Fault("heads in another order behind the weights", wrap("ops.dot_product_attention", heads_reversed),
          f"{MULTI_HEAD}, mask", found=ATTENTION),
    Fault("mask forgotten where queries go in blocks", wrap("ops.dot_product_attention", mask_forgotten_in_blocks),
          f"{SCALED}, long"),
    Fault("weights recorded before their dropout", wrap("ops.dot_product_attention", weights_before_dropout),
          f"{SCALED}, weights not asked for", ("map", "weights"), mode="train"),
    Fault("scores multiplied instead of added", wrap("ops.additive_attention", scores_multiplied), "AdditiveAttention",
          FIRST, ("v", "output"), given=True),
    Fault("kept elements not scaled",
          wrap("ops.dropout", lambda right, x, keep, rate: right(x, keep, rate) * (1 - rate)), MULTI_HEAD, FIRST,
          ("dropout", "output"), mode="train"),
    # ---- pools and tokens
    Fault("lse with 1/n", wrap("ops.global_pool", mean_in_place_of_sum("lse")), "ChannelGate"),
    Fault("lp as a mean", wrap("ops.global_pool", mean_in_place_of_sum("lp")), "ChannelGate"),
    Fault("the gradient of a maximum shared among ties",
          wrap("ops.max_first", lambda right, x, axis: jnp.max(x, axis=axis, keepdims=True)), "ChannelPool",
          ("input gradient", "input[0]"), None),
    Fault("the gradient of a pooled maximum to the last of ties", wrap("ops.max_pool_2x2", last_of_ties),
          "ConvPart, zeros", ("input gradient", "input[0]"), ("bn1a", "gradient")),
    Fault("token order: pixels where the article's reshape is meant",
          arguments("ops.map_to_tokens", token_order="pixels"), "NetMultiHeadAttention, article order", FIRST,
          ("attn1.w_qs", "output"), given=True),
    Fault("tokens put back with rows and columns swapped, on a square map",
          after("ops.tokens_to_map", lambda x: x.swapaxes(1, 2)), "NetMultiHeadAttention, square",
          ("output", "output[1]")),
    # ---- layers
    Fault("momentum not complemented", built(NORM, lambda norm: setattr(norm, "momentum", 1 - norm.momentum)),
          "PointwiseSpatialAttention", ("buffer", "bn.running_mean"), mode="train"),
    Fault("biased variance into the running variance", wrap(f"{NORM}.__call__", running_statistics(biased_variance)),
          "PointwiseSpatialAttention", ("buffer", "bn.running_var"), mode="train"),
    Fault("normalised by the unbiased variance", wrap(f"{NORM}.__call__", in_training(unbiased_divisor)),
          "PointwiseSpatialAttention", found=("bn", "output"), mode="train"),
    Fault("running variance not updated", wrap(f"{NORM}.__call__", running_statistics(variance_not_updated)),
          "SpatialGate", ("buffer", "spatial.bn.running_var"), mode="train"),
    Fault("running statistics move in eval mode", wrap(f"{NORM}.__call__", running_statistics(moved_in_eval_mode)),
          "SpatialGate", ("buffer", "spatial.bn.running_var")),
    Fault("running statistics normalise in training", wrap(f"{NORM}.__call__", running_statistics_in_training),
          "SpatialGate", found=("spatial.bn", "output"), mode="train"),
    Fault("running statistics rounded to float32", wrap(f"{NORM}.__call__", statistics_in_float32), "SpatialGate",
          found=("spatial.bn", "output")),
    Fault("no gradient through the batch's mean", wrap(f"{NORM}.__call__", in_training(no_gradient_through_mean)),
          "PointwiseSpatialAttention", ("parameter gradient", "conv.weight"), ("conv", "gradient"),
          also="input gradient", mode="train"),
    Fault("BatchNorm's eps", arguments(NORM, eps=1e-3), "BasicConv", found=("bn", "output")),
    Fault("LayerNorm's eps as in Flax", arguments("layers.LayerNorm", eps=1e-6), "ConvMultiHeadAttention, sequences",
          found=("norm1", "output")),
    Fault("an embedding rounded to float32",
          built("layers.Embedding", lambda table: setattr(table, "dtype", table.param_dtype)),
          "LearnedPositionEncoding2d", found=("row_embed", "output")),
    Fault("padding as SAME, for an even kernel", built("layers.Conv", lambda conv: setattr(conv, "padding", "SAME")),
          "BasicConv, bias alone",
          error=r"output of flax_module must have PyTorch's shape in its layout, \(3, 8, 12, 3\), got \(3, 7, 11, 3\)"),
    Fault("dropout in eval mode", wrap("layers.Dropout.__call__", dropout_in_eval_mode), MULTI_HEAD,
          error="dropout 'dropout' of flax_module must drop as often as torch_module's, 0 times, got 1"),
    # ---- blocks
    Fault("temperature from the values' size",
          built(MULTI_HEAD, lambda block: setattr(block.attention, "temperature", block.d_v**0.5)), MULTI_HEAD, FIRST,
          ATTENTION),
    Fault("heads split off with features first", wrap(f"{MULTI_HEAD}.__call__", multi_head(features_first)),
          f"{MULTI_HEAD}, without residual and norm", FIRST, ATTENTION, given=True),
    Fault("dropout after the residual", wrap(f"{MULTI_HEAD}.__call__", multi_head(heads_first, residual_first=True)),
          MULTI_HEAD, FIRST, ("dropout", "output"), given=True, mode="train"),
    Fault("the layer norm's eps left to its default", arguments("layers.LayerNorm", eps=1e-5), f"{MULTI_HEAD}, mask",
          found=("layer_norm", "output")),
    Fault("residual from the query instead of the context",
          wrap("ConvMultiHeadAttention.__call__", residual_from_query), "ConvMultiHeadAttention, sequences",
          found=("norm1", "output"), given=True),
    Fault("bias of the heads' values dropped", wrap("blocks.conv_multi_head.attend_heads", bias_of_values_dropped),
          "ConvAttention", FIRST),
    Fault("heads interleaved", wrap("blocks.conv_multi_head.attend_heads", heads_interleaved),
          "ConvMultiHeadAttention, sequences", found=("proj_down", "output"), given=True),
    Fault("(mean, max) in place of (max, mean)", after("ChannelPool.__call__", lambda pooled: pooled[..., ::-1]),
          "SpatialGate", found=("compress", "output")),
    Fault("a gate without its sigmoid", wrap("ops.sigmoid", lambda right, x: x), "SpatialGate"),
    Fault("half a gradient through a ReLU at zero", wrap("ops.relu", lambda right, x: jnp.maximum(x, 0)),
          "BasicConv, zeros", ("input gradient", "input[0]"), ("conv", "gradient")),
    Fault("BatchNorm's momentum left to its default", arguments(NORM, momentum=0.1), "BasicConv",
          ("buffer", "bn.running_mean"), mode="train"),
    Fault("a ReLU behind the spatial gate's convolution", arguments("BasicConv", relu=True), "SpatialGate",
          found=("spatial", "output")),
    Fault("no gradient through the gate", wrap("UseAttentionModel.__call__", no_gradient_through_gate),
          "UseAttentionModel", ("parameter gradient", "channel_attention.fc1.weight"),
          ("channel_attention", "gradient"), also="input gradient"),
    Fault("the gate recorded before its sigmoid", wrap("ops.record", gate_before_its_sigmoid),
          "PointwiseSpatialAttention, without norm", ("map", "gate")),
    Fault("rows and columns swapped, on a square map",
          wrap("SinePositionEncoding2d.__call__", rows_and_columns_swapped), "SinePositionEncoding2d, square"),
    Fault("the mean over channels as a maximum", wrap("SpatialAttentionModule.__call__", maximum_in_place_of_mean),
          "SpatialAttentionModule", found=("att_fc.0", "output"), given=True),
    Fault("a bias that the original does not have", arguments("layers.Linear", bias=True), "AdditiveAttention",
          error=r"cannot be paired: (.|\n)*w_q\.bias \(17,\) +only in flax_module"),
    # ---- networks
    Fault("the slope of a leaky ReLU", arguments("ops.leaky_relu", negative_slope=0.1), "ConvPart, zeros",
          found=("bn1a", "output"), given=True),
    Fault("the head reads the map before the block",
          wrap("networks.patch.PatchNetwork.__call__", head_reads_the_map_before_the_block),
          "NetMultiHeadAttention, square", FIRST, ("final", "output"), given=True),
    # ---- conversion
    Fault("a square kernel loaded untransposed", entry(nnx.Linear, "weight", from_torch=np.asarray),
          f"{MULTI_HEAD}, square",
          error=f"the conversion rule of Linear at 'fc': to_torch and from_torch of 'weight' {SAME_BITS}"),
    Fault("a square kernel left untransposed", entry(nnx.Linear, "weight", to_torch=np.asarray, from_torch=np.asarray),
          f"{MULTI_HEAD}, square", found=("w_qs", "output")),
    Fault("channels in and out swapped in a square convolution",
          entry(nnx.Conv, "weight", from_torch=lambda weight: weight.transpose(2, 3, 0, 1)),
          "PointwiseSpatialAttention, without norm",
          error=f"the conversion rule of Conv at 'conv': to_torch and from_torch of 'weight' {SAME_BITS}"),
    Fault("height and width swapped in a square kernel",
          entry(nnx.Conv, "weight", from_torch=lambda weight: weight.transpose(3, 2, 1, 0)), "SpatialGate",
          error=rf"the conversion rule of Conv at 'spatial\.conv': to_torch and from_torch of 'weight' {SAME_BITS}"),
    Fault("the running variance under the name of the mean",
          entry(BatchNorm, "running_mean", variable=lambda norm: norm.var), "BasicConv",
          error=r"outside of any: BatchStat 'bn\.mean'"),
    Fault("the last tensor not loaded", wrap("convert.state_dict.from_torch", last_not_loaded), "UseAttentionModel",
          found=("channel_attention", "output")),
    Fault("children in lists left unconverted", wrap("_tree.children", lists_left_out),
          "ConvMultiHeadAttention, sequences", error=r"outside of any: Param 'layers\.0\.key\.bias'"),
    Fault("children numbered from 1", wrap("_tree.children", numbered_from_one), "ChannelGate",
          error=r"cannot be paired: (.|\n)*mlp\.1\.weight \(3, 13\) +only in torch_module"),
)
# fmt: on
