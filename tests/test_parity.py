"""Every case of the table: ours is PyTorch's function, and the weights go both ways bit by bit."""

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

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
KEPT = {case.name: case for case in kept_runs()[README_RUN].cases}

# Programs take long to compile, those of networks longest: what their blocks show is not shown again by them.
# The whole, with 100 steps, is `python -m torch_ref parity`.
BLOCKS = Options(steps=10)
NETWORKS = Options(dtypes=("float64", "float32"), steps=10)


@every_case
def test_parity_with_pytorch(case):
    result = run_case(case, BLOCKS if case.module.startswith("blocks") else NETWORKS)
    failed = [str(row) for row in result.rows if not row.ok]
    assert not failed, "\n".join([result.finding, *failed])
    for dtype, ratio in result.ratios.items():
        assert ratio <= RATIOS[dtype][1]
    # A dead ReLU, say, would make a comparison that cannot fail.
    assert [row.path for row in result.rows if row.note == "zero in torch"] == []
    assert stale(result, KEPT[case.name]) == [], "the documentation: run `python -m torch_ref parity --docs`"


@every_case
def test_round_trip_is_bit_exact(case):
    pair = make_pair(case)
    module = flax_attn.from_torch(pair.flax_module, pair.torch_module.state_dict())
    other = flax_attn.from_torch(make_pair(case, seed=1).flax_module, flax_attn.to_torch(module))
    ours, theirs = (nnx.state(m, nnx.Any(nnx.Param, nnx.BatchStat)) for m in (module, other))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for left, right in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(left, right)


@every_case
def test_state_dict_is_pytorchs(case):
    pair = make_pair(case)
    module = flax_attn.from_torch(pair.flax_module, pair.torch_module.state_dict())
    ours, theirs = flax_attn.to_torch(module), pair.torch_module.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        expected = np.zeros_like(tensor.numpy()) if name.endswith("num_batches_tracked") else tensor.numpy()
        np.testing.assert_array_equal(ours[name], expected, strict=True)
