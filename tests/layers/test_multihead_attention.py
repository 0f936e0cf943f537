"""MultiheadAttention is PyTorch's: packed and separate weights, masks of both kinds, weights, layouts and dropout."""

import re

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from scipy.stats import kstest, uniform

from flax_attn import attention_maps, from_torch, to_torch
from flax_attn.layers import MultiheadAttention
from flax_attn.testing import assert_parity, relative_error, tolerance
from flax_attn.testing.tolerances import P_VALUE

B, QUERIES, KEYS, HEADS = 2, 5, 7, 3
RNG = np.random.default_rng(0)
VISIBLE = (np.arange(KEYS) > 0) | (np.arange(B) == 0)[:, None]  # one key of the second sequence is padding
CAUSAL = np.triu(np.ones((QUERIES, KEYS), bool), 3)
ADDED = RNG.standard_normal((B * HEADS, QUERIES, KEYS))
# name: arguments of the layer, features of key and value, keyword arguments of the call.
CASES = {
    "batch first": ({"batch_first": True}, 12, 12, {}),
    "batch second, no bias": ({"bias": False}, 12, 12, {}),
    "kdim": ({"kdim": 5, "batch_first": True}, 5, 12, {"average_attn_weights": False}),
    "vdim": ({"vdim": 11}, 12, 11, {"need_weights": False}),
    "hidden keys": ({"batch_first": True}, 12, 12, {"key_padding_mask": ~VISIBLE, "attn_mask": CAUSAL}),
    "added masks": ({"batch_first": True}, 12, 12, {"key_padding_mask": ADDED[:B, 0], "attn_mask": ADDED[0]}),
    "a mask per head": ({}, 12, 12, {"attn_mask": ADDED > 0.9}),
    "numbers per head": ({"batch_first": True}, 12, 12, {"attn_mask": ADDED, "average_attn_weights": False}),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_pytorchs(name):
    arguments, kdim, vdim, kwargs = CASES[name]
    torch.manual_seed(0)
    theirs = torch.nn.MultiheadAttention(12, HEADS, **arguments)
    with torch.no_grad():
        for parameter in theirs.parameters():  # biases start as zeros
            parameter.add_(torch.randn_like(parameter) / 8)
    shapes = [(B, QUERIES, 12), (B, KEYS, kdim), (B, KEYS, vdim)]
    inputs = [np.random.default_rng(1).standard_normal(shape) for shape in shapes]
    if not arguments.get("batch_first"):
        inputs = [x.swapaxes(0, 1) for x in inputs]
    both = [
        {key: (convert(value) if isinstance(value, np.ndarray) else value) for key, value in kwargs.items()}
        for convert in (lambda x: x, torch.tensor)
    ]
    ours = MultiheadAttention(12, HEADS, **arguments, rngs=nnx.Rngs(0))
    assert_parity(ours, theirs, *inputs, flax_kwargs=both[0], torch_kwargs=both[1], dtypes=["float64"])


@pytest.mark.parametrize(
    "arguments", [{}, {"bias": False}, {"kdim": 5}, {"kdim": 5, "vdim": 7, "bias": False}], ids=str
)
def test_weights_go_both_ways_bit_by_bit(arguments):
    theirs = torch.nn.MultiheadAttention(12, HEADS, **arguments).state_dict()
    written = to_torch(from_torch(MultiheadAttention(12, HEADS, **arguments, rngs=nnx.Rngs(0)), theirs))
    assert written.keys() == theirs.keys()
    for key, value in theirs.items():
        np.testing.assert_array_equal(written[key], value.numpy(), strict=True)


@pytest.mark.parametrize("arguments", [{}, {"kdim": 72}], ids=str)
def test_initial_weights_are_pytorchs(arguments):
    # Xavier's bound sqrt(6 / (fan_in + fan_out)), of the packed (72, 24) or of the key's own (24, 72) weight.
    arguments = {"embed_dim": 24, "num_heads": 2, **arguments}
    bound = (6 / 96) ** 0.5
    ours = to_torch(MultiheadAttention(**arguments, rngs=nnx.Rngs(0)))
    theirs = {name: value.numpy() for name, value in torch.nn.MultiheadAttention(**arguments).state_dict().items()}
    key = "k_proj_weight" if "kdim" in arguments else "in_proj_weight"
    for side in (ours, theirs):
        assert kstest(side[key].ravel(), uniform(-bound, 2 * bound).cdf).pvalue > P_VALUE
        assert kstest(side["out_proj.weight"].ravel(), uniform(-(24**-0.5), 2 * 24**-0.5).cdf).pvalue > P_VALUE
        assert not side["in_proj_bias"].any()
        assert not side["out_proj.bias"].any()


def test_dropout_acts_on_the_weights_while_training():
    x = jnp.asarray(RNG.standard_normal((B, QUERIES, 12)), jnp.float32)
    layer = MultiheadAttention(12, HEADS, 0.5, batch_first=True, rngs=nnx.Rngs(0))
    _, dropped = layer(x, x, x, average_attn_weights=False)
    layer.eval()
    out, weights = layer(x, x, x, average_attn_weights=False)
    kept = np.asarray(dropped) != 0
    assert 0.3 < kept.mean() < 0.7
    assert relative_error(np.asarray(dropped)[kept], 2 * np.asarray(weights)[kept]) <= tolerance("map", "float32")
    np.testing.assert_array_equal(out, layer(x, x, x)[0])


def test_its_weights_are_attention_maps():
    x = jnp.ones((B, QUERIES, 12))
    layer = MultiheadAttention(12, HEADS, batch_first=True, rngs=nnx.Rngs(0))
    assert attention_maps(layer, x, x, x, need_weights=False)["weights"].shape == (B, HEADS, QUERIES, QUERIES)


def test_true_hides_here_and_keeps_in_the_blocks():
    assert "**True hides**" in MultiheadAttention.__doc__
    x = jnp.ones((1, 3, 4))
    layer = MultiheadAttention(4, 2, batch_first=True, rngs=nnx.Rngs(0))
    _, weights = layer(x, x, x, attn_mask=jnp.triu(jnp.ones((3, 3), bool), 1))
    np.testing.assert_array_equal(weights[0] > 0, np.tri(3, dtype=bool))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: MultiheadAttention(12, 5, rngs=nnx.Rngs(0)), "num_heads must divide embed_dim=12, got 5"),
        (lambda: MultiheadAttention(12, 3, add_zero_attn=True, rngs=nnx.Rngs(0)), "add_zero_attn must be False"),
        (lambda: MultiheadAttention(12, 3, add_bias_kv=True, rngs=nnx.Rngs(0)), "add_bias_kv must be False"),
        (
            lambda: call(attn_mask=jnp.ones((3, 3), int)),
            "attn_mask must be of booleans, True hides a key, or of floats",
        ),
        (lambda: call(key_padding_mask=jnp.ones((1, 3), int)), "key_padding_mask must be of booleans, True hides"),
        (lambda: call(attn_mask=jnp.ones((3, 2), bool)), "attn_mask must have shape (n_query=3, n_key=3), got (3, 2)"),
        (
            lambda: call(attn_mask=jnp.ones((3, 3, 3), bool)),
            "attn_mask must have shape (b*heads=2, n_query=3, n_key=3)",
        ),
        (lambda: call(key_padding_mask=jnp.ones((3, 1), bool)), "key_padding_mask must have shape (b=1, n_key=3)"),
    ],
)
def test_bad_input(use, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        use()


def call(**masks):
    x = jnp.ones((1, 3, 4))
    return MultiheadAttention(4, 2, batch_first=True, rngs=nnx.Rngs(0))(x, x, x, **masks)
