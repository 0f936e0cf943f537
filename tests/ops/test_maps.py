"""Attention maps on request: what is given, and that nothing stays behind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
import torch_ref
from flax_attn import ops
from flax_attn.networks.patch import NetCBAM
from flax_attn.registry import BLOCKS
from flax_attn.testing.layouts import to_flax
from torch_ref.cases import CASES
from torch_ref.pairs import build, build_twin
from train.look.maps import kind_of

# Linear in the tokens, so that no weight belongs to a pair of them.
WITHOUT_MAPS = {"lambda", "ufo"}


def make(case):
    return build(case, nnx.Rngs(0))


def inputs_of(case, seed=0):
    rng = np.random.default_rng(seed)
    return [
        to_flax((rng.random(x.shape) < 0.5) if x.kind == "mask" else rng.standard_normal(x.shape), x.layout, "input")
        for x in case.inputs
    ]


def single(arrays):
    return [jnp.asarray(x, bool if x.dtype == bool else jnp.float32) for x in arrays]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_weights_and_gates_are_given_on_both_sides(case):
    inputs = [torch.ones(x.shape, dtype=torch.bool if x.kind == "mask" else None) for x in case.inputs]
    theirs = torch_ref.attention_maps(build_twin(case), *inputs)
    ours = jax.eval_shape(lambda *x: flax_attn.attention_maps(make(case), *x), *single(inputs_of(case)))
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize("entry", BLOCKS, ids=lambda entry: entry.name)
def test_every_block_of_the_table_gives_something(entry):
    def maps():
        block = flax_attn.create_block(entry.name, 32, size=(24, 40), rngs=nnx.Rngs(0))
        x = jnp.ones((2, 24, 40, 32))
        if not entry.over_tokens:
            return flax_attn.attention_maps(block, *[x] * (2 if entry.kind == "context" else 1))
        return flax_attn.attention_maps(block, *[x.reshape(2, 960, 32)] * (3 if entry.kind == "tokens" else 1))

    assert {kind_of(path) for path in jax.eval_shape(maps)} & {"gate", "weights"} or entry.name in WITHOUT_MAPS


def test_paths_and_names_are_pytorchs():
    def maps():
        return flax_attn.attention_maps(NetCBAM(no_spatial=False, rngs=nnx.Rngs(0)), jnp.ones((2, 12, 20, 3)))

    assert {path: gate.shape for path, gate in jax.eval_shape(maps).items()} == {
        "attn1.channel_gate.gate": (2, 1, 1, 32),
        "attn1.spatial_gate.gate": (2, 3, 5, 1),
    }


STATEFUL = [
    "ScaledDotProductAttention, mask and dropout",
    "MultiHeadAttention",
    "ConvMultiHeadAttention",
    "CBAM, with spatial gate",
    "PointwiseSpatialAttention",
]
every_stateful = pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in STATEFUL], ids=lambda case: case.name
)


def snapshot(module):
    """Every array of a module, with random streams, and the attributes of every module inside it."""
    graphdef, state = nnx.split(module)
    arrays = [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x for x in jax.tree.leaves(state)
    ]
    return graphdef, [np.array(x) for x in arrays], [sorted(vars(inner)) for _, inner in nnx.iter_modules(module)]


@every_stateful
def test_nothing_stays_behind(case):
    with jax.default_prng_impl("rbg"):
        module, inputs = make(case), single(inputs_of(case))  # training: a call would move statistics and streams
        graphdef, arrays, attributes = snapshot(module)
        flax_attn.attention_maps(module, *inputs)
        after = snapshot(module)
        assert after[0] == graphdef
        assert after[2] == attributes
        for left, right in zip(after[1], arrays, strict=True):
            np.testing.assert_array_equal(left, right)
        module(*inputs)
        moved = snapshot(module)
    if case.class_name != "ConvMultiHeadAttention":  # which has no state; for the others the comparison can fail
        assert any(not np.array_equal(left, right) for left, right in zip(moved[1], arrays, strict=True))
    assert moved[2] == attributes


@pytest.mark.parametrize("name", ["ScaledDotProductAttention, mask and dropout", "MultiHeadAttention"])
def test_maps_are_the_weights_of_the_next_call(name):
    case = next(case for case in CASES if case.name == name)
    with jax.default_prng_impl("rbg"):
        module, inputs = make(case), single(inputs_of(case))
        (given,) = flax_attn.attention_maps(module, *inputs).values()
        np.testing.assert_array_equal(given, module(*inputs, need_weights=True)[1])


def test_maps_come_after_an_error_as_before():
    block = flax_attn.ChannelAttention(3, 1, rngs=nnx.Rngs(0))
    attributes = sorted(vars(block))
    with pytest.raises(ValueError, match="x must have shape"):
        flax_attn.attention_maps(block, jnp.ones((2, 5, 7, 4)))
    assert sorted(vars(block)) == attributes
    assert flax_attn.attention_maps(block, jnp.ones((2, 5, 7, 3))).keys() == {"gate"}


class Doubler(nnx.Module):
    """Records twice in one pass, and asks whether it is recorded."""

    def __init__(self):
        self.asked = None

    def __call__(self, x):
        self.asked = ops.is_recording(self)
        ops.record(self, "map", x)
        ops.record(self, "map", 2 * x)
        if self.asked:
            self.sow(nnx.Intermediate, "other", x)
        return x


def test_several_calls_in_one_pass_are_numbered_and_other_intermediates_left_out():
    maps = flax_attn.attention_maps(Doubler(), jnp.ones(3))
    assert {path: array.tolist() for path, array in maps.items()} == {"map.0": [1, 1, 1], "map.1": [2, 2, 2]}


def test_nothing_is_recorded_in_an_ordinary_call():
    block = Doubler()
    block(jnp.ones(3))
    assert block.asked is False


def test_a_module_without_attention_has_no_maps():
    assert flax_attn.attention_maps(flax_attn.ChannelPool(rngs=nnx.Rngs(0)), jnp.ones((2, 5, 7, 3))) == {}


class Rematerialised(nnx.Module):
    def __init__(self, *, rngs):
        self.gate = flax_attn.ChannelGate(8, 4, rngs=rngs)

    def __call__(self, x):
        return nnx.remat(lambda gate, x: gate(x))(self.gate, x)


class Compiled(Rematerialised):
    def __call__(self, x):
        return nnx.jit(lambda gate, x: gate(x))(self.gate, x)


@pytest.mark.parametrize("network", [Rematerialised, Compiled])
def test_maps_come_out_of_a_transformation_inside_the_module(network):
    module = network(rngs=nnx.Rngs(0))
    x = jnp.ones((2, 3, 5, 8))
    expected = flax_attn.attention_maps(module.gate, x)["gate"]
    np.testing.assert_array_equal(flax_attn.attention_maps(module, x)["gate.gate"], expected)
