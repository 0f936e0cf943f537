"""Mistakes in ports, as choices of the networks in residual.py, by the names that docs/porting.md gives them."""

from functools import partial

import jax
from flax import nnx

from flax_attn.layers import BatchNorm, Linear

from .residual import Choices


class Untransposed(Linear):
    def __call__(self, x):
        return x @ self.kernel[...].T + self.bias[...]


class NoBias(Linear):
    def __init__(self, *sizes, rngs):
        super().__init__(*sizes, bias=False, rngs=rngs)


MISTAKES = {
    "eps of a norm": ("eval", Choices(group_eps=1e-6)),
    "BatchNorm's momentum": ("train", Choices(norm=partial(BatchNorm, momentum=0.01))),
    "momentum in nnx's convention": ("train", Choices(norm=partial(nnx.BatchNorm, momentum=0.1, epsilon=1e-5))),
    "biased running variance": ("train", Choices(norm=partial(nnx.BatchNorm, momentum=0.9, epsilon=1e-5))),
    '`"SAME"` at stride 2': ("eval", Choices(padding="SAME")),
    "padding of a max-pool": ("eval", Choices(pool_padding="SAME")),
    "dropout rate": ("train", Choices(rate=0.1)),
    "approximate GELU": ("eval", Choices(gelu=jax.nn.gelu)),
    "number of heads": ("eval", Choices(heads=4)),
    "pre-norm for post-norm": ("eval", Choices(norm_first=True)),
    "missing ReLU": ("eval", Choices(relu=lambda x: x)),
    "flattened as `h w c`": ("eval", Choices(flatten=lambda x: x.reshape(len(x), -1))),
    "query and key swapped": ("eval", Choices(swap=True)),
    "square kernel not transposed": ("eval", Choices(project=Untransposed)),
}
