"""The table of blocks: every block by its name, for maps of any size, on both sides."""

import contextlib
import re

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn import create_block, list_blocks
from flax_attn.networks.patch import PatchNetwork, self_attend
from flax_attn.registry import BLOCKS, Entry, find_block
from torch_ref.networks.patch import self_attend as self_attend_in_torch
from torch_ref.pairs import create_twin

CHANNELS, SIZE = 32, (24, 40)  # of a map that every block takes
every_block = pytest.mark.parametrize("name", list_blocks())


def test_names_are_unique_sorted_and_found_by_pattern():
    assert list_blocks() == sorted({entry.name for entry in BLOCKS})
    assert len(list_blocks()) == len(BLOCKS)
    assert list_blocks("cbam*") == ["cbam", "cbam_spatial"]
    assert list_blocks("nothing*") == []


@every_block
def test_a_block_and_its_twin_take_a_map_to_a_map(name):
    x = jnp.ones((2, *SIZE, CHANNELS))
    attended = jax.eval_shape(lambda: self_attend(create_block(name, CHANNELS, size=SIZE, rngs=nnx.Rngs(0)), x))
    twin = create_twin(name, CHANNELS, SIZE)
    with torch.no_grad():
        theirs = self_attend_in_torch(twin, torch.ones(2, CHANNELS, *SIZE))
    if find_block(name).kind == "head":
        assert attended.shape == theirs.shape
    else:
        assert attended.shape == x.shape
        assert theirs.shape == (2, CHANNELS, *SIZE)
    assert type(twin).__module__ == find_block(name).block.__module__.replace("flax_attn", "torch_ref")


@every_block
def test_the_kind_is_how_a_block_is_called(name):
    entry, call = find_block(name), nnx.eval_shape(lambda: create_block(name, CHANNELS, size=SIZE, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match="got 'article'") if not entry.over_tokens else contextlib.nullcontext():
        nnx.eval_shape(lambda: PatchNetwork(call, "article", rngs=nnx.Rngs(0)))


@every_block
def test_options_and_arguments_reach_the_class(name):
    block = nnx.eval_shape(lambda: create_block(name, CHANNELS, size=SIZE, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(block, nnx.Param))} <= {jnp.dtype(jnp.bfloat16)}
    with pytest.raises(TypeError, match=rf"{find_block(name).block.__name__}.__init__\(\) got an unexpected .*'typo'"):
        create_block(name, CHANNELS, size=SIZE, typo=1, rngs=nnx.Rngs(0))


def test_arguments_replace_those_of_the_table():
    assert create_block("multi_head", 12, d_v=7, rngs=nnx.Rngs(0)).d_v == 7


def test_a_block_may_need_the_size_of_its_map():
    entry = Entry("sized", nnx.Module, "gate", lambda c, size: {"channels": c, "size": size}, "", "", needs_size=True)
    assert entry.arguments_for(3, (5, 7)) == {"channels": 3, "size": (5, 7)}
    with pytest.raises(ValueError, match="size must be the height and width of the map for 'sized', got None"):
        entry.arguments_for(3)


@pytest.mark.parametrize(
    ("name", "channels", "message"),
    [
        ("cbma", 32, "got 'cbma'; did you mean 'cbam'"),
        ("no such thing", 32, "got 'no such thing'; available: additive, "),
        (None, 32, "got None"),
        ("cbam", 8, "reduction_ratio must be at most 8, the number of channels, to leave a hidden unit, got 16"),
        ("cbam", 0, "channels must be a whole number >= 1, got 0"),
        ("multi_head", 3, "d_k must be a whole number >= 1, got 0"),
    ],
)
def test_bad_input(name, channels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        create_block(name, channels, rngs=nnx.Rngs(0))


def test_the_table_is_public():
    assert {"create_block", "list_blocks", "Options"} <= vars(flax_attn).keys()
