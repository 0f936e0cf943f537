"""What conversion cannot carry over is an error that names it, and a loaded variable stays on its devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn.convert import Entry, rule
from flax_attn.layers import BatchNorm, Conv, GroupNorm, LayerNorm, Linear, MultiheadAttention


class Own(nnx.Variable):
    """A type of variable that only its author knows."""


class Holder(nnx.Module):
    """A layer, and beside it what a state_dict has no place for."""

    def __init__(self, **state):
        self.linear = Linear(3, 5, rngs=nnx.Rngs(0))
        for name, value in state.items():
            setattr(self, name, nnx.data(value))


@pytest.mark.parametrize(
    "value",
    [
        *(kind(jnp.ones(3)) for kind in (nnx.Param, nnx.BatchStat, nnx.Cache, nnx.LoRAParam, nnx.OptState, Own)),
        nnx.Variable(jnp.ones(3)),
        jnp.ones(3),
        np.ones(3),
        jnp.arange(3),
        {"inner": jnp.ones(3)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_state_outside_of_rules_is_named(value):
    with pytest.raises(
        ValueError, match=r"got in Holder outside of any: \w+ 'extra.*flax_attn\.convert\.rule"
    ) as error:
        flax_attn.to_torch(Holder(extra=value))
    module = Holder(extra=value)
    with pytest.raises(ValueError, match="'extra"):
        flax_attn.from_torch(module, {"linear.weight": np.ones((5, 3)), "linear.bias": np.ones(5)})
    assert "'linear" not in str(error.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nnx.WeightNorm(nnx.Linear(3, 5, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0)),
        lambda: nnx.SpectralNorm(nnx.Linear(3, 5, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0)),
        lambda: nnx.LoRALinear(3, 5, lora_rank=2, rngs=nnx.Rngs(0)),
        lambda: nnx.Sequential(nnx.WeightNorm(nnx.Conv(3, 5, (3,), rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))),
    ],
    ids=["WeightNorm", "SpectralNorm", "LoRALinear", "inside"],
)
def test_wrappers_that_hold_state_of_their_own_are_refused(make):
    with pytest.raises(ValueError, match=r"conversion rule, got in \w+ outside of any"):
        flax_attn.to_torch(make())


def test_random_streams_and_recorded_values_are_no_state():
    module = Holder(
        dropout=nnx.Dropout(0.5, rngs=nnx.Rngs(0)),
        rngs=nnx.Rngs(params=1, dropout=2),
        seen=nnx.Intermediate(jnp.ones(3)),
        key=jax.random.key(0),
    )
    assert list(flax_attn.to_torch(module)) == ["linear.weight", "linear.bias"]


def test_a_rule_answers_for_the_arrays_of_its_type_but_not_of_subclasses():
    class Table(nnx.Module):
        def __init__(self):
            self.scale, self.constant = nnx.Param(jnp.ones(3)), nnx.data(jnp.arange(3.0))

    class More(Table):
        pass

    rule(Table)(lambda layer: [Entry("weight", layer.scale)])
    assert list(flax_attn.to_torch(nnx.Dict(a=Table()))) == ["a.weight"]
    with pytest.raises(ValueError, match=r"array 'a\.constant'"):
        flax_attn.to_torch(nnx.Dict(a=More()))


class Tied(nnx.Module):
    def __init__(self, make):
        self.a = make(nnx.Rngs(0))
        self.b = self.a


@pytest.mark.parametrize(
    ("make", "other", "path"),
    [
        (lambda rngs: Linear(3, 3, rngs=rngs), torch.nn.Linear(3, 3), "b.weight"),
        (lambda rngs: Conv(2, 4, (3,), rngs=rngs), torch.nn.Conv1d(2, 4, 3), "b.bias"),
        (lambda rngs: BatchNorm(4, rngs=rngs), torch.nn.BatchNorm1d(4), "b.running_var"),
    ],
)
def test_a_shared_layer_takes_one_set_of_values(make, other, path):
    tied = torch.nn.ModuleDict({"a": other, "b": other})
    module = flax_attn.from_torch(Tied(make), tied.state_dict())
    state_dict = {name: tensor.clone() for name, tensor in tied.state_dict().items()}
    state_dict[path] += 1
    before = flax_attn.to_torch(module)
    with pytest.raises(
        ValueError, match=f"{path}: expected the values of {path.replace('b.', 'a.', 1)}, as they share"
    ):
        flax_attn.from_torch(module, state_dict)
    assert all(np.array_equal(before[name], array) for name, array in flax_attn.to_torch(module).items())
    with pytest.raises(ValueError, match=r"b\.\w+: expected shape .*, got nothing"):
        flax_attn.from_torch(module, {name: value for name, value in state_dict.items() if name.startswith("a.")})


def test_equal_values_of_a_shared_layer_may_be_nan():
    values = {
        f"{name}.{part}": np.full(shape, np.nan) for name in "ab" for part, shape in (("weight", (3, 3)), ("bias", 3))
    }
    assert np.isnan(flax_attn.from_torch(Tied(lambda rngs: Linear(3, 3, rngs=rngs)), values).a.bias[...]).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: nnx.Linear(3, 5, rngs=rngs),
        lambda rngs: nnx.Linear(3, 5, use_bias=False, rngs=rngs),
        lambda rngs: nnx.Conv(3, 5, (3, 3), rngs=rngs),
        lambda rngs: nnx.ConvTranspose(3, 5, (3,), rngs=rngs),
        lambda rngs: nnx.LinearGeneral(3, (2, 5), rngs=rngs),
        lambda rngs: nnx.LayerNorm(3, rngs=rngs),
        lambda rngs: nnx.GroupNorm(4, num_groups=2, rngs=rngs),
        lambda rngs: nnx.BatchNorm(3, use_scale=False, use_bias=False, rngs=rngs),
        lambda rngs: nnx.Embed(3, 5, rngs=rngs),
        lambda rngs: nnx.PReLU(),
        lambda rngs: nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs),
        lambda rngs: Linear(3, 5, rngs=rngs),
        lambda rngs: MultiheadAttention(4, 2, rngs=rngs),
        lambda rngs: GroupNorm(2, 4, rngs=rngs),
    ],
)
def test_stacked_layers_are_refused_by_name(make):
    @nnx.split_rngs(splits=4)
    @nnx.vmap(in_axes=0, out_axes=0)
    def stack(rngs):
        return nnx.Dict(inner=make(rngs))

    stacked = stack(nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"conversion rule of \w+ at 'inner\S*': its variables must be of one layer"):
        flax_attn.to_torch(stacked)
    graphdef, state = nnx.split(stacked)
    layers = [nnx.merge(graphdef, jax.tree.map(lambda array, i=i: array[i], state)) for i in range(4)]
    assert all(name.startswith("inner.") for name in flax_attn.to_torch(layers[3]))


@pytest.mark.parametrize("layer", [torch.nn.LazyLinear(5), torch.nn.LazyConv2d(5, 3), torch.nn.LazyBatchNorm1d()])
def test_parameters_of_lazy_layers_are_named(layer):
    name = next(iter(layer.state_dict()))
    with pytest.raises(ValueError, match=rf"{name}: .*got Uninitialized\w+; call the PyTorch module once"):
        flax_attn.from_torch(Linear(3, 5, rngs=nnx.Rngs(0)), {"weight": torch.ones(5, 3), **layer.state_dict()})


def test_tensors_without_a_shape_are_named():
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    with pytest.raises(ValueError, match=r"weight: .*\n.*extra: expected no such entry, got Tensor"):
        flax_attn.from_torch(Linear(3, 5, rngs=nnx.Rngs(0)), {"weight": nested, "bias": torch.ones(5), "extra": nested})


PLACES = """
import jax, numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding
from flax_attn import from_torch

mesh = jax.make_mesh((4,), ("x",))
places = [
    None, jax.devices()[2], NamedSharding(mesh, PartitionSpec(None, "x")), NamedSharding(mesh, PartitionSpec()),
    SingleDeviceSharding(jax.devices()[1], memory_kind="unpinned_host"),
]
for place in places:
    layer = nnx.Linear(8, 4, rngs=nnx.Rngs(0))
    if place is not None:
        layer.kernel.set_value(jax.device_put(layer.kernel[...], place))
    before = layer.kernel.get_value()
    from_torch(layer, {"weight": np.ones((4, 8)), "bias": np.zeros(4)})
    after = layer.kernel.get_value()
    assert (after.sharding, after.committed) == (before.sharding, before.committed), place
    assert (after == 1).all()
with jax.default_device(jax.devices()[3]):
    layer = nnx.Linear(8, 4, rngs=nnx.Rngs(0))
from_torch(layer, {"weight": np.ones((4, 8)), "bias": np.zeros(4)})
kernel = layer.kernel.get_value()
assert (kernel.devices(), kernel.committed) == ({jax.devices()[3]}, False)
shapes = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=places[3]),
    nnx.state(nnx.eval_shape(lambda: nnx.Linear(8, 4, rngs=nnx.Rngs(0)))),
)
nnx.update(layer, shapes)
from_torch(layer, {"weight": np.ones((4, 8)), "bias": np.zeros(4)})
assert layer.bias.get_value().sharding == places[3]
"""


def test_arrays_stay_on_their_devices():
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", PLACES], env={**os.environ, "XLA_FLAGS": flags}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_loading_inside_a_compiled_function():
    @jax.jit
    def kernel():
        layer = Linear(3, 5, rngs=nnx.Rngs(0))
        return flax_attn.from_torch(layer, {"weight": np.ones((5, 3)), "bias": np.ones(5)}).kernel[...]

    assert (kernel() == 1).all()
    shapes = nnx.eval_shape(lambda: LayerNorm(3, rngs=nnx.Rngs(0)))
    assert flax_attn.from_torch(shapes, {"weight": np.ones(3), "bias": np.zeros(3)})(jnp.ones((2, 3))).shape == (2, 3)
