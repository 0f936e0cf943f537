"""Modules, inputs and settings as strangers have them: right ports pass, and the caller's state is left as it was."""

import functools
from collections import namedtuple
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn.convert import Entry, rule
from flax_attn.layers import BatchNorm, Linear
from flax_attn.testing import compare

RNG = np.random.default_rng(0)
X = RNG.standard_normal((5, 3)).astype(np.float32)
QUICK = {"dtypes": ["float64"], "modes": ["eval"]}


class Ours(nnx.Module):
    """A Linear ``l`` and a function of it and the arguments."""

    def __init__(self, function):
        self.l = Linear(3, 3, rngs=nnx.Rngs(0))
        self.function = function

    def __call__(self, *args, **kwargs):
        return self.function(self.l, *args, **kwargs)


class Theirs(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.l = torch.nn.Linear(3, 3)
        self.function = function

    def forward(self, *args, **kwargs):
        return self.function(self.l, *args, **kwargs)


def check(ours, theirs, *inputs, **options):
    report = compare(Ours(ours), Theirs(theirs), *inputs, **{**QUICK, **options})
    assert report.ok, report
    return report


@contextmanager
def of_torch(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


AMBIENT = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype": lambda: of_torch(torch.set_default_dtype, torch.float64, torch.float32),
    "default device": lambda: torch.device("meta"),
    "deterministic": lambda: of_torch(torch.use_deterministic_algorithms, True, False),
    "anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "matmul precision": lambda: of_torch(torch.set_float32_matmul_precision, "medium", "highest"),
    "disable_jit": jax.disable_jit,
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "strict dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "strict ranks": lambda: jax.numpy_rank_promotion("raise"),
    "x64": lambda: jax.enable_x64(True),
    "JAX's matmul precision": lambda: jax.default_matmul_precision("bfloat16"),
    "transfer guard": lambda: jax.transfer_guard("disallow"),
}


def settings():
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        torch.is_anomaly_enabled(),
        torch.get_rng_state().sum().item(),
        jax.config.jax_disable_jit,
        jax.config.jax_debug_nans,
        jax.config.jax_numpy_dtype_promotion,
        jax.config.jax_numpy_rank_promotion,
        jax.config.jax_enable_x64,
        jax.config.jax_default_matmul_precision,
    )


@functools.cache  # not a fixture of the module, which would be compiled with other options
def pair():
    ours = nnx.Sequential(Linear(3, 4, rngs=nnx.Rngs(0)), BatchNorm(4, rngs=nnx.Rngs(0)))
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
    plain = compare(ours, theirs, X, modes=["train"])
    assert plain.ok, plain
    return ours, theirs, [(row.path, row.error, row.torch_error) for row in plain.rows]


@pytest.mark.parametrize("name", AMBIENT)
def test_the_callers_settings_change_nothing_and_are_left_alone(name):
    ours, theirs, plain = pair()
    with ExitStack() as stack:
        stack.enter_context(AMBIENT[name]())
        before = settings()
        report = compare(ours, theirs, X, modes=["train"])
        assert settings() == before
        with pytest.raises(ValueError, match="must take the inputs"):
            compare(ours, theirs, X[:, :2])
        assert settings() == before
    assert [(row.path, row.error, row.torch_error) for row in report.rows] == plain
    assert not theirs.training


def test_gradients_that_are_not_finite_are_reported_under_anomaly_detection_too():
    with torch.autograd.set_detect_anomaly(True):
        report = compare(
            Ours(lambda linear, x: linear(jnp.sqrt(x))), Theirs(lambda linear, x: linear(torch.sqrt(x))), X, **QUICK
        )
    assert {row.note for row in report.failures if row.path == "output"} == {"not finite in flax and torch"}


def test_modules_made_in_inference_mode():
    with torch.inference_mode():
        theirs = Theirs(lambda linear, x: linear(x))
    assert compare(Ours(lambda linear, x: linear(x)), theirs, X, **QUICK).ok


IMAGE = RNG.integers(0, 256, (5, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("ours", "theirs", "x"),
    [
        (lambda linear, x: linear(x) + jnp.zeros(3), lambda linear, x: linear(x) + torch.zeros(3), X),
        (lambda linear, x: linear(x + jnp.linspace(0, 1, 3)), lambda linear, x: linear(x + torch.linspace(0, 1, 3)), X),
        (lambda linear, x: linear(jnp.ones((5, 3))) * x, lambda linear, x: linear(torch.ones(5, 3)) * x, X),
        (lambda linear, x: linear(x) * jnp.eye(5, 3), lambda linear, x: linear(x) * torch.eye(5, 3), X),
        (lambda linear, x: linear(x) + jnp.arange(3) * 0.1, lambda linear, x: linear(x) + torch.arange(3) * 0.1, X),
        (lambda linear, x: linear(x.astype(float) / 255), lambda linear, x: linear(x / 255), IMAGE),
        (
            lambda linear, x: linear(x.astype(float) / 255 - jnp.full(3, 0.1)),
            lambda linear, x: linear(x / 255 - torch.tensor([0.1] * 3)),
            IMAGE,
        ),
    ],
)
def test_tensors_that_forward_makes_have_the_dtype_of_the_side(ours, theirs, x):
    check(ours, theirs, x, dtypes=["float64", "float32"])


@pytest.mark.parametrize(
    "theirs",
    [
        lambda linear, x: linear(x.float()),
        lambda linear, x: linear(x.to(torch.float32)),
        lambda linear, x: linear(torch.zeros(5, 3, dtype=torch.float32) + 1),
        lambda linear, x: torch.matmul(linear(x), torch.ones(3, 3, dtype=torch.float32)),
    ],
)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_code_that_chooses_a_dtype_is_told_so(theirs, dtype):
    with pytest.raises(
        ValueError, match=r"must take the inputs in float64, got input\[0\] \(5, 3\):.*chooses? a dtype"
    ):
        compare(Ours(lambda linear, x: linear(x)), Theirs(theirs), X, dtypes=[dtype])


@pytest.mark.parametrize("wide", [lambda x: x.double(), lambda x: x * torch.ones(3, dtype=torch.float64)])
def test_code_that_chooses_float64_is_told_so_in_float32(wide):
    theirs = Theirs(lambda linear, x: linear(wide(x)))
    match = r"must take the inputs in float32, got input\[0\] \(5, 3\): in 'l' .*choose a dtype"
    with pytest.raises(ValueError, match=match):
        compare(Ours(lambda linear, x: linear(x)), theirs, X, dtypes=["float32"])


@pytest.mark.parametrize("x", [torch.eye(3).to_sparse(), torch.ones(5, 3, device="meta")], ids=["sparse", "meta"])
def test_inputs_without_values_to_copy_are_named(x):
    match = r"input\[0\]\.x must be an array with values, got Tensor: "
    with pytest.raises(ValueError, match=match):
        compare(Ours(lambda linear, x: linear(x["x"])), Theirs(lambda linear, x: linear(x["x"])), {"x": x})


def test_no_output_is_another_structure():
    for ours, theirs, told in ((None, 1, r"output \(5, 3\) in .*, got none"), (1, None, "none in .*, got output")):
        with pytest.raises(ValueError, match=rf"at the places of torch_module, {told}"):
            compare(
                Ours(lambda linear, x, ours=ours: ours and linear(x)),
                Theirs(lambda linear, x, theirs=theirs: theirs and linear(x)),
                X,
                **QUICK,
            )


def test_the_layer_that_does_not_take_its_input_is_named():
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ModuleDict({"a": torch.nn.Linear(5, 3)})["a"])
    ours = nnx.Sequential(Linear(3, 4, rngs=nnx.Rngs(0)), Linear(5, 3, rngs=nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"in '1' mat1 and mat2 shapes"):
        compare(ours, theirs, X)


ANGLES = np.exp(1j * np.arange(3)).astype(np.complex64)


class Rotary(nnx.Module):
    """Turns pairs of numbers by a buffer of complex ones, and scales them by a complex parameter."""

    def __init__(self):
        self.angles, self.scale = nnx.BatchStat(jnp.ones(3, jnp.complex64)), nnx.Param(jnp.ones(3, jnp.complex64))

    def __call__(self, x):
        turned = jax.lax.complex(x[..., 0], x[..., 1]) * self.angles[...] * self.scale[...]
        return jnp.stack([turned.real, turned.imag], -1), turned


@rule(Rotary)
def _rotary(layer):
    return [Entry("angles", layer.angles), Entry("scale", layer.scale)]


class TorchRotary(torch.nn.Module):
    def __init__(self, wrong=False):
        super().__init__()
        self.register_buffer("angles", torch.from_numpy(ANGLES))
        self.scale = torch.nn.Parameter(torch.tensor([1 + 2j, 0.5j, -1 - 1j]))
        self.wrong = wrong

    def forward(self, x):
        angles = self.angles.conj() if self.wrong else self.angles
        turned = torch.view_as_complex(x.contiguous()) * angles * self.scale
        return torch.view_as_real(turned), turned


def test_complex_numbers_keep_their_kind():
    x = RNG.standard_normal((5, 3, 2)).astype(np.float32)
    report = compare(Rotary(), TorchRotary(), x, dtypes=["float64", "float32"], steps=3)
    assert report.ok, report
    paths = {(row.quantity, row.path) for row in report.rows}
    assert {("parameter gradient", "scale"), ("buffer", "angles"), ("output", "output[1]")} <= paths
    wrong = compare(Rotary(), TorchRotary(wrong=True), x, **QUICK)
    assert {row.quantity for row in wrong.failures} == {"output", "parameter gradient", "input gradient"}


def test_complex_inputs_are_differentiated_by_one_convention():
    z = (RNG.standard_normal((5, 3)) + 1j * RNG.standard_normal((5, 3))).astype(np.complex64)
    report = check(
        lambda linear, z: (linear(z.real) * z * z, jnp.abs(z)),
        lambda linear, z: (linear(z.real) * z * z, z.abs()),
        z,
        dtypes=["float64", "float32"],
    )
    assert ("input gradient", "input[0]") in {(row.quantity, row.path) for row in report.rows}
    wrong = compare(
        Ours(lambda linear, z: linear(z.real) * z.conj()), Theirs(lambda linear, z: linear(z.real) * z), z, **QUICK
    )
    assert {row.quantity for row in wrong.failures} >= {"output", "input gradient"}


def test_complex_buffers_in_bfloat16_stay_complex():
    def ours(linear, x):
        return linear(x).astype(jnp.float32) * jnp.abs(jnp.asarray(ANGLES))

    def theirs(linear, x):
        return linear(x).float() * torch.from_numpy(ANGLES).abs()

    check(ours, theirs, X, dtypes=["bfloat16"])
    x = RNG.standard_normal((5, 3, 2)).astype(np.float32)
    assert compare(Rotary(), TorchRotary(), x, dtypes=["float32"], modes=["train"]).ok


Pair = namedtuple("Pair", ["logits", "gate"])


@dataclass
class Output:
    logits: object
    gate: object


jax.tree_util.register_dataclass(Output, ["logits", "gate"], [])
STRUCTURES = {
    "tuple": lambda a, b: (a, b),
    "list": lambda a, b: [a, b],
    "dict": lambda a, b: {"logits": a, "gate": b},
    "dict in another order": lambda a, b: {"gate": b, "logits": a},
    "named tuple": Pair,
    "dataclass": Output,
    "nested": lambda a, b: {"logits": a, "more": [b, None]},
}
SAME = [{"tuple", "list", "named tuple"}, {"dict", "dict in another order", "dataclass"}, {"nested"}]


@pytest.mark.parametrize("theirs", STRUCTURES)
@pytest.mark.parametrize("ours", STRUCTURES)
def test_outputs_are_paired_by_their_places(ours, theirs):
    pair = (
        Ours(lambda linear, x: STRUCTURES[ours](linear(x), jnp.tanh(x))),
        Theirs(lambda linear, x: STRUCTURES[theirs](linear(x), torch.tanh(x))),
    )
    if any({ours, theirs} <= group for group in SAME):
        assert compare(*pair, X, **QUICK).ok
        return
    with pytest.raises(
        ValueError,
        match=r"must return arrays at the places of torch_module, output.* \(5, 3\) in Flax's layouts, got output",
    ):
        compare(*pair, X, **QUICK)


def test_values_and_gradients_of_many_outputs_are_paired_alike():
    def ours(linear, x):
        return tuple(linear(x) * (i + 1) for i in range(12))

    check(ours, ours, X)


@pytest.mark.parametrize("lazy", [torch.nn.LazyLinear(3), torch.nn.LazyBatchNorm1d(), torch.nn.LazyConv1d(3, 2)])
def test_lazy_layers_are_named(lazy):
    theirs = torch.nn.Sequential(torch.nn.Linear(3, 3), lazy)
    with pytest.raises(ValueError, match=r"torch_module must have been called once.*uninitialised 1\.weight"):
        compare(Ours(lambda linear, x: linear(x)), theirs, X)


LEFT, RIGHT = RNG.standard_normal((2, 5, 3)).astype(np.float32)
NESTED = {
    "list": ([LEFT, RIGHT],),
    "tuple": ((LEFT, RIGHT),),
    "named tuple": (Pair(LEFT, RIGHT),),
    "tensors": ([torch.from_numpy(LEFT), torch.from_numpy(RIGHT).bfloat16()],),
    "jax arrays": ([jnp.asarray(LEFT), jnp.asarray(RIGHT, jnp.bfloat16)],),
}


@pytest.mark.parametrize("kind", NESTED)
def test_arrays_in_containers_are_inputs_as_others(kind):
    def both(linear, pair):
        return linear(pair[0]) * pair[1]

    report = check(both, both, *NESTED[kind], dtypes=["float64", "float32"])
    assert {row.path for row in report.rows if row.quantity == "input gradient"} == {"input[0][0]", "input[0][1]"}


def test_mappings_numbers_and_text_among_the_inputs():
    def ours(linear, x, options, scale, name):
        return linear(x) * options["gate"] * scale if name == "on" and options["deep"]["flag"] else x

    inputs = (X, {"gate": RIGHT, "deep": {"flag": True, "none": None}}, 2.5, "on")
    report = check(ours, ours, *inputs, steps=2, batches=[inputs])
    assert {row.path for row in report.rows if row.quantity == "input gradient"} == {"input[0]", "input[1].gate"}
    with pytest.raises(ValueError, match=r"batches\[0\] must have the arrays and values of the call"):
        check(ours, ours, *inputs, steps=1, batches=[(X, {"gate": RIGHT}, 2.5, "on")])


@pytest.mark.parametrize("gate", [RIGHT, torch.from_numpy(RIGHT), jnp.asarray(RIGHT)], ids=["numpy", "torch", "jax"])
def test_arrays_among_keyword_arguments_are_cast_along(gate):
    def ours(linear, x, gate, mask):
        return linear(x) * gate["a"][0] * mask

    mask = RNG.random((5, 3)) < 0.5
    check(ours, ours, X, kwargs={"gate": {"a": [gate]}, "mask": mask}, dtypes=["float64", "float32", "bfloat16"])


def test_layouts_are_for_arrays_in_containers_too():
    def ours(linear, pair):
        return linear(pair[0].T) * pair[1]

    def theirs(linear, pair):
        return linear(pair[0]) * pair[1]

    check(ours, theirs, [LEFT, RIGHT], layouts={"inputs": ["b c -> c b", None]})
    with pytest.raises(ValueError, match=r"layouts\['inputs'\] must have one entry for each of 2 arrays, got 1"):
        check(ours, theirs, [LEFT, RIGHT], layouts={"inputs": ["b c -> c b"]})
