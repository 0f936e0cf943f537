"""The tables of names: they alone load what a package saves, and give it back.

That the functions are equal then, tests/test_originals.py shows, which loads with the same tables and nothing else.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn.convert import NAMES
from flax_attn.convert.walk import DERIVED
from flax_attn.testing import relative_error, tolerance
from torch_ref.originals import find_originals
from torch_ref.originals.check import class_of, table_of
from torch_ref.pairs import randomise

IN_PACKAGES = [one for one in find_originals() if one.block != "ResNet"]


@pytest.mark.parametrize("original", IN_PACKAGES, ids=lambda original: original.name)
def test_names_and_values_go_back(original):
    """Axes of size 1 aside, as where one has a linear layer and the other a 1x1 convolution."""
    theirs = original.load().state_dict()
    ours = class_of(original)(**original.args, rngs=nnx.Rngs(0))
    back = flax_attn.to_torch(flax_attn.from_torch(ours, theirs, rename=table_of(original)), rename=table_of(original))
    derived = {name for name in theirs if name.endswith(DERIVED)}
    assert back.keys() - derived == theirs.keys() - derived
    for name in back.keys() - derived:
        got, want = (np.squeeze(np.asarray(array)) for array in (back[name], theirs[name]))
        np.testing.assert_array_equal(got, want, err_msg=name)


@pytest.mark.parametrize("original", [one for one in IN_PACKAGES if one.names], ids=lambda original: original.name)
def test_a_table_is_called_as_package_and_class(original):
    place, _, cls = original.path.partition(":")
    package, _, name = original.names.rpartition(".")
    assert (package, name) == ("torch.nn" if place == "torch.nn" else place.split(".")[0], cls)


class Net(nnx.Module):
    """A block within others, at two places."""

    def __init__(self, make):
        self.stages = nnx.List([nnx.Dict(attn=make()), nnx.Dict(attn=make())])


def net_of(make):
    return torch.nn.ModuleDict({"stages": torch.nn.ModuleList([torch.nn.ModuleDict({"attn": make()})] * 2)})


@pytest.mark.parametrize(
    "name", ["timm.CbamModule", "halonet_pytorch.HaloAttention", "fightingcv_attention.MobileViTv2Attention"]
)
def test_other_orders_of_rows_within_a_network(name):
    original = next(one for one in IN_PACKAGES if one.names == name)
    theirs = net_of(original.load)
    names = NAMES[name]
    ours = Net(lambda: class_of(original)(**original.args, rngs=nnx.Rngs(0)))
    back = flax_attn.to_torch(flax_attn.from_torch(ours, theirs.state_dict(), rename=names), rename=names)
    expected = theirs.state_dict()
    theirs.load_state_dict({name: torch.from_numpy(back[name]).reshape(old.shape) for name, old in expected.items()})
    for entry, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, expected[entry]), entry


def test_without_a_table_entries_are_called_and_laid_out_as_ours():
    block = flax_attn.HaloAttention(16, num_heads=2, rngs=nnx.Rngs(0))
    given = flax_attn.to_torch(block, rename=NAMES["halonet_pytorch.HaloAttention"])
    assert "kv.weight" in flax_attn.to_torch(block)
    with pytest.raises(ValueError, match=r"kv\.weight: expected shape .*, got nothing"):
        flax_attn.from_torch(block, given, rename={**NAMES["halonet_pytorch.HaloAttention"], "to_kv": "to_kv"})


SEPARABLE = NAMES["fightingcv_attention.MobileViTv2Attention"]


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"fc_k.weight": np.ones((31, 32))}, ["key_proj.weight: expected shape (32, 32, 1, 1), got (31, 32)"]),
        ({"fc_i.bias": None}, ["score_proj.bias: expected shape (1,), got nothing"]),
        ({"qkv_proj.bias": np.ones(65)}, [f"{part}_proj.bias: expected no such" for part in ("score", "key", "value")]),
    ],
)
def test_parts_that_do_not_fit_are_named(change, lines):
    block = flax_attn.SeparableSelfAttention(32, rngs=nnx.Rngs(0))
    given = {**flax_attn.to_torch(block, rename=SEPARABLE), **change}
    given = {name: value for name, value in given.items() if value is not None}
    before = flax_attn.to_torch(block)
    with pytest.raises(ValueError, match="does not fit") as error:
        flax_attn.from_torch(block, given, rename=SEPARABLE)
    found = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert len(found) == len(lines)
    assert all(line.startswith(expected) for line, expected in zip(found, lines, strict=True))
    assert all(np.array_equal(before[name], array) for name, array in flax_attn.to_torch(block).items())


def test_parts_have_a_path_of_their_own():
    class Both(flax_attn.SeparableSelfAttention):
        def __init__(self):
            super().__init__(4, rngs=nnx.Rngs(0))
            self.key_proj = flax_attn.layers.Linear(4, 4, rngs=nnx.Rngs(0))

    with pytest.raises(ValueError, match=r"a path of its own, got 'key_proj\.weight' of Both"):
        flax_attn.to_torch(Both())


class ContextBlock(torch.nn.Module):
    """Of mmcv, which is in a repository alone: its norm is over (r, 1, 1)."""

    def __init__(self):
        super().__init__()
        conv = torch.nn.Conv2d
        self.conv_mask = conv(8, 1, 1)
        self.channel_add_conv = torch.nn.Sequential(
            conv(8, 2, 1), torch.nn.LayerNorm([2, 1, 1]), torch.nn.ReLU(), conv(2, 8, 1)
        )

    def forward(self, x):
        weights = self.conv_mask(x).flatten(2).softmax(-1)
        context = torch.einsum("bcn,bin->bc", x.flatten(2), weights)[:, :, None, None]
        return x + self.channel_add_conv(context)


class GRN(torch.nn.Module):
    """Of ConvNeXt-V2, which is in a repository alone."""

    def __init__(self):
        super().__init__()
        self.gamma, self.beta = (torch.nn.Parameter(torch.zeros(1, 1, 1, 8)) for _ in range(2))

    def forward(self, x):
        x = x.movedim(1, -1)
        size = x.norm(p=2, dim=(1, 2), keepdim=True)
        out = self.gamma * (x * size / (size.mean(-1, keepdim=True) + 1e-6)) + self.beta + x
        return out.movedim(-1, 1)


@pytest.mark.parametrize(
    ("theirs", "ours", "args", "names"),
    [
        (
            ContextBlock,
            flax_attn.GlobalContext,
            {"channels": 8, "rd_channels": 2, "eps": 1e-5, "fuse_add": True, "fuse_scale": False},
            "mmcv.ContextBlock",
        ),
        (GRN, flax_attn.GlobalResponseNorm, {"dim": 8}, "ConvNeXt-V2.GRN"),
    ],
)
def test_norms_of_repositories(theirs, ours, args, names):
    theirs = theirs().double()
    randomise(theirs, np.random.default_rng(0), {})
    x = np.random.default_rng(1).standard_normal((2, 8, 5, 7))
    with jax.enable_x64(True):
        block = ours(**args, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        flax_attn.from_torch(block, theirs.state_dict(), rename=NAMES[names])
        got = np.asarray(block(jnp.asarray(np.moveaxis(x, 1, -1))))
    want = np.moveaxis(theirs(torch.from_numpy(x)).detach().numpy(), 1, -1)
    assert relative_error(got, want) <= tolerance("output", "float64")
