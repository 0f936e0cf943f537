"""The harness finds what differs, names it, leaves its arguments unchanged, and rejects what it cannot compare."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
import torch_ref
from flax_attn.layers import BatchNorm, Conv, Dropout, LayerNorm, Linear
from flax_attn.testing import ParityError, assert_parity, compare
from torch_ref.blocks import cbam as pt

MAP = "b c h w -> b h w c"
LAYOUTS = {"inputs": [MAP], "outputs": [MAP], "maps": {"gate": MAP}, "dropouts": {"dropout": MAP}}
ZERO = {"zero_gradients": {"train": ["conv.bias"]}}  # a bias before a BatchNorm
X = np.random.default_rng(0).standard_normal((3, 8, 5, 7)).astype(np.float32)


class Torch(torch.nn.Module):
    """Something of everything."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(8, 6, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(6)
        self.dropout = torch.nn.Dropout(0.3)
        self.norm = torch.nn.LayerNorm(6)

    def forward(self, x):
        x = self.dropout(torch.sin(self.bn(self.conv(x))))
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Flax(nnx.Module):
    """Its port, with places to plant a fault."""

    def __init__(self, *, padding=1, momentum=0.1, eps=1e-5, rate=0.3, norm_eps=1e-5, factor=1.0, rngs=None):
        rngs = rngs or nnx.Rngs(0)
        self.conv = Conv(8, 6, (3, 3), padding=padding, rngs=rngs)
        self.bn = BatchNorm(6, momentum=momentum, eps=eps, rngs=rngs)
        self.dropout = Dropout(rate, rngs=rngs)
        self.norm = LayerNorm(6, eps=norm_eps, rngs=rngs)
        self.factor = factor

    def __call__(self, x):
        return self.factor * self.norm(self.dropout(self.activate(self.bn(self.conv(x)))))

    def activate(self, x):
        return jnp.sin(x)


class Float32(Flax):
    def activate(self, x):
        return jnp.sin(x.astype(jnp.float32)).astype(x.dtype)


def test_equal_modules_pass():
    report = assert_parity(Flax(), Torch(), X, layouts=LAYOUTS, **ZERO)
    quantities = {(row.quantity, row.mode, row.dtype) for row in report.rows}
    for dtype in ("float64", "float32"):
        for mode in ("train", "eval"):
            for quantity in ("output", "parameter gradient", "input gradient"):
                assert (quantity, mode, dtype) in quantities
        assert ("buffer", "train", dtype) in quantities


@pytest.mark.parametrize(
    ("fault", "quantity", "path"),
    [
        ({"eps": 1e-4}, "output", "output"),
        ({"momentum": 0.9}, "buffer", "bn.running_mean"),
        ({"norm_eps": 1e-6}, "output", "output"),
        ({"factor": 1.0 + 1e-9}, "output", "output"),
        ({"rate": 0.0}, "output", "output"),
    ],
)
def test_faults_are_found_and_named(fault, quantity, path):
    with pytest.raises(ParityError) as error:
        assert_parity(Flax(**fault), Torch(), X, layouts=LAYOUTS, **ZERO)
    assert any((row.quantity, row.path) == (quantity, path) for row in error.value.report.failures)
    assert f"{quantity}" in str(error.value)
    assert path in str(error.value)


def test_float32_inside_a_float64_module_is_found():
    report = compare(Float32(), Torch(), X, layouts=LAYOUTS, **ZERO)
    assert {row.dtype for row in report.failures} == {"float64"}


def test_the_same_elements_are_dropped():
    report = compare(Flax(), Torch(), X, layouts=LAYOUTS, **ZERO, modes=["train"], dtypes=["float64"])
    other = compare(Flax(), Torch(), X, layouts=LAYOUTS, **ZERO, modes=["train"], dtypes=["float64"], seed=1)
    assert report.ok
    assert other.ok


def test_nothing_given_is_changed():
    ours, theirs = Flax(), Torch()
    ours.eval()
    before = flax_attn.to_torch(ours)
    their_state = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    x = X.copy()
    compare(ours, theirs, x, layouts=LAYOUTS, **ZERO, dtypes=["float64"])
    for name, array in flax_attn.to_torch(ours).items():
        np.testing.assert_array_equal(array, before[name])
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, their_state[name])
    assert all(parameter.grad is None for parameter in theirs.parameters())
    assert theirs.training
    assert ours.bn.use_running_average
    assert "forward" not in vars(theirs.dropout)
    np.testing.assert_array_equal(x, X)


def test_load_false_keeps_the_weights():
    report = compare(Flax(), Torch(), X, layouts=LAYOUTS, **ZERO, load=False, dtypes=["float64"], modes=["eval"])
    assert not report.ok


def test_maps_are_compared_when_there_is_a_way_to_get_them():
    ours, theirs = flax_attn.ChannelGate(8, 4, rngs=nnx.Rngs(0)), pt.ChannelGate(8, 4)
    report = compare(ours, theirs, X, layouts=LAYOUTS, torch_maps=torch_ref.attention_maps, dtypes=["float64"])
    assert report.ok
    assert {row.path for row in report.rows if row.quantity == "map"} == {"gate"}
    silent = compare(ours, theirs, X, layouts=LAYOUTS, torch_maps=lambda *_: {}, dtypes=["float64"])
    assert [row.note for row in silent.failures] == ["missing in torch"] * 2


def test_a_gradient_that_does_not_flow_is_found():
    class Stopped(Flax):
        def activate(self, x):
            # The same value; the gradient of half of it is lost.
            return 0.5 * jnp.sin(x) + 0.5 * jnp.sin(jax.lax.stop_gradient(x))

    report = compare(Stopped(), Torch(), X, layouts=LAYOUTS, **ZERO, dtypes=["float64"], modes=["eval"])
    assert {row.quantity for row in report.failures} == {"parameter gradient", "input gradient"}
    assert "conv.weight" in {row.path for row in report.failures}


def test_a_result_that_is_not_finite_fails_on_either_side():
    bad = X.copy()
    bad[0, 0, 0, 0] = np.nan
    report = compare(Flax(), Torch(), bad, layouts=LAYOUTS, **ZERO, dtypes=["float64"], modes=["eval"])
    assert not report.ok
    assert np.isnan(report.worst("output", "float64").error)


def test_buffers_that_move_in_eval_mode_are_found():
    class Restless(BatchNorm):
        def __call__(self, x):
            out = super().__call__(x)
            self.mean[...] = 0.9 * self.mean[...]
            return out

    theirs = torch.nn.BatchNorm1d(7)
    torch.nn.init.normal_(theirs.running_mean)
    x = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    report = compare(Restless(7, rngs=nnx.Rngs(0)), theirs, x, dtypes=["float64"], modes=["eval"])
    assert [(row.quantity, row.path) for row in report.failures] == [("buffer", "running_mean")]


def test_constants_outside_the_state_dict_are_no_buffers_to_compare():
    class Constant(torch.nn.Linear):
        def __init__(self):
            super().__init__(7, 5)
            self.register_buffer("factor", torch.ones(()), persistent=False)

    x = np.random.default_rng(0).standard_normal((3, 7)).astype(np.float32)
    report = assert_parity(Linear(7, 5, rngs=nnx.Rngs(0)), Constant(), x, dtypes=["float64"], modes=["eval"])
    assert {row.quantity for row in report.rows} == {"output", "parameter gradient", "input gradient"}


def test_the_callers_cotangents_are_used():
    zeros = [np.zeros((3, 6, 5, 7), np.float32)]
    report = compare(Flax(), Torch(), X, layouts=LAYOUTS, **ZERO, cotangents=zeros, dtypes=["float64"], modes=["eval"])
    assert report.ok
    assert {row.note for row in report.rows if "gradient" in row.quantity} == {"zero in torch"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layouts": {"inputs": [MAP, MAP]}}, r"layouts\['inputs'\] must have one entry for each of 1"),
        ({"layouts": {"inputs": [MAP]}, "modes": ["eval"]}, "must have PyTorch's shape in its layout"),
        ({**ZERO, "layouts": LAYOUTS, "cotangents": []}, "cotangents must have the shapes of the outputs"),
        ({"layouts": LAYOUTS, "zero_gradients": "conv.bias"}, "zero_gradients must name"),
        ({"layouts": LAYOUTS, "zero_gradients": ["conv.weights"]}, "zero_gradients must name .*, got conv.weights"),
        ({"layouts": {"inputs": [MAP], "outputs": [MAP]}}, r"dropout 'dropout' must have PyTorch's shape"),
        (
            {"layouts": {"inputs": ["b c n -> b n c"], "outputs": [MAP]}},
            r"layout of input\[0\] must read 'PyTorch -> Flax' and fit",
        ),
        ({"layouts": {"inputs": ["b c h w"], "outputs": [MAP]}}, r"layout of input\[0\] must read 'PyTorch -> Flax'"),
        ({"layouts": {"inputs": MAP}}, r"layouts\['inputs'\] must be a list of layouts"),
        ({"layouts": {"input": [MAP]}}, "layouts must have the keys"),
        ({**ZERO, "layouts": LAYOUTS, "modes": "train"}, "modes must be a sequence"),
        ({**ZERO, "layouts": LAYOUTS, "modes": []}, "modes must be a sequence"),
        ({**ZERO, "layouts": LAYOUTS, "dtypes": ["float16"]}, "dtypes must be a sequence"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        compare(Flax(), Torch(), X, **options)


def test_inputs_must_be_arrays_or_plain():
    with pytest.raises(ValueError, match=r"input\[0\] must be an array, a number or a container of them, got set"):
        compare(Flax(), Torch(), {1}, layouts=LAYOUTS, **ZERO)


def test_weights_that_do_not_fit():
    with pytest.raises(ValueError, match="does not fit Flax"):
        compare(Flax(), pt.ChannelGate(8, 4), X, layouts=LAYOUTS)


def test_different_numbers_of_outputs():
    class Twice(Flax):
        def __call__(self, x):
            out = super().__call__(x)
            return out, out

    with pytest.raises(
        ValueError,
        match=r"at the places of torch_module, output \(.* in Flax's layouts, got output\[0\] .*, output\[1\]",
    ):
        compare(Twice(), Torch(), X, layouts=LAYOUTS, **ZERO)


def test_modules_must_be_modules():
    with pytest.raises(ValueError, match=r"torch_module must be a .*Module, got NoneType"):
        compare(Flax(), None, X)
    with pytest.raises(ValueError, match=r"flax_module must be a .*Module, got Torch"):
        compare(Torch(), Torch(), X)


def test_a_double_module_keeps_its_digits():
    theirs = torch.nn.Linear(7, 5).double()
    x = np.random.default_rng(0).standard_normal((3, 7))
    assert_parity(Linear(7, 5, rngs=nnx.Rngs(0)), theirs, x)


def test_frozen_parameters_are_compared_too():
    theirs = torch.nn.Linear(7, 5).requires_grad_(False)
    x = np.random.default_rng(0).standard_normal((3, 7))
    report = assert_parity(Linear(7, 5, rngs=nnx.Rngs(0)), theirs, x)
    assert "weight" in {row.path for row in report.rows}
    assert not theirs.weight.requires_grad


def test_an_empty_report_is_not_a_pass():
    assert not flax_attn.testing.Report("nothing", []).ok
