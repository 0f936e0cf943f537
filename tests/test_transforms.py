"""Every case works under jit, grad, vmap, remat and export: the blocks in `make test`, the networks every night."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from flax_attn.testing import tolerance
from flax_attn.testing.layouts import to_flax
from flax_attn.testing.results import leaves
from torch_ref.cases import CASES, COLLECTION
from torch_ref.pairs import make_pair


def functional(case):
    """The case in eval mode: a function (weights, inputs) -> (loss, outputs), and its arguments."""
    pair = make_pair(case)
    pair.flax_module.eval()
    graphdef, weights, rest = nnx.split(pair.flax_module, nnx.Any(nnx.Param, nnx.BatchStat), ...)
    weights, treedef = jax.tree.flatten(weights)
    inputs = [
        jnp.asarray(to_flax(array, wanted.layout, "input"))
        for array, wanted in zip(pair.inputs, case.inputs, strict=True)
    ]

    def apply(weights, inputs):
        module = nnx.merge(graphdef, jax.tree.unflatten(treedef, weights), rest, copy=True)
        outputs = [leaf for _, leaf in leaves(module(*inputs, **case.kwargs))]
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in outputs), outputs

    return apply, weights, inputs


def is_small(case):
    if case in COLLECTION:  # its arithmetic is compared in `make test` already
        return False
    return case.module.startswith("blocks") or case.name in ("Net", "ChannelAttentionClassifier")


def compiled(function):
    # What is tested is which program the transforms make; compiling it without an optimiser takes half the time.
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": "0"})


# A network adds nothing to its parts that a transformation could break.
@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name, marks=[] if is_small(case) else [pytest.mark.nightly]) for case in CASES],
)
def test_jit_grad_vmap_remat_and_export(case):
    apply, weights, inputs = functional(case)
    (_, outputs), gradients = compiled(jax.value_and_grad(apply, has_aux=True))(weights, inputs)

    # All transforms in one program: a compilation costs seconds.
    stacked = [jnp.stack([x, x[::-1]]) for x in inputs]
    transformed = jax.vmap(jax.value_and_grad(jax.checkpoint(apply), has_aux=True), in_axes=(None, 0))
    exported = jax.export.export(jax.jit(transformed))(weights, stacked)
    (_, got_outputs), got_gradients = compiled(exported.call)(weights, stacked)

    for quantity, got, expected in (
        ("output", got_outputs, outputs),
        ("parameter gradient", got_gradients, gradients),
    ):
        scale = np.sqrt(sum(np.sum(np.square(array)) for array in expected))
        for left, right in zip(got, expected, strict=True):
            for copy in range(2):
                # The second example is the batch from last to first; its weights get the same gradient.
                expected_here = right[::-1] if copy and quantity == "output" else right
                # Relative to all arrays: a gradient that is zero by algebra has no error of its own.
                distance = np.linalg.norm(np.asarray(left[copy] - expected_here)) / scale
                assert distance <= tolerance(quantity, "float32")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_a_tree(case):
    # No variable is shared, and everything that holds one is known to NNX: its tree mode takes the module.
    module = make_pair(case).flax_module
    variables = [variable for _, variable in nnx.iter_graph(module) if isinstance(variable, nnx.Variable)]
    assert len({id(variable) for variable in variables}) == len(variables)
    graphdef, state = nnx.split(module, graph=False)
    nnx.merge(graphdef, state)
