"""Every case of the table: ours is PyTorch's function, and the weights go both ways bit by bit.

`python -m torch_ref parity` in `make nightly` adds bfloat16, float32 of the networks (a convolutional part and a block,
both of which are compared here) and 100 training steps of everything.
"""

import jax
import numpy as np
import pytest
from flax import nnx

import flax_attn
from flax_attn.testing.tolerances import RATIOS
from torch_ref.cases import CASES
from torch_ref.pairs import make_pair
from torch_ref.report.docs import README_RUN, kept_runs, stale
from torch_ref.report.run import Options, run_case

KEPT = {case.name: case for case in kept_runs()[README_RUN].cases}
BLOCKS = [case for case in CASES if case.module.startswith("blocks")]
NETWORKS = [case for case in CASES if case not in BLOCKS]
# The smallest cases in which training can go wrong: dropout, several heads, running statistics and exact ties.
TRAINED = ("MultiHeadAttention", "ConvMultiHeadAttention", "CBAM, with spatial gate", "Net")


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def check(case, **options):
    result = run_case(case, Options(**options))
    failed = [str(row) for row in result.rows if not row.ok]
    assert result.rows, result.finding
    assert not failed, "\n".join([result.finding, *failed])
    for dtype, ratio in result.ratios.items():
        assert ratio <= RATIOS[dtype][1]
    # A comparison with zeros, behind a dead ReLU say, could not fail.
    assert [row.path for row in result.rows if row.note == "zero in torch"] == []
    command = f"run `python -m torch_ref parity {case.class_name} --docs`"
    assert case.name in KEPT, f"the documentation has no figures of this case: {command}"
    assert stale(result, KEPT[case.name]) == [], command


@each(BLOCKS)
def test_block_in_float64(case):
    check(case, dtypes=("float64",), steps=10 if case.name in TRAINED else 0)


@each(NETWORKS)
def test_network_in_float64(case):
    check(case, dtypes=("float64",), steps=10 if case.name in TRAINED else 0)


@each(BLOCKS)
def test_block_in_float32(case):
    check(case, dtypes=("float32",), steps=0)


@each(CASES)
def test_weights_go_both_ways_bit_by_bit(case):
    pair = make_pair(case)
    module = flax_attn.from_torch(pair.flax_module, pair.torch_module.state_dict())
    ours, theirs = flax_attn.to_torch(module), pair.torch_module.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        expected = np.zeros_like(tensor.numpy()) if name.endswith("num_batches_tracked") else tensor.numpy()
        np.testing.assert_array_equal(ours[name], expected, strict=True)

    other = flax_attn.from_torch(make_pair(case, seed=1).flax_module, ours)
    states = [nnx.state(m, nnx.Any(nnx.Param, nnx.BatchStat)) for m in (module, other)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    for left, right in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(left, right)
