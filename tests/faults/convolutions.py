"""The planted faults of attention over kernels, branches and frequencies."""

import jax
import jax.numpy as jnp
from flax import nnx

from flax_attn import ops

from .faults import Fault
from .planting import after, arguments, built, wrap


def parts_in_reverse(right, self, x):
    return right(self, jnp.concatenate(jnp.split(x, self.parts, axis=-1)[::-1], axis=-1))


def no_relu(right, self, pooled):
    scores = self.fc_select(self.bn(self.fc_reduce(pooled)))
    return nnx.softmax(scores.reshape(len(pooled), self.num_paths, -1), axis=1)


def weights_in_the_order_of_the_maps(right, self, x):
    groups, self.groups = self.groups, 1
    out = right(self, x)
    self.groups = groups
    return out


def gate_with_a_sigmoid(right, self, x):
    gate = ops.sigmoid(self.conv1(self.conv_spatial(self.conv0(x))))
    ops.record(self, "gate", gate)
    return ops.multiply(x, gate)


def smaller_dilation(block):
    block.conv_spatial.kernel_dilation, block.conv_spatial.padding = (2, 2), [(6, 6), (6, 6)]


def kernels_in_order(out):
    return out.reshape(*out.shape[:-1], 4, -1)[..., ::-1, :].reshape(out.shape)


def gate_of_the_map_itself(right, self, x):
    gate = ops.sigmoid(self.se.cvsig.conv(jnp.mean(x, axis=(1, 2), keepdims=True)))
    ops.record(self, "gate", gate)
    return nnx.silu(self.rbr_dense(x) + self.rbr_1x1(x) + self.rbr_identity(x) * gate)


CSRA = "ClassSpecificResidualAttention"
GRADIENT = ("input gradient", "input[0]")

# fmt: off
FAULTS = (
    Fault("each kernel sees the channels of another", wrap("SelectiveKernel.__call__", parts_in_reverse),
          "SelectiveKernel", found=("paths.0.conv", "output"), given=True),
    Fault("no ReLU in the hidden layer of the kernels' weights",
          wrap("blocks.selective_kernel._Select.__call__", no_relu), "SelectiveKernel, of the paper",
          found=("attn.fc_select", "output"), given=True),
    Fault("weights of groups read in the order of the maps",
          wrap("SplitAttention.__call__", weights_in_the_order_of_the_maps), "SplitAttention, norm and groups"),
    Fault("a softmax over one map", wrap("ops.sigmoid", lambda right, x: jnp.ones_like(x)), "SplitAttention, one map"),
    Fault("eps inside the norm", after("ops.safe_norm", lambda norm: jnp.sqrt(norm**2 + 1e-6)), "GlobalResponseNorm"),
    Fault("no gradient through the norm", after("ops.safe_norm", jax.lax.stop_gradient), "GlobalResponseNorm",
          GRADIENT, None),
    Fault("a sigmoid behind the gate", wrap("LargeKernelAttention.__call__", gate_with_a_sigmoid),
          "LargeKernelAttention"),
    Fault("a kernel with another dilation", built("LargeKernelAttention", smaller_dilation), "LargeKernelAttention",
          found=("conv_spatial", "output")),
    Fault("an approximate GELU",
          wrap("layers.GELU.__call__", lambda right, self, x: jax.nn.gelu(x, approximate=True)), "VANAttention",
          found=("activation", "output")),
    Fault("no skip connection", wrap("VANAttention.__call__", lambda right, self, x: right(self, x) - x),
          "VANAttention"),
    Fault("the kernels' results in their order", after("PyramidSplitAttention.__call__", kernels_in_order),
          "PyramidSplitAttention"),
    Fault("no sigmoid before the softmax", wrap("ops.sigmoid", lambda right, x: x), "PyramidSplitAttention"),
    Fault("a mean in place of a sum over the frequencies", after("ops.adaptive_avg_pool", lambda pooled: pooled / 49),
          "MultiSpectralAttention", found=("fc.0", "output"), given=True),
    Fault("the map cut in place of averaged",
          wrap("ops.adaptive_avg_pool", lambda right, x, size: x[:, : size[0], : size[1]]), "MultiSpectralAttention",
          found=("fc.0", "output"), given=True),
    Fault("scores of weights of any norm", built(CSRA, lambda block: setattr(block, "normalize", False)), CSRA),
    Fault("the gradient of the best pixel shared among ties",
          wrap("ops.max_first", lambda right, x, axis: jnp.max(x, axis=axis, keepdims=True)), f"{CSRA}, maximum",
          GRADIENT, ("head", "gradient")),
    Fault("the third of four heads with temperature 3",
          built("MultiHeadResidualAttention", lambda block: setattr(block.multi_head[2], "temperature", 3)),
          "MultiHeadResidualAttention", found=("multi_head.2", "output")),
    Fault("the mean of the heads", after("MultiHeadResidualAttention.__call__", lambda logits: logits / 4),
          "MultiHeadResidualAttention"),
    Fault("the gate computed before BatchNorm", wrap("ParNetAttention.__call__", gate_of_the_map_itself),
          "ParNetAttention", found=("se.cvsig.conv", "output"), given=True),
    Fault("another momentum", arguments("layers.BatchNorm", momentum=0.01), "ParNetAttention",
          ("buffer", "rbr_identity.running_mean"), mode="train"),
)
