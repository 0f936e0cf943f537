"""What the harness must reject, and modules as people write them, which it must accept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn.convert import Entry, rule
from flax_attn.layers import BatchNorm, Dropout, Linear
from flax_attn.testing import compare, relative_error, tolerance
from flax_attn.testing.results import random_cotangents
from flax_attn.testing.tolerances import DTYPES

X = np.random.default_rng(0).standard_normal((5, 3))
QUICK = {"dtypes": ["float64"], "modes": ["train"]}


class Wrapped(nnx.Module):
    """A Linear called ``l`` and a function around it."""

    def __init__(self, function):
        self.l = Linear(3, 7, rngs=nnx.Rngs(0))
        self.function = function

    def __call__(self, x):
        return self.function(self.l(x))


class TorchWrapped(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.l = torch.nn.Linear(3, 7)
        self.function = function

    def forward(self, x):
        return self.function(self.l(x))


def same(x):
    return x


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gradient_that_is_zero_fails_in_every_dtype(dtype):
    report = compare(Wrapped(jax.lax.stop_gradient), TorchWrapped(same), X, dtypes=[dtype], modes=["eval"])
    assert {row.quantity for row in report.failures} == {"parameter gradient", "input gradient"}


def test_cotangents_are_not_what_inputs_are_drawn_from():
    (cotangent,) = random_cotangents([(101,)], 0)
    assert abs(np.corrcoef(cotangent, np.random.default_rng(0).standard_normal(101))[0, 1]) < 0.3
    # A LayerNorm's gradient against its own input is a small remainder of large sums.
    assert compare(BatchNorm(3, rngs=nnx.Rngs(0)), torch.nn.BatchNorm1d(3), X, **QUICK).ok


@pytest.mark.parametrize(
    ("ours", "theirs", "side"),
    [(same, lambda x: x + 0j, "complex in torch alone"), (lambda x: x + 0j, same, "complex in flax alone")],
)
def test_a_complex_result_is_no_real_one(ours, theirs, side):
    report = compare(Wrapped(ours), TorchWrapped(theirs), X, **QUICK)
    assert [row.note for row in report.failures if row.quantity == "output"] == [side]


class Counting(nnx.Module):
    def __init__(self, step):
        self.count = nnx.BatchStat(jnp.zeros((), jnp.int32))
        self.step = step

    def __call__(self, x):
        self.count[...] = self.count[...] + self.step
        return jnp.sin(x)


@rule(Counting)
def counting(module):
    yield Entry("count", module.count)


class TorchCounting(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.int32))

    def forward(self, x):
        self.count += 1
        return torch.sin(x)


@pytest.mark.parametrize("step", [1, 0])
def test_buffers_of_whole_numbers_are_compared_and_move_without_parameters(step):
    report = compare(Counting(step), TorchCounting(), X, **QUICK, steps=3, optimizers=["sgd"])
    expected = set() if step else {"buffer", "trained buffer"}
    assert {row.quantity for row in report.failures} == expected
    assert [row.path for row in report.rows if row.quantity == "trained buffer"] == ["count"]


def test_very_small_and_very_large_numbers_have_errors_too():
    ones = np.ones(3)
    assert relative_error(3e-170 * ones, 1e-170 * ones) == relative_error(3 * ones, ones)
    assert relative_error(3e200 * ones, 1e200 * ones) == relative_error(3 * ones, ones)
    assert relative_error(1e-170 * ones, 0 * ones) == np.inf


def test_zeros_compared_with_zeros_are_named():
    report = compare(Wrapped(lambda x: 0 * x), TorchWrapped(lambda x: 0 * x), X, **QUICK)
    assert report.ok
    assert {row.quantity for row in report.vacuous} == {"output", "parameter gradient", "input gradient"}
    assert "4 compared zeros with zeros, which proves nothing" in str(report)


def test_a_float32_inside_float64_is_recognised():
    ours = Wrapped(lambda x: jnp.sin(x.astype(jnp.float32)).astype(x.dtype))
    report = compare(ours, TorchWrapped(torch.sin), X, **QUICK)
    assert "look like a float32 somewhere inside" in str(report)
    assert "float32" not in str(compare(Wrapped(jnp.cos), TorchWrapped(torch.sin), X, **QUICK))


def test_a_first_layer_may_work_in_place():
    ours = nnx.Sequential(nnx.relu, Linear(3, 7, rngs=nnx.Rngs(0)))
    theirs = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(3, 7))
    x = X.copy()
    assert compare(ours, theirs, x, **QUICK, steps=5, optimizers=["sgd"]).ok
    np.testing.assert_array_equal(x, X)


class Tied(nnx.Module):
    def __init__(self, layer):
        self.first = layer
        self.second = layer

    def __call__(self, x):
        return self.second(jnp.sin(self.first(x)))


class TorchTied(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.first = layer
        self.second = layer

    def forward(self, x):
        return self.second(torch.sin(self.first(x)))


def test_a_layer_used_twice_is_compared_under_both_names():
    report = compare(Tied(Linear(3, 3, rngs=nnx.Rngs(0))), TorchTied(torch.nn.Linear(3, 3)), X, **QUICK, steps=3)
    assert report.ok, str(report)
    paths = [row.path for row in report.rows if row.quantity == "parameter gradient"]
    assert paths == ["first.weight", "first.bias", "second.weight", "second.bias"]


@pytest.mark.parametrize("layer", [Dropout(0.5, rngs=nnx.Rngs(0)), nnx.Dropout(0.5, rngs=nnx.Rngs(0))])
def test_a_dropout_used_twice_draws_twice(layer):
    assert compare(Tied(layer), TorchTied(torch.nn.Dropout(0.5)), X, **QUICK).ok


class Loud(Dropout):
    def __call__(self, x):
        return 100 * super().__call__(x)


class TorchLoud(torch.nn.Dropout):
    def forward(self, x):
        return 100 * super().forward(x)


def test_a_dropout_with_code_of_its_own_is_refused():
    plain, theirs = Dropout(0.5, rngs=nnx.Rngs(0)), torch.nn.Dropout(0.5)
    with pytest.raises(ValueError, match=r"masks of others cannot be shared, got TorchLoud 'first'"):
        compare(Tied(plain), TorchTied(TorchLoud(0.5)), X, **QUICK)
    with pytest.raises(ValueError, match=r"masks of others cannot be shared, got Loud 'first'"):
        compare(Tied(Loud(0.5, rngs=nnx.Rngs(0))), TorchTied(theirs), X, **QUICK)


def test_dropout_in_a_function_is_recognised():
    theirs = TorchWrapped(lambda x: torch.nn.functional.dropout(x, 0.5))
    with pytest.raises(ValueError, match=r"is there a torch\.nn\.functional\.dropout\?"):
        compare(Wrapped(same), theirs, X, **QUICK)


class Unused(nnx.Module):
    def __init__(self):
        self.used, self.unused = (Linear(3, size, rngs=nnx.Rngs(0)) for size in (5, 7))

    def __call__(self, x):
        return self.used(x)


class TorchUnused(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = (torch.nn.Linear(3, size) for size in (5, 7))

    def forward(self, x):
        return self.used(x)


def test_a_parameter_that_nothing_uses_decays_alike():
    assert compare(Unused(), TorchUnused(), X, **QUICK, steps=5, optimizers=["adamw"]).ok


class Sowing(Wrapped):
    def __init__(self):
        super().__init__(jnp.sin)
        self.settings, self.key = {"scale": 2}, jax.random.key(0)

    def __call__(self, x):
        self.sow(nnx.Intermediate, "input", x)
        return super().__call__(x)


def test_what_a_module_sows_or_keeps_is_no_matter():
    assert compare(Sowing(), TorchWrapped(torch.sin), X, **QUICK, steps=2).ok


@pytest.mark.parametrize("value", [0, "text", jnp.ones(3)], ids=["number", "text", "array"])
def test_a_variable_of_any_value_without_a_rule_is_shown(value):
    ours = Wrapped(jnp.sin)
    ours.settings = nnx.Variable(value)
    with pytest.raises(ValueError, match=r"(?s)cannot be paired.*Variable 'settings'.*no conversion rule"):
        compare(ours, TorchWrapped(torch.sin), X, **QUICK)


def test_a_module_that_keeps_a_tensor_of_an_earlier_call():
    theirs = TorchWrapped(torch.sin)
    theirs.kept = theirs(torch.ones(5, 3))
    with pytest.raises(ValueError, match="torch_module must be free of tensors from an earlier call"):
        compare(Wrapped(jnp.sin), theirs, X, **QUICK)


def test_a_module_that_returns_more_while_training():
    class More(TorchWrapped):
        def forward(self, x):
            return (self.l(x),) * 2 if self.training else self.l(x)

    with pytest.raises(ValueError, match=r"one set of shapes, .* in eval mode"):
        compare(Wrapped(same), More(None), X, dtypes=["float64"])


def test_batches_of_another_shape_are_named():
    with pytest.raises(
        ValueError, match=r"one set of shapes, \{'output': \(5, 7\)\}, got \{'output': \(2, 7\)\} for batches\[0\]"
    ):
        compare(Wrapped(same), TorchWrapped(same), X, **QUICK, steps=1, batches=[(X[:2],)])


def test_a_module_that_holds_itself():
    ours = Wrapped(same)
    ours.l.parent = ours
    with pytest.raises(ValueError, match=r"must be a tree, got one that contains itself at 'l\.parent\.l\.parent\.l'"):
        compare(ours, TorchWrapped(same), X, **QUICK)


def test_what_flax_does_not_take_is_named_with_its_layout():
    with pytest.raises(ValueError, match=r"flax_module must take .*, got input\[0\] \(3, 5\) \(b c -> c b\): "):
        compare(Wrapped(same), TorchWrapped(same), X, **QUICK, layouts={"inputs": ["b c -> c b"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layouts": {"dropouts": ["b c -> b c"]}}, r"layouts\['dropouts'\] must map paths to layouts"),
        ({"layouts": {"inputs": [3]}}, r"layouts\['inputs'\] must be layouts or None, got 3"),
        ({"kwargs": [1]}, r"kwargs must map names to values, got \[1\]"),
        ({"steps": 1, "optimizers": []}, "optimizers must be at least one, got none"),
    ],
)
def test_options_of_another_kind(options, message):
    with pytest.raises(ValueError, match=message):
        compare(Wrapped(same), TorchWrapped(same), X, **{**QUICK, **options})


def test_the_step_at_which_losses_part_is_named():
    import optax

    from flax_attn.testing import OptimizerPair

    late = optax.sgd(lambda step: jnp.where(step < 2, 1e-3, 2e-3))
    pair = OptimizerPair(late, lambda parameters: torch.optim.SGD(parameters, lr=1e-3))
    report = compare(Wrapped(jnp.sin), TorchWrapped(torch.sin), X, **QUICK, steps=5, optimizers={"late": pair})
    (loss,) = [row for row in report.failures if row.quantity == "loss"]
    assert loss.note.startswith("first at step 4: flax ")
    assert loss.error > tolerance("loss", "float64")
