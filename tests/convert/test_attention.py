"""``torch.nn.MultiheadAttention`` into ``nnx.MultiHeadAttention``: packed, unpacked, with and without biases."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn import ops
from flax_attn.testing import assert_parity, relative_error, tolerance

EMBED, HEADS, OTHER = 6, 3, 5


def exact(query, key, value, *, mask=None, **_):
    """Flax's own attention takes the softmax in float32, of float64 too."""
    root = math.sqrt(query.shape[-1])
    return ops.dot_product_attention(query, key, value, temperature=root, mask=mask, need_weights=False)[0]


def make(*, kv=None, heads=HEADS, param_dtype=jnp.float32, **options):
    zeros = nnx.initializers.zeros  # to be overwritten: drawing compiles a program per shape
    options = {"attention_fn": exact, "decode": False, "kernel_init": zeros, "rngs": nnx.Rngs(0)} | options
    return nnx.MultiHeadAttention(heads, EMBED, in_kv_features=kv, param_dtype=param_dtype, **options)


def make_torch(*, kv=None, bias=True, **options):
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(EMBED, HEADS, bias=bias, kdim=kv, vdim=kv, batch_first=True, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return module


def unpacked(state_dict):
    """The three weights in place of the one."""
    weights = np.split(state_dict["in_proj_weight"].numpy(), 3)
    others = {name: value for name, value in state_dict.items() if name != "in_proj_weight"}
    return {f"{letter}_proj_weight": weight for letter, weight in zip("qkv", weights, strict=True)} | others


@pytest.mark.parametrize("kv", [None, OTHER], ids=["packed", "unpacked"])
@pytest.mark.parametrize("bias", [True, False])
def test_equal_functions_and_equal_bits_back(kv, bias):
    theirs = make_torch(kv=kv, bias=bias)
    given = theirs.state_dict()
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((2, n, width)) for n, width in ((7, EMBED), (11, kv or EMBED), (11, kv or EMBED))]
    allowed = rng.random((7, 11)) < 0.5
    allowed[:, 0] = True
    with jax.enable_x64(True):
        ours = flax_attn.from_torch(make(kv=kv, use_bias=bias, param_dtype=jnp.float64), given)
        got = np.asarray(ours(*map(jnp.asarray, inputs), mask=jnp.asarray(allowed[None, None])))
        back = flax_attn.to_torch(ours)
    tensors = map(torch.from_numpy, inputs)
    wanted = theirs.double()(*tensors, attn_mask=torch.from_numpy(~allowed))[0].detach().numpy()
    assert relative_error(got, wanted) <= tolerance("output", "float64")
    assert list(back) == list(given)
    for name, tensor in given.items():
        np.testing.assert_array_equal(back[name], tensor.numpy())


def test_key_and_value_of_different_widths():
    theirs = torch.nn.MultiheadAttention(EMBED, HEADS, kdim=5, vdim=7)
    ours = make(kv=5)
    ours.value = nnx.LinearGeneral(7, (HEADS, EMBED // HEADS), rngs=nnx.Rngs(1))
    back = flax_attn.to_torch(flax_attn.from_torch(ours, theirs.state_dict()))
    assert list(back) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(back[name], tensor.numpy())


def test_three_weights_load_in_place_of_one_and_are_written_as_one():
    given = make_torch().state_dict()
    back = flax_attn.to_torch(
        flax_attn.from_torch(nnx.Dict(attn=make()), {f"attn.{k}": v for k, v in unpacked(given).items()})
    )
    assert list(back) == [f"attn.{name}" for name in given]
    for name, tensor in given.items():
        np.testing.assert_array_equal(back[f"attn.{name}"], tensor.numpy())


def test_both_forms_at_once_are_one_too_many():
    given = make_torch().state_dict()
    with pytest.raises(ValueError) as error:
        flax_attn.from_torch(make(), {**unpacked(given), **given})
    assert [line.strip().split(",")[0] for line in str(error.value).splitlines()[1:]] == [
        f"{letter}_proj_weight: expected no such entry" for letter in "qkv"
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "lines"),
    [
        (
            {},
            {"bias": False},
            ["in_proj_bias: expected shape (18,), got nothing", "out_proj.bias: expected shape (6,)"],
        ),
        ({"use_bias": False}, {}, ["in_proj_bias: expected no such entry", "out_proj.bias: expected no such entry"]),
        ({}, {"add_bias_kv": True}, ["bias_k: expected no such entry", "bias_v: expected no such entry"]),
        ({}, {"kv": OTHER}, [f"{name}_proj_weight: expected shape (6, 6), got (6, 5)" for name in "kv"]),
        (
            {"kv": OTHER},
            {},
            [
                "q_proj_weight: expected shape (6, 6), got nothing",
                "k_proj_weight: expected shape (6, 5), got nothing",
                "v_proj_weight: expected shape (6, 5), got nothing",
                "in_proj_weight: expected no such entry",
            ],
        ),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(ours, theirs, lines):
    module = make(**ours)
    before = flax_attn.to_torch(module)
    with pytest.raises(ValueError, match="left unchanged") as error:
        flax_attn.from_torch(module, make_torch(**theirs).state_dict())
    found = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert len(found) == len(lines)
    assert all(line.startswith(expected) for line, expected in zip(found, lines, strict=True))
    after = flax_attn.to_torch(module)
    assert all(np.array_equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("options", "argument"),
    [
        ({"qkv_features": 9}, "in_features, qkv_features and out_features must be equal"),
        ({"out_features": 7}, "in_features, qkv_features and out_features must be equal"),
        ({"num_kv_heads": 1}, "num_kv_heads must be num_heads, 3"),
        ({"normalize_qk": True}, "normalize_qk must be False"),
    ],
)
def test_freedoms_that_pytorch_does_not_have(options, argument):
    with pytest.raises(ValueError, match=f"conversion rule of MultiHeadAttention at 'attn': {argument}"):
        flax_attn.to_torch(nnx.Dict(attn=make(**options)))


def test_as_many_heads_for_key_and_value_however_many():
    heads = 257
    layer = nnx.MultiHeadAttention(
        heads, heads, num_kv_heads=int(str(heads)), kernel_init=nnx.initializers.zeros, decode=False, rngs=nnx.Rngs(0)
    )
    assert flax_attn.to_torch(layer)["in_proj_weight"].shape == (3 * heads, heads)


class Torch(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = make_torch()

    def forward(self, x, context):
        return self.attn(x, context, context, need_weights=False)[0]


class Flax(nnx.Module):
    def __init__(self):
        self.attn = make()

    def __call__(self, x, context):
        return self.attn(x, context)


def test_gradients_of_a_packed_weight():
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((2, n, EMBED)).astype(np.float32) for n in (7, 11)]
    report = assert_parity(Flax(), Torch(), *inputs, modes=["eval"], dtypes=["float64"])
    assert "attn.in_proj_weight" in {row.path for row in report.rows if row.quantity == "parameter gradient"}
