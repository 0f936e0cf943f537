"""A fresh layer draws its parameters from PyTorch's default distributions, and so does every block made of layers.

Each sample goes through a Kolmogorov-Smirnov test against the exact distribution, the sample of PyTorch's own layer
beside ours: that the distribution *is* PyTorch's is part of the claim.
"""

from functools import cache

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from scipy.stats import ks_2samp, kstest, norm, uniform

import flax_attn
from flax_attn import layers
from flax_attn.convert.rules import find_rule
from flax_attn.layers.initializers import uniform_fan_in
from flax_attn.testing.tolerances import P_VALUE
from torch_ref.cases import CASES
from torch_ref.pairs import build, create_twin


def uniform_within(bound):
    return uniform(loc=-bound, scale=2 * bound)


# name: ours, PyTorch's, Flax's own, and the bound 1/sqrt(fan_in) of weights and biases.
UNIFORM = {
    "Linear": (
        lambda rngs: layers.Linear(5, 2003, rngs=rngs),
        lambda: torch.nn.Linear(5, 2003),
        lambda rngs: nnx.Linear(5, 2003, rngs=rngs),
        5**-0.5,
    ),
    "Conv, one axis": (
        lambda rngs: layers.Conv(3, 2003, (5,), rngs=rngs),
        lambda: torch.nn.Conv1d(3, 2003, 5),
        lambda rngs: nnx.Conv(3, 2003, (5,), rngs=rngs),
        15**-0.5,
    ),
    "Conv, two axes": (
        lambda rngs: layers.Conv(3, 2003, (2, 5), rngs=rngs),
        lambda: torch.nn.Conv2d(3, 2003, (2, 5)),
        lambda rngs: nnx.Conv(3, 2003, (2, 5), rngs=rngs),
        30**-0.5,
    ),
    "Conv, groups": (
        lambda rngs: layers.Conv(6, 2004, (3, 5), groups=2, rngs=rngs),
        lambda: torch.nn.Conv2d(6, 2004, (3, 5), groups=2),
        lambda rngs: nnx.Conv(6, 2004, (3, 5), feature_group_count=2, rngs=rngs),
        45**-0.5,
    ),
    "ConvTranspose": (
        lambda rngs: layers.ConvTranspose(7, 2003, (2, 3), rngs=rngs),
        lambda: torch.nn.ConvTranspose2d(7, 2003, (2, 3)),
        lambda rngs: nnx.ConvTranspose(7, 2003, (2, 3), rngs=rngs),
        12018**-0.5,  # PyTorch counts the outputs
    ),
}
every_uniform = pytest.mark.parametrize("name", UNIFORM)


@cache
def sample(name, side):
    """Weights and biases of a fresh layer: 0 is ours, 1 PyTorch's, 2 Flax's own."""
    make = UNIFORM[name][side]
    if side == 1:
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            layer = make()
            return layer.weight.numpy().ravel(), layer.bias.numpy()
    layer = make(nnx.Rngs(0))
    return np.asarray(layer.kernel[...]).ravel(), np.asarray(layer.bias[...])


@every_uniform
@pytest.mark.parametrize("side", [0, 1], ids=["ours", "torch"])
@pytest.mark.parametrize("part", [0, 1], ids=["weight", "bias"])
def test_weights_and_biases_are_uniform(name, side, part):
    values = sample(name, side)[part]
    assert kstest(values, uniform_within(UNIFORM[name][3]).cdf).pvalue > P_VALUE


@every_uniform
@pytest.mark.parametrize("part", [0, 1], ids=["weight", "bias"])
def test_flaxs_own_layers_are_rejected(name, part):
    # Their weights are truncated normals of variance 1/fan_in, their biases zero.
    values = sample(name, 2)[part]
    assert kstest(values, uniform_within(UNIFORM[name][3]).cdf).pvalue < P_VALUE


@every_uniform
def test_a_neighbouring_bound_is_rejected(name):
    # A fan_in that forgets a factor of 2 (a group, a tap of the kernel) shows.
    for values in sample(name, 0):
        assert kstest(values, uniform_within(UNIFORM[name][3] * 2**0.5).cdf).pvalue < P_VALUE
        assert kstest(values, uniform_within(UNIFORM[name][3] / 2**0.5).cdf).pvalue < P_VALUE


def embedding(side):
    if side == "torch":
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(0)
            return torch.nn.Embedding(211, 23).weight.numpy()
    return np.asarray({"ours": layers.Embedding, "flax": nnx.Embed}[side](211, 23, rngs=nnx.Rngs(0)).embedding[...])


@pytest.mark.parametrize("side", ["ours", "torch"])
def test_embeddings_are_standard_normal(side):
    assert kstest(embedding(side).ravel(), norm.cdf).pvalue > P_VALUE


def test_flaxs_own_embedding_is_rejected():
    assert kstest(embedding("flax").ravel(), norm.cdf).pvalue < P_VALUE


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: layers.LayerNorm(7, rngs=nnx.Rngs(0)), lambda: torch.nn.LayerNorm(7)),
        (lambda: layers.BatchNorm(7, rngs=nnx.Rngs(0)), lambda: torch.nn.BatchNorm2d(7)),
        (lambda: layers.GroupNorm(1, 7, rngs=nnx.Rngs(0)), lambda: torch.nn.GroupNorm(1, 7)),
    ],
    ids=["LayerNorm", "BatchNorm", "GroupNorm"],
)
def test_norms_start_as_in_pytorch(ours, theirs):
    ours, theirs = ours(), theirs()
    pairs = [(ours.scale, theirs.weight, 1), (ours.bias, theirs.bias, 0)]
    if isinstance(ours, layers.BatchNorm):
        pairs += [(ours.mean, theirs.running_mean, 0), (ours.var, theirs.running_var, 1)]
    for left, right, value in pairs:
        np.testing.assert_array_equal(left[...], np.full(7, value))
        np.testing.assert_array_equal(right.detach(), np.full(7, value))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_parameter_of_every_module_belongs_to_a_layer_or_has_a_rule(case):
    # What holds for the layers then holds for blocks and networks; tests of blocks with rules say where theirs start.
    module = nnx.eval_shape(lambda: build(case, nnx.Rngs(0)))
    for _, inner in nnx.iter_modules(module):
        if any(isinstance(value, nnx.Param) for value in vars(inner).values()):
            assert type(inner).__module__.startswith(layers.__name__) or find_rule(inner) is not None


# Their originals draw other values; the tests of these blocks say which.
OTHER_INITIAL_VALUES = {
    "AttentionPool2d",
    "BottleneckAttention",
    "ExternalAttention",
    "GlobalContext",
    "HaloAttention",
    "LambdaLayer",
    "MultiQueryAttention2d",
    "NonLocalAttention",
    "UFOAttention",
}


@cache
def fresh_weights():
    """Per block: weights and biases of its products and convolutions, in units of 1/sqrt(fan_in)."""
    weights = {}
    cases = [case for case in CASES if case.module.startswith("blocks.") and case.name == case.class_name]
    cases = [case for case in cases if case.name not in OTHER_INITIAL_VALUES]
    with jax.default_prng_impl("rbg"):  # compiles in a tenth of the default's time
        for seed, case in enumerate(cases):
            module = build(case, nnx.Rngs(seed))
            weights[case.name] = [
                np.asarray(parameter[...]).ravel() * np.sqrt(np.prod(inner.kernel.shape[:-1]))
                for _, inner in nnx.iter_modules(module)
                if isinstance(inner, layers.Linear | layers.Conv)
                for parameter in (inner.kernel, inner.bias)
                if parameter is not None
            ]
    return weights


def test_weights_and_biases_of_all_blocks_are_uniform():
    # At most a hundred values of each, that large layers do not drown the small ones.
    drawn = np.concatenate([values[:101] for block in fresh_weights().values() for values in block])
    assert kstest(drawn, uniform_within(1).cdf).pvalue > P_VALUE


def test_no_two_parameters_of_a_block_are_one_draw():
    for name, block in fresh_weights().items():
        assert len({values[0] for values in block}) == len(block), name


@pytest.mark.parametrize("name", flax_attn.list_blocks())
def test_every_block_starts_as_its_twin(name):
    with jax.default_prng_impl("rbg"):
        ours = flax_attn.to_torch(flax_attn.create_block(name, 64, size=(7, 9), rngs=nnx.Rngs(0)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs, others = ({k: v.numpy() for k, v in create_twin(name, 64, (7, 9)).state_dict().items()} for _ in "12")
    for key, values in theirs.items():
        assert ours[key].shape == values.shape, key
        if np.array_equal(values, others[key]):  # drawn by chance otherwise
            np.testing.assert_array_equal(ours[key], values, err_msg=key)
        else:
            assert ks_2samp(ours[key].ravel(), values.ravel()).pvalue > P_VALUE, key


def test_values_are_placed_as_flax_asks():
    # What nnx hands on for parameters that are spread over devices.
    wanted = NamedSharding(jax.make_mesh((1,), ("model",)), PartitionSpec(None, "model"))
    initial = uniform_fan_in(4)
    placed, plain = (initial(jax.random.key(0), (3, 5), out_sharding=where) for where in (wanted, None))
    assert placed.sharding == wanted
    assert plain.sharding != wanted
    np.testing.assert_array_equal(placed, plain)


def test_the_seed_decides():
    one, same, other = (layers.Linear(3, 5, rngs=nnx.Rngs(seed)).kernel[...] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
