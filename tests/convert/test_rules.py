"""A user's own rules: registered by layer type, checked when used, every fault named with layer and path."""

from dataclasses import FrozenInstanceError

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from einops import rearrange
from flax import nnx

import flax_attn
from flax_attn.convert import Entry, rule
from flax_attn.convert.rules import RULES
from flax_attn.layers import Linear
from flax_attn.testing import relative_error, tolerance


class Scaled(nnx.Module):
    def __init__(self, shape=(3, 5)):
        self.kernel = nnx.Param(jnp.arange(float(np.prod(shape))).reshape(shape))
        self.scale = nnx.Param(jnp.arange(float(shape[1])))
        self.index = nnx.BatchStat(jnp.arange(7))


def scaled(layer):
    yield Entry("weight", layer.kernel, np.transpose, np.transpose)
    yield Entry("gamma", layer.scale)
    yield Entry("index", layer.index)


def given():
    rng = np.random.default_rng(0)
    return {
        "weight": rng.standard_normal((5, 3)).astype(np.float32),
        "gamma": rng.standard_normal(5).astype(np.float32),
        "index": np.array([6, 0, 5, 1, 4, 2, 3]),
    }


def test_a_users_layer_converts_once_it_has_a_rule():
    with pytest.raises(ValueError, match=r"outside of any: .*'kernel'.*flax_attn\.convert\.rule registers one"):
        flax_attn.to_torch(Scaled())
    assert rule(Scaled)(scaled) is scaled
    back = flax_attn.to_torch(flax_attn.from_torch(Scaled(), given()))
    assert list(back) == list(given())
    for name, array in given().items():
        np.testing.assert_array_equal(back[name], array)


class Tokens(nnx.Module):
    """Parameters beside modules, as in a vision transformer."""

    def __init__(self, rngs):
        self.cls_token = nnx.Param(jnp.zeros((1, 1, 5)))
        self.blocks = nnx.List([Linear(5, 3, rngs=rngs), nnx.Dict(mlp=Linear(3, 2, bias=False, rngs=rngs))])


def test_modules_inside_a_layer_with_a_rule_follow_by_their_own():
    @rule(Tokens)
    def tokens(module):
        yield Entry("cls_token", module.cls_token)

    assert list(flax_attn.to_torch(nnx.Dict(vit=Tokens(nnx.Rngs(0))))) == [
        "vit.cls_token",
        "vit.blocks.0.weight",
        "vit.blocks.0.bias",
        "vit.blocks.1.mlp.weight",
    ]


def test_a_rule_may_speak_for_a_module_inside():
    @rule(Tokens)
    def tokens(module):
        yield Entry("cls_token", module.cls_token)
        yield Entry("head.weight", module.blocks[0].kernel, np.transpose, np.transpose)
        yield Entry("head.bias", module.blocks[0].bias)

    module = Tokens(nnx.Rngs(0))
    assert list(flax_attn.to_torch(module)) == ["cls_token", "head.weight", "head.bias", "blocks.1.mlp.weight"]
    rule(Tokens, replace=True)(lambda module: [*tokens(module)][:2])
    with pytest.raises(ValueError, match=r"outside of any: Param 'blocks\.0\.bias'"):
        flax_attn.to_torch(module)


class Special(Scaled):
    pass


def test_a_rule_holds_for_subclasses_until_they_have_their_own():
    rule(Scaled)(scaled)
    assert list(flax_attn.to_torch(Special())) == ["weight", "gamma", "index"]

    @rule(Special)
    def special(layer):
        yield from scaled(layer)
        yield Entry("version", None, constant=np.array(2))

    assert list(flax_attn.to_torch(Special())) == ["weight", "gamma", "index", "version"]
    assert list(flax_attn.to_torch(Scaled())) == ["weight", "gamma", "index"]


def test_a_second_rule_has_to_say_so():
    rule(Scaled)(scaled)
    rule(Scaled)(scaled)  # the same one
    with pytest.raises(ValueError, match=r"Scaled, which has .*\.scaled; pass replace=True"):
        rule(Scaled)(lambda layer: [])
    assert RULES[Scaled] is scaled
    rule(Scaled, replace=True)(lambda layer: [*scaled(layer)])
    assert list(flax_attn.to_torch(Scaled())) == ["weight", "gamma", "index"]


def test_replacing_is_asked_for_by_name():
    with pytest.raises(TypeError):
        rule(Scaled, True)


def test_entries_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Entry("weight", Scaled().kernel).name = "other"


def test_only_what_is_trained_is_a_parameter():
    layer = Scaled()
    assert Entry("weight", layer.kernel).is_parameter
    assert Entry("both", [layer.kernel, layer.scale]).is_parameter
    assert not Entry("index", layer.index).is_parameter
    assert not Entry("mixed", [layer.kernel, layer.index]).is_parameter
    assert not Entry("count", None, constant=np.array(2)).is_parameter


class Masked(nnx.Module):
    def __init__(self):
        self.mask = nnx.BatchStat(jnp.zeros(3, bool))


def test_other_kinds_of_numbers_take_their_own():
    rule(Masked)(lambda layer: [Entry("mask", layer.mask)])
    mask = np.array([True, False, True])
    np.testing.assert_array_equal(flax_attn.from_torch(Masked(), {"mask": mask}).mask[...], mask)
    with pytest.raises(ValueError, match="mask: expected an array of dtype bool, got int64"):
        flax_attn.from_torch(Masked(), {"mask": mask.astype(np.int64)})


@pytest.mark.parametrize("wrong", [torch.nn.Linear, int, nnx.Param, "Scaled", Scaled()], ids=str)
def test_rules_are_for_modules(wrong):
    with pytest.raises(ValueError, match=r"layer_type must be a subclass of flax\.nnx\.Module, got"):
        rule(wrong)


def first(entry):
    """A rule whose first entry is wrong."""
    return lambda layer: [entry(layer), *list(scaled(layer))[1:]]


FAULTS = {
    "no entry": (first(lambda layer: layer.kernel), r"must yield flax_attn\.convert\.Entry, got Param"),
    "an array": (
        first(lambda layer: Entry("weight", layer.kernel[...])),
        r"variable of 'weight' must be an nnx\.Variable, got ArrayImpl",
    ),
    "another's variable": (
        first(lambda layer: Entry("weight", nnx.Param(layer.kernel[...]))),
        "variable of 'weight' must be one of the module's own",
    ),
    "neither": (first(lambda layer: Entry("weight", None)), "'weight' must have a variable or a constant, got neither"),
    "no name": (first(lambda layer: Entry("", layer.kernel)), "name must be dotted path segments, got ''"),
    "no name between dots": (first(lambda layer: Entry("a..b", layer.kernel)), "got 'a..b'"),
    "one way only": (
        first(lambda layer: Entry("weight", layer.kernel, np.transpose)),
        r"from_torch of 'weight' must give Flax's shape \[\(3, 5\)\], got \[\(5, 3\)\]",
    ),
    "numbers lost": (
        first(lambda layer: Entry("weight", layer.kernel, lambda kernel: kernel[:1], lambda w: np.repeat(w, 3, 0))),
        "must rearrange and undo each other",
    ),
    "numbers changed": (
        first(lambda layer: Entry("weight", layer.kernel, lambda kernel: 2 * kernel)),
        "must rearrange and undo each other",
    ),
    "numbers changed and changed back": (
        first(lambda layer: Entry("weight", layer.kernel, np.negative, np.negative)),
        "must rearrange and undo each other",
    ),
    "a fault of its own": (first(lambda layer: Entry("weight", layer.weight)), "AttributeError: .*'weight'"),
    "nothing": (lambda layer: None, "TypeError: 'NoneType' object is not iterable"),
    "parts of another size": (
        first(lambda layer: Entry("weight", layer.kernel, np.transpose, np.transpose, parts={"a": 2, "b": 2})),
        r"the parts of 'weight' must have its 5 rows, got \{'a': 2, 'b': 2\}",
    ),
    "others instead": (
        first(lambda layer: Entry("weight", layer.kernel, instead=(Entry("w", layer.scale),))),
        "the entries instead of 'weight' must have its variables",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("use", [flax_attn.to_torch, lambda module: flax_attn.from_torch(module, given())])
def test_a_wrong_rule_is_named_with_layer_and_path(name, use):
    function, message = FAULTS[name]
    rule(Scaled)(function)
    with pytest.raises(ValueError, match=rf"the conversion rule of Scaled at 'blocks\.0': .*{message}"):
        use(nnx.Dict(blocks=nnx.List([Scaled()])))


def test_a_square_kernel_that_goes_one_way_only_is_found():
    rule(Scaled)(first(lambda layer: Entry("weight", layer.kernel, np.transpose)))
    with pytest.raises(ValueError, match="to_torch and from_torch of 'weight' must rearrange and undo each other"):
        flax_attn.to_torch(Scaled((3, 3)))


def test_two_entries_of_one_path():
    rule(Scaled)(lambda layer: [*scaled(layer), Entry("gamma", layer.scale)])
    with pytest.raises(ValueError, match=r"path of its own, got 'a\.gamma' of Scaled at 'a', 'a\.gamma' of Scaled at"):
        flax_attn.to_torch(nnx.Dict(a=Scaled()))


def test_whole_numbers_take_whole_numbers():
    rule(Scaled)(scaled)
    with pytest.raises(ValueError, match=r"index: expected an array of whole numbers, got float32 of shape \(7,\)"):
        flax_attn.from_torch(Scaled(), {**given(), "index": np.zeros(7, np.float32)})


class Grouped(nnx.Conv):
    """A grouped transposed convolution, which Flax has no layer for: stride 2, padding 1."""

    def __init__(self, in_features, out_features, kernel_size, groups, rngs):
        super().__init__(
            in_features,
            out_features,
            kernel_size,
            padding=[(k - 2, k - 2) for k in kernel_size],
            input_dilation=2,
            feature_group_count=groups,
            param_dtype=jnp.float64,
            rngs=rngs,
        )


def grouped(layer):
    groups = layer.feature_group_count
    yield Entry(
        "weight",
        layer.kernel,
        lambda kernel: rearrange(np.flip(kernel, (0, 1)), "h w i (g o) -> (g i) o h w", g=groups),
        lambda weight: np.flip(rearrange(weight, "(g i) o h w -> h w i (g o)", g=groups), (0, 1)),
    )
    yield Entry("bias", layer.bias)


def test_a_grouped_transposed_convolution_as_a_rule_of_ones_own():
    rule(Grouped)(grouped)
    theirs = torch.nn.ConvTranspose2d(4, 6, (3, 5), stride=2, padding=1, groups=2)
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 7))
    with jax.enable_x64(True):
        ours = flax_attn.from_torch(Grouped(4, 6, (3, 5), 2, nnx.Rngs(0)), theirs.state_dict())
        got = np.asarray(ours(jnp.asarray(np.moveaxis(x, 1, -1))))
    wanted = np.moveaxis(theirs.double()(torch.from_numpy(x)).detach().numpy(), 1, -1)
    assert relative_error(got, wanted) <= tolerance("output", "float64")


class Stem(nnx.Sequential):
    """A Sequential with a name of its own, and something beside its layers."""

    def __init__(self, rngs):
        super().__init__(Linear(3, 5, rngs=rngs), nnx.relu, Linear(5, 2, rngs=rngs))
        self.skip = Linear(3, 2, rngs=rngs)


class TorchStem(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))
        self.skip = torch.nn.Linear(3, 2)


class Nested(nnx.Module):
    """Containers of every kind, one in another."""

    def __init__(self, rngs):
        self.stem = Stem(rngs)
        self.lists = nnx.data([[Linear(3, 5, rngs=rngs)], (Linear(5, 3, rngs=rngs), Linear(3, 2, rngs=rngs))])
        self.dicts = nnx.data({"a": {"b": Linear(2, 3, rngs=rngs)}})
        self.mixed = nnx.List([nnx.Dict(c=nnx.Sequential(Linear(2, 5, rngs=rngs)))])
        self.nothing = []


class TorchNested(torch.nn.Module):
    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.stem = TorchStem()
        self.lists = nn.ModuleList(
            [nn.ModuleList([nn.Linear(3, 5)]), nn.ModuleList([nn.Linear(5, 3), nn.Linear(3, 2)])]
        )
        self.dicts = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(2, 3)})})
        self.mixed = nn.ModuleList([nn.ModuleDict({"c": nn.Sequential(nn.Linear(2, 5))})])


def test_containers_in_containers():
    theirs = TorchNested().state_dict()
    back = flax_attn.to_torch(flax_attn.from_torch(Nested(nnx.Rngs(0)), theirs))
    assert back.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(back[name], tensor.numpy())
