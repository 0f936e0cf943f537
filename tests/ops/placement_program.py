"""Attention whose queries four devices share, beside that of one device; prints in JSON what they differ by.

``errors`` has for each case the relative error of each output and gradient, ``parts`` into how many the output was cut;
``held`` has for each form the bytes that a device holds during a gradient, where 1, 2 and 4 devices share the queries.
``norms`` has the same errors of `BatchNorm` whose batch four devices share, by ``jax.shard_map`` and ``jax.pmap``, and
of its running statistics.
"""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flax_attn.layers import BatchNorm
from flax_attn.ops import attention, blocked
from flax_attn.ops.attention import additive_attention, dot_product_attention
from flax_attn.ops.dropout import DropoutDraw, keep_mask
from flax_attn.testing import relative_error

SHAPES = {"query": (2, 28, 3, 5), "key": (2, 17, 3, 5), "value": (2, 17, 3, 7), "scale": (5,)}
HIDDEN = {"mask": (2, 1, 28, 17), "bias": (1, 3, 28, 17)}
FOR_ALL = {"mask": (2, 1, 1, 17), "bias": (2, 3, 1, 17)}
PLAIN, BLOCKED, WEIGHTS = {"implementation": "plain"}, {"implementation": "blocked"}, {"need_weights": True}


def cases() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """By name: the shapes of mask and bias, and other arguments."""
    key = jax.random.key(5)
    drop = {"weights_fn": DropoutDraw(key, 0.3)}
    drop_others = {"weights_fn": DropoutDraw(key, 0.3, lambda *told: ~keep_mask(*told))}
    every_other_query = {"weights_fn": lambda weights: weights * (jnp.arange(28).reshape(1, 1, 28, 1) % 2)}
    return {
        "plain": (HIDDEN, PLAIN),
        "plain, weights and dropout": (FOR_ALL, WEIGHTS | drop),
        "plain, not compiled": ({}, PLAIN),
        "plain, a function of all weights": ({}, PLAIN | every_other_query),
        "blocked, masks for all queries": (FOR_ALL, BLOCKED),
        "blocked, dropout": (HIDDEN, BLOCKED | drop),
        "blocked, dropout by another function": ({}, BLOCKED | drop_others),
        "additive": (HIDDEN, {}),
        "additive, weights": (FOR_ALL, WEIGHTS),
    }


def mesh_of(data: int, tokens: int) -> jax.sharding.Mesh:
    axes, kinds = ("data", "tokens"), (AxisType.Auto,) * 2
    return jax.make_mesh((data, tokens), axes, axis_types=kinds, devices=jax.devices()[: data * tokens])


def dot_product(arrays: dict[str, jax.Array], **given: Any) -> Any:
    arrays = {name: x for name, x in arrays.items() if name != "scale"}
    return dot_product_attention(**arrays, **{"temperature": 1.7, "need_weights": False} | given)


def additive(arrays: dict[str, jax.Array], **given: Any) -> Any:
    """With the mean over the heads, and scores that have parameters of their own."""
    scale = arrays["scale"].reshape(1, 1, 1, -1)
    one = {
        name: x[:, 0] if name in ("mask", "bias") else jnp.mean(x, axis=2) for name, x in arrays.items() if x.ndim > 1
    }

    def score(hidden: jax.Array) -> jax.Array:
        return jnp.sum(hidden * scale, axis=-1, keepdims=True)

    return additive_attention(**one, score_fn=score, **{"need_weights": False} | given)


def function_of(name: str) -> Callable[..., Any]:
    return additive if "additive" in name else dot_product


def results(function: Callable[..., Any], given: dict[str, Any]) -> Callable[..., Any]:
    """Of arrays: the outputs, and the gradients of all that is of floats."""

    def loss(floats: dict[str, jax.Array], mask: dict[str, jax.Array]) -> Any:
        out = function(floats | mask, **given)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(out)), out

    def both(arrays: dict[str, jax.Array]) -> Any:
        mask = {name: x for name, x in arrays.items() if name == "mask"}
        floats = {name: x for name, x in arrays.items() if name != "mask"}
        gradients, out = jax.grad(loss, has_aux=True)(floats, mask)
        return out, gradients

    return both


def compare(name: str, shapes: dict[str, tuple[int, ...]], given: dict[str, Any]) -> tuple[list[float], int]:
    """The errors, and the number of parts."""
    rng, function = np.random.default_rng(0), function_of(name)
    arrays = {each: jnp.asarray(rng.standard_normal(shape)) for each, shape in (SHAPES | shapes).items()}
    if "mask" in arrays:
        arrays["mask"] = arrays["mask"] < 0.5
    whole = jax.tree.leaves(jax.jit(results(function, given))(arrays))
    mesh = mesh_of(2, 2)
    batch = jax.device_put({each: arrays[each] for each in ("query", "key", "value")}, NamedSharding(mesh, P("data")))
    with jax.set_mesh(mesh):
        shared = results(function, given) if "not compiled" in name else jax.jit(results(function, given))
        parts = jax.tree.leaves(shared(arrays | batch))
    errors = [relative_error(np.asarray(got), np.asarray(want)) for got, want in zip(parts, whole, strict=True)]
    return errors, len({str(shard.index) for shard in parts[0].addressable_shards})


def norm_of(axis_name: str | None) -> tuple[Callable[..., Any], nnx.State]:
    """BatchNorm as a function of its parameters, which are returned with it, and of x."""
    norm = BatchNorm(3, axis_name=axis_name, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    graph, params, stats = nnx.split(norm, nnx.Param, ...)

    def call(params: nnx.State, x: jax.Array) -> Any:
        module = nnx.merge(graph, params, stats, copy=True)
        return module(x), nnx.state(module, nnx.BatchStat)

    return call, params


def compare_norms() -> dict[str, list[float]]:
    """By form, the errors of the output, the running statistics and the gradients against those of the whole batch."""
    rng, shape = np.random.default_rng(0), (8, 5, 3)
    x, weights = (jnp.asarray(rng.standard_normal(shape)) for _ in range(2))
    (whole, params), (part, _) = norm_of(None), norm_of("data")
    cut, same = P("data"), P()

    def pmapped(params: nnx.State, x: jax.Array) -> Any:
        y, stats = jax.pmap(part, "data", in_axes=(None, 0))(params, x.reshape(4, 2, 5, 3))
        return y.reshape(shape), jax.tree.map(lambda leaf: leaf[0], stats)

    def all_of(function: Callable[..., Any]) -> list[Any]:
        def loss(params: nnx.State, x: jax.Array) -> Any:
            y, stats = function(params, x)
            return jnp.sum(weights * y), (y, stats)

        gradients, out = jax.grad(loss, (0, 1), has_aux=True)(params, x)
        return jax.tree.leaves([out, gradients])

    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharded = jax.shard_map(part, mesh=mesh, in_specs=(same, cut), out_specs=(cut, same))
    expected = all_of(whole)
    return {
        name: [relative_error(np.asarray(got), np.asarray(want)) for got, want in zip(found, expected, strict=True)]
        for name, found in {"shard_map": all_of(jax.jit(sharded)), "pmap": all_of(pmapped)}.items()
    }


def held(name: str, given: dict[str, Any], tokens: int) -> int:
    shapes = {"query": (2, 4096, 3, 16), "key": (2, 128, 3, 16), "value": (2, 128, 3, 16), "scale": (16,)}
    arrays = {each: jax.ShapeDtypeStruct(shape, jnp.float32) for each, shape in shapes.items()}
    with jax.set_mesh(mesh_of(1, tokens)):
        compiled = jax.jit(results(function_of(name), given)).lower(arrays).compile()
    return int(compiled.memory_analysis().temp_size_in_bytes)


def main() -> None:
    jax.config.update("jax_num_cpu_devices", 4)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    forms = {"plain": PLAIN, "blocked": BLOCKED, "additive": WEIGHTS}
    sizes = {name: [held(name, given, tokens) for tokens in (1, 2, 4)] for name, given in forms.items()}
    # Blocks of at most 7 queries and 7 keys, in which tiny inputs are taken.
    attention.CPU_SCORES, blocked.SMALLEST_BLOCK = 2 * 3 * 7**2, 2
    with jax.enable_x64(True):
        found = {name: compare(name, *case) for name, case in cases().items()}
        norms = compare_norms()
    errors, parts = ({name: each[place] for name, each in found.items()} for place in (0, 1))
    print(json.dumps({"errors": errors, "parts": parts, "held": sizes, "norms": norms}))


if __name__ == "__main__":
    main()
