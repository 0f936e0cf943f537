"""Every block that takes a mask: one of floats is refused on both sides, and an additive one goes in as a bias."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn.testing import relative_error, tolerance
from torch_ref.blocks.additive import AdditiveAttention
from torch_ref.blocks.dot_product import ScaledDotProductAttention
from torch_ref.blocks.multi_head import MultiHeadAttention

# Constructor, PyTorch's twin, and the shapes of the tokens and of the mask in Flax.
BLOCKS = {
    "ScaledDotProductAttention": (ScaledDotProductAttention, {"temperature": 2.0}, (1, 3, 1, 4), (1, 1, 3, 3)),
    "MultiHeadAttention": (MultiHeadAttention, {"n_head": 2, "d_model": 4, "d_k": 2, "d_v": 2}, (1, 3, 4), (1, 3, 3)),
    "AdditiveAttention": (AdditiveAttention, {"query_in": 4, "key_in": 4, "hidden": 5}, (1, 3, 4), (1, 3, 3)),
}
CAUSAL = torch.nn.Transformer.generate_square_subsequent_mask(3)


def calls(name):
    """Both sides as functions of a mask and a bias, torch tensors (3, 3), that return attention weights (3, 3)."""
    twin, arguments, tokens, shape = BLOCKS[name]
    theirs = twin(**arguments)
    ours = getattr(flax_attn, name)(**arguments, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).standard_normal(tokens).astype(np.float32)

    def in_flax(mask=None, bias=None):
        masks = [None if m is None else jnp.asarray(m.numpy()).reshape(shape) for m in (mask, bias)]
        return np.asarray(ours(*[jnp.asarray(x)] * 3, *masks, need_weights=True)[1][0, 0])

    def in_torch(mask=None, bias=None):
        inputs = [torch.from_numpy(x.swapaxes(1, 2) if x.ndim == 4 else x)] * 3
        masks = [None if m is None else m.reshape(shape) for m in (mask, bias)]
        return theirs(*inputs, *masks, need_weights=True)[1][0, 0].detach().numpy()

    return {"flax": in_flax, "torch": in_torch}


def test_no_other_block_takes_one():
    found = {
        name
        for name, value in vars(flax_attn).items()
        if inspect.isclass(value)
        and issubclass(value, nnx.Module)
        and {"mask", "key"} <= inspect.signature(value.__call__).parameters.keys()
    }
    assert found == BLOCKS.keys()


@pytest.mark.parametrize("side", ["flax", "torch"])
@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("mask", [CAUSAL, CAUSAL.clamp(-1e9), CAUSAL.half(), (CAUSAL == 0).double()], ids=str)
def test_a_float_mask_is_refused(name, side, mask):
    advice = {"flax": r"mask.astype\(bool\)", "torch": r"mask.bool\(\)"}[side]
    with pytest.raises(ValueError, match=f"mask must be of booleans or integers, .*float.*{advice}.*bias=mask"):
        calls(name)[side](mask)


@pytest.mark.parametrize("side", ["flax", "torch"])
@pytest.mark.parametrize("name", BLOCKS)
def test_a_boolean_bias_is_refused(name, side):
    with pytest.raises(ValueError, match=r"bias must be of floats, .*bool.*mask="):
        calls(name)[side](bias=CAUSAL == 0)


@pytest.mark.parametrize("side", ["flax", "torch"])
@pytest.mark.parametrize("name", BLOCKS)
def test_pytorchs_causal_mask_hides_the_future_as_a_bias(name, side):
    call = calls(name)[side]
    weights = call(bias=CAUSAL)
    np.testing.assert_array_equal(weights > 0, np.tril(np.ones((3, 3), bool)))
    assert relative_error(weights, call(mask=(CAUSAL == 0).int())) <= tolerance("map", "float32")
