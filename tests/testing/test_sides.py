"""How each side is called: dtypes, dropout of either library, arguments of one side, rejected modules."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn.layers import Linear
from flax_attn.testing import Report, Row, assert_parity, compare, tolerance, tolerances

X = np.random.default_rng(0).standard_normal((3, 8, 5, 7)).astype(np.float32)
MAP = "b c h w -> b h w c"
ROWS = np.random.default_rng(1).standard_normal((11, 5)).astype(np.float32)


def linear():
    return Linear(5, 7, rngs=nnx.Rngs(0))


def test_bfloat16_is_measured_against_float64_as_pytorchs_own():
    report = compare(linear(), torch.nn.Linear(5, 7), ROWS, dtypes=["bfloat16"])
    assert report.ok, str(report)
    assert {row.dtype for row in report.rows} == {"bfloat16"}
    output = report.worst("output", "bfloat16")
    unit = tolerances.UNITS["bfloat16"]
    assert 0 < output.error < unit
    assert 0 < output.torch_error < unit
    assert report.ratio("bfloat16") <= tolerances.RATIOS["bfloat16"][1]
    assert np.isnan(report.ratio("float32"))  # nothing was compared


def test_a_rounding_more_shows_in_the_ratio():
    class Coarse(Linear):
        def __call__(self, x):
            return super().__call__(x).astype(jnp.bfloat16).astype(x.dtype)

    report = compare(Coarse(5, 7, rngs=nnx.Rngs(0)), torch.nn.Linear(5, 7), ROWS, dtypes=["float32"], modes=["eval"])
    assert report.ratio("float32") > tolerances.RATIOS["float32"][1]


def test_the_ratio_pools_squares_and_has_a_floor():
    unit = tolerances.UNITS["float32"]

    def report(*errors):
        return Report("", [Row("output", "", "eval", "float32", *pair, 1.0) for pair in errors])

    assert report((3 * unit, unit), (4 * unit, unit)).ratio("float32") == np.sqrt(12.5)
    assert report((0.0, 0.0)).pooled("float32") == (unit, unit)
    assert np.isnan(report((float("nan"), unit)).ratio("float32"))


@pytest.mark.parametrize("axes", [(1, 2), (-3, -2)])
def test_dropout_of_whole_channels(axes):
    ours, theirs = nnx.Dropout(0.5, broadcast_dims=axes, rngs=nnx.Rngs(0)), torch.nn.Dropout2d(0.5)
    layouts = {"inputs": [MAP], "outputs": [MAP], "dropouts": {"": MAP}}
    assert_parity(ours, theirs, X, layouts=layouts, dtypes=["float64"])


def test_elements_where_pytorch_drops_channels_are_refused():
    layouts = {"inputs": [MAP], "outputs": [MAP], "dropouts": {"": MAP}}
    with pytest.raises(ValueError, match=r"dropout '' must have PyTorch's shape \(3, 1, 1, 8\).* got \(3, 5, 7, 8\)"):
        compare(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), torch.nn.Dropout2d(0.5), X, layouts=layouts, modes=["train"])


class Attention(torch.nn.Module):
    def __init__(self, dropout):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(6, 2, dropout=dropout)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def test_dropout_that_cannot_be_shared_is_refused():
    x = np.ones((3, 5, 6), np.float32)
    with pytest.raises(ValueError, match="masks of others cannot be shared, got MultiheadAttention 'attention'"):
        compare(linear(), Attention(0.1), x, load=False, dtypes=["float64"], modes=["train"])


def test_arguments_of_one_side():
    class Ours(Linear):
        def __call__(self, x, *, times, plus=0.0):
            return times * super().__call__(x) + plus

    class Theirs(torch.nn.Linear):
        def forward(self, x, *, times, add=0.0):
            return times * super().forward(x) + add

    ours, theirs = Ours(5, 7, rngs=nnx.Rngs(0)), Theirs(5, 7)
    options = {"kwargs": {"times": 3}, "dtypes": ["float64"], "modes": ["eval"]}
    assert_parity(ours, theirs, ROWS, flax_kwargs={"plus": 2}, torch_kwargs={"add": 2}, **options)
    assert not compare(ours, theirs, ROWS, flax_kwargs={"plus": 2}, **options).ok
    assert_parity(ours, theirs, ROWS, flax_kwargs={"times": 4}, torch_kwargs={"times": 4}, **options)


def test_modules_that_cannot_be_paired_stand_side_by_side():
    ours = nnx.Sequential(linear(), Linear(7, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    theirs = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Linear(7, 2), torch.nn.BatchNorm1d(2, affine=False))
    with pytest.raises(ValueError, match="flax_module and torch_module cannot be paired") as error:
        compare(ours, theirs, ROWS)
    told = [" ".join(line.split()) for line in str(error.value).splitlines()]
    assert "torch_module flax_module" in told
    assert "2 more matches" in told
    assert "1.weight (2, 7) 1.weight (3, 7) another shape" in told
    assert "2.weight (3,) only in flax_module" in told
    assert not any("num_batches_tracked" in line for line in told)


def test_what_no_rule_converts_is_listed_too():
    class Gain(nnx.Module):
        def __init__(self):
            self.gain = nnx.Param(np.ones((3, 2), np.float32))

    ours, theirs = nnx.Sequential(linear(), Gain()), torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.PReLU())
    with pytest.raises(ValueError, match=r"cannot be paired: module must hold .* Param 'layers\.1\.gain'") as error:
        compare(ours, theirs, ROWS)
    told = [" ".join(line.split()) for line in str(error.value).splitlines()]
    assert "2 more matches" in told
    assert "1.weight (1,) only in torch_module" in told
    assert "layers.1.gain (3, 2) no conversion rule" in told


def test_entries_in_place_of_another_stand_side_by_side():
    ours = nnx.MultiHeadAttention(2, 6, in_kv_features=5, decode=False, rngs=nnx.Rngs(0))
    theirs = torch.nn.MultiheadAttention(6, 2, kdim=5, vdim=4, batch_first=True)
    with pytest.raises(ValueError, match="cannot be paired") as error:
        compare(ours, theirs, ROWS)
    told = [" ".join(line.split()) for line in str(error.value).splitlines()]
    assert not any(line.startswith("k_proj_weight") for line in told)
    assert "v_proj_weight (6, 4) v_proj_weight (6, 5) another shape" in told


def test_two_large_trees_show_what_differs_and_no_more():
    """A gate that one side lacks, or the names of another library: a few of each, with a count."""
    layers = [torch.nn.Linear(5, 5) for _ in range(20)]
    ours = nnx.Sequential(*(Linear(5, 5, bias=False, rngs=nnx.Rngs(0)) for _ in layers))
    for theirs, expected in (
        (torch.nn.Sequential(*layers), ["15 more only in torch_module", "20 more matches"]),
        (torch.nn.ModuleDict({"body": torch.nn.Sequential(*layers)}), ["15 more only in flax_module"]),
    ):
        with pytest.raises(ValueError, match="cannot be paired") as error:
            compare(ours, theirs, ROWS)
        told = str(error.value).splitlines()
        assert len(told) <= 30
        assert set(expected) < set(told)


@pytest.mark.parametrize(("theirs", "shape"), [(torch.nn.Linear(5, 7), (11, 6)), (torch.nn.Bilinear(5, 5, 7), (11, 5))])
def test_inputs_that_pytorch_does_not_take(theirs, shape):
    with pytest.raises(
        ValueError, match=rf"torch_module must take the inputs in float64, got input\[0\] \({shape[0]}, "
    ):
        compare(linear(), theirs, np.ones(shape, np.float32), load=False)


def test_a_loose_row_for_coarse_products():
    assert tolerance("output", "float32", "gpu", precision="default") == tolerance("output", "bfloat16")
    assert tolerance("output", "float32", "gpu") == tolerance("output", "float32")
