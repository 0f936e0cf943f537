"""On failure the report names the first submodule that differs, with both values, and not an innocent one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn.layers import Linear
from flax_attn.testing import assert_parity, compare, tolerance

X = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
ONCE = {"dtypes": ["float64"], "modes": ["eval"]}


class Theirs(torch.nn.Module):
    """A layer, a function, a layer."""

    def __init__(self, between=torch.sin, *, a=None, b=None):
        super().__init__()
        self.a = a or torch.nn.Linear(5, 7)
        self.b = b or torch.nn.Linear(7, 5)
        self.between = between

    def forward(self, x):
        return self.b(self.between(self.a(x)))


class Ours(nnx.Module):
    """Its port."""

    def __init__(self, between=jnp.sin, *, a=None, b=None):
        self.a = a or linear(5, 7)
        self.b = b or linear(7, 5)
        self.between = between

    def __call__(self, x):
        return self.b(self.between(self.a(x)))


class Scaled(Linear):
    def __call__(self, x):
        return super().__call__(x) * 1.5


def linear(size_in, size_out, layer=Linear):
    return layer(size_in, size_out, rngs=nnx.Rngs(0))


def half_stopped(x):
    """The value of x, half of its gradient."""
    return (x + jax.lax.stop_gradient(x)) / 2


def find(ours, theirs, *inputs, **options):
    report = compare(ours, theirs, *(inputs or [X]), **{**ONCE, **options})
    assert not report.ok
    assert str(report.finding) in str(report)
    return report.finding


def test_the_first_layer_that_differs_is_named_with_both_values():
    theirs = Theirs()
    finding = find(Ours(a=linear(5, 7, Scaled)), theirs)
    assert (finding.path, finding.what, finding.kinds, finding.given) == ("a", "output", ("Scaled", "Linear"), False)
    value = theirs.a(torch.from_numpy(X))[finding.index].item()
    assert finding.torch_value == pytest.approx(value, rel=tolerance("output", "float32"))
    assert finding.flax_value == pytest.approx(1.5 * finding.torch_value, rel=tolerance("output", "float64"))
    assert "first differs: output of a (Scaled in Flax, Linear in PyTorch) in eval mode, float64" in str(finding)


def test_a_fault_between_two_layers_shows_in_what_the_second_is_given():
    finding = find(Ours(jnp.cos), Theirs())
    assert (finding.path, finding.given) == ("b", True)
    assert "what it is given is wrong already, the fault lies before it" in str(finding)


def test_a_layer_that_is_called_twice():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(5, 5)

        def forward(self, x):
            return self.a(torch.sin(self.a(x)))

    class OursTwice(nnx.Module):
        def __init__(self):
            self.a = linear(5, 5)

        def __call__(self, x):
            return self.a(jnp.cos(self.a(x)))

    finding = find(OursTwice(), Twice())
    assert (finding.path, finding.given) == ("a", True)  # the second call: the first one is given the same


def test_a_layer_on_one_side_only_is_passed_over():
    theirs = Theirs(torch.nn.Tanh())
    theirs.between.register_forward_hook(lambda *_: None)
    assert find(Ours(jnp.sin), theirs).path == "b"


def test_a_transposed_square_output_is_blamed_on_the_whole():
    class Transposed(Ours):
        def __call__(self, x):
            return super().__call__(x).T

    square = np.concatenate([X, X[:2]])
    finding = find(Transposed(), Theirs(), square)
    assert (finding.path, finding.what) == ("", "output")
    assert "the module itself (Transposed in Flax" in str(finding)


def test_values_of_the_whole_are_in_pytorchs_layout():
    class Transposed(Ours):
        def __call__(self, x):
            return 1.5 * super().__call__(x).T

    finding = find(Transposed(), Theirs(), layouts={"outputs": ["n c -> c n"]})
    assert finding.path == ""
    assert finding.flax_value == pytest.approx(1.5 * finding.torch_value, rel=tolerance("output", "float64"))


class TheirsNamed(torch.nn.Module):
    def forward(self, x):
        return {"z": torch.sin(x), "a": (x.argmax(dim=-1), 2 * x)}


class OursNamed(nnx.Module):
    def __init__(self, factor=2):
        self.factor = factor

    def __call__(self, x):
        return {"a": (jnp.argmax(x, axis=-1), self.factor * x), "z": jnp.sin(x)}


def test_outputs_by_name_have_one_order_on_both_sides():
    report = assert_parity(OursNamed(), TheirsNamed(), X, **ONCE)
    paths = ["output.a[0]", "output.a[1]", "output.z"]
    assert [row.path for row in report.rows if row.quantity == "output"] == paths


def test_inside_too():
    ours = Ours(lambda found: jnp.sin(found["z"]) + found["a"][1], a=nnx.Sequential(linear(5, 7), OursNamed(3)))
    theirs = Theirs(
        lambda found: torch.sin(found["z"]) + found["a"][1],
        a=torch.nn.Sequential(torch.nn.Linear(5, 7), TheirsNamed()),
    )
    finding = find(ours, theirs)
    assert (finding.path, finding.given) == ("a.1", False)
    assert finding.flax_value == pytest.approx(1.5 * finding.torch_value, rel=tolerance("output", "float64"))


def test_whole_numbers_are_looked_at():
    class Index(nnx.Module):
        def __call__(self, x):
            return jnp.argmin(x, axis=-1)

    class TheirIndex(torch.nn.Module):
        def forward(self, x):
            return x.argmax(dim=-1)

    ours = Ours(lambda x: x, a=Index(), b=nnx.Embed(5, 7, rngs=nnx.Rngs(0)))
    ours.b.dtype = None  # nnx.Embed's own would round a float64 table
    finding = find(ours, Theirs(lambda x: x, a=TheirIndex(), b=torch.nn.Embedding(5, 7)))
    assert (finding.path, finding.kinds) == ("a", ("Index", "TheirIndex"))


# Behind each of these a gradient is lost between a and what follows it.
LAYERS_BEHIND = {
    "works in place": lambda: torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.ReLU(inplace=True)),
    "hands through": lambda: torch.nn.Sequential(torch.nn.Linear(7, 5), Residual(), torch.nn.ReLU()),
}
FLAX_BEHIND = {
    "works in place": lambda: nnx.Sequential(linear(7, 5), nnx.relu),
    "hands through": lambda: nnx.Sequential(linear(7, 5), OursResidual(), nnx.relu),
}


class Residual(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x):
        return x + torch.sin(self.dropout(x))


class OursResidual(nnx.Module):
    def __init__(self):
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return x + jnp.sin(self.dropout(x))


@pytest.mark.parametrize("behind", LAYERS_BEHIND)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_a_gradient_is_traced_to_where_it_is_lost_behind_a_layer_that(behind, mode):
    ours = Ours(half_stopped, b=FLAX_BEHIND[behind]())
    finding = find(ours, Theirs(torch.clone, b=LAYERS_BEHIND[behind]()), modes=[mode])
    assert (finding.path, finding.what) == ("a", "gradient")
    assert finding.flax_value == pytest.approx(finding.torch_value / 2, rel=tolerance("output", "float64"))
    assert "walking backwards" in str(finding)


def test_a_gradient_that_only_one_side_lets_flow():
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(5, 7)
            self.b = torch.nn.Linear(5, 7)

        def forward(self, x):
            return torch.sin(self.a(x)) + self.b(x) * 0.0

    class OursSum(nnx.Module):
        def __init__(self):
            self.a, self.b = linear(5, 7), linear(5, 7)

        def __call__(self, x):
            b = self.b(x)
            return jnp.sin(self.a(x)) + b - jax.lax.stop_gradient(b)

    assert (finding := find(OursSum(), Sum())).path == "b"
    assert finding.torch_value == 0


def test_the_first_nan_is_named():
    finding = find(Ours(jnp.log), Theirs(torch.log))
    assert (finding.path, finding.what, finding.given) == ("b", "not finite", True)
    assert "first not finite: output of b" in str(finding)


def test_a_nan_in_the_gradient_alone_is_named():
    ours = Ours(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0))
    theirs = Theirs(lambda x: torch.where(x > 0, x, 1).sqrt() * (x > 0))
    finding = find(ours, theirs)
    assert (finding.path, finding.what) == ("a", "gradient")
    assert np.isnan(finding.flax_value)


class Mask(nnx.Module):
    def __call__(self, x):
        return jnp.where(x > 0, 0, -jnp.inf)


class TheirMask(torch.nn.Module):
    def forward(self, x):
        return torch.where(x > 0, 0, -torch.inf).to(x.dtype)


def test_infinities_on_both_sides_are_no_difference_but_if_nothing_else_is():
    ours = Ours(lambda x: x, a=Mask(), b=nnx.Sequential(jnp.exp, linear(5, 7, Scaled)))
    theirs = Theirs(lambda x: x, a=TheirMask(), b=torch.nn.Sequential(Exp(), torch.nn.Linear(5, 7)))
    assert find(ours, theirs).path == "b.1"
    finding = find(Mask(), TheirMask())
    assert (finding.path, finding.what) == ("", "not finite")


class Exp(torch.nn.Module):
    def forward(self, x):
        return x.exp()


def test_a_layer_inside_a_checkpoint_is_passed_over():
    class Checkpointed(Ours):
        def __call__(self, x):
            return self.b(jax.checkpoint(lambda x: jnp.cos(self.a(x)))(x))

    finding = find(Checkpointed(), Theirs())
    assert (finding.path, finding.given) == ("b", True)


def test_a_prefix_that_is_taken_off_twice():
    theirs = torch.nn.Sequential(torch.nn.Sequential(Theirs()))
    assert find(Ours(a=linear(5, 7, Scaled)), theirs, rename={"0.0": "", "0": ""}).path == "a"


def test_random_streams_are_no_arrays():
    class Noisy(nnx.Module):
        def __init__(self):
            self.source = Source()
            self.a = linear(5, 7, Scaled)

        def __call__(self, x):
            self.source()
            return self.a(x)

    class Source(nnx.Module):
        def __init__(self):
            self.rngs = nnx.Rngs(0)

        def __call__(self):
            return self.rngs(), "a key"

    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(5, 7)

        def forward(self, x):
            return self.a(x)

    assert find(Noisy(), Plain()).path == "a"


def test_what_is_no_array_is_refused():
    class Told(nnx.Module):
        def __call__(self, x):
            return x, "told"

    class TheirTold(torch.nn.Module):
        def forward(self, x):
            return x, "told"

    with pytest.raises(ValueError, match=r"torch_module must return tensors, nested or not, got str at output\[1\]"):
        compare(Told(), TheirTold(), X, **ONCE)
    with pytest.raises(ValueError, match=r"flax_module must return arrays, nested or not, got str at output\[1\]"):
        compare(Told(), Pair(), X, **ONCE)


class Pair(torch.nn.Module):
    def forward(self, x):
        return x, x
