"""The report says how a layer differs, for each mistake in the table of docs/porting.md."""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from flax_attn.layers import AvgPool, BatchNorm, Conv, LayerNorm, Linear, MaxPool
from flax_attn.testing import compare

from .mistakes import MISTAKES, NoBias
from .residual import RESNET50, SHORT, Choices, resnet, small

PORTING = Path(__file__).parents[2] / "docs" / "porting.md"
SAYS = dict(re.findall(r"^\| ([^|]+) \| `([^|]+)` \|$", PORTING.read_text(), flags=re.MULTILINE))
MOST_LINES = 30


def told(pair, mode, **options):
    ours, theirs, x, layouts = pair
    report = compare(ours, theirs, x, dtypes=["float64"], modes=[mode], **layouts, **options)
    assert not report.ok
    text = str(report)
    assert len(text.splitlines()) <= MOST_LINES
    return text


def test_the_table_has_every_mistake():
    assert SAYS.keys() == MISTAKES.keys() | {"missing bias"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_small_network_is_explained(mistake):
    mode, choices = MISTAKES[mistake]
    lines = told(small(choices), mode).splitlines()
    (line,) = [line for line in lines[1:] if not line.startswith(("first differs", "FAIL", "..."))]
    assert line.startswith(SAYS[mistake])


def test_a_missing_bias_is_the_only_entry_shown():
    ours, theirs, x, layouts = small(Choices(project=NoBias))
    with pytest.raises(ValueError, match="cannot be paired") as error:
        compare(ours, theirs, x, **layouts)
    assert SAYS["missing bias"] in " ".join(str(error.value).split())
    assert len(str(error.value).splitlines()) <= MOST_LINES


class UntransposedConv(Conv):
    def __call__(self, x):
        return jnp.einsum("bhwi,oi->bhwo", x, self.kernel[0, 0])


IN_RESNET = {
    "square kernel not transposed": ("eval", Choices(square=UntransposedConv)),
    "eps of a norm": ("eval", Choices(norm=partial(BatchNorm, eps=1e-6))),
    **{
        name: MISTAKES[name]
        for name in (
            "BatchNorm's momentum",
            "momentum in nnx's convention",
            "biased running variance",
            '`"SAME"` at stride 2',
            "padding of a max-pool",
            "missing ReLU",
        )
    },
}


def check_in_resnet(mistake, depths):
    mode, choices = IN_RESNET[mistake]
    assert SAYS[mistake].partition(": ")[2] in told(resnet(depths, choices), mode)


IN_ALL_NORMS = ("eps of a norm", "momentum in nnx's convention")


@pytest.mark.nightly
@pytest.mark.parametrize("mistake", [name for name in IN_RESNET if name not in IN_ALL_NORMS])
def test_a_mistake_in_a_short_resnet_is_explained(mistake):
    check_in_resnet(mistake, SHORT)


@pytest.mark.nightly
@pytest.mark.parametrize("mistake", IN_ALL_NORMS)
def test_a_mistake_in_every_norm_of_resnet50_is_explained(mistake):
    check_in_resnet(mistake, RESNET50)


@pytest.mark.nightly
def test_a_missing_bias_in_resnet50_is_the_only_entry_shown():
    ours, theirs, x, layouts = resnet(choices=Choices(project=NoBias))
    with pytest.raises(ValueError, match="cannot be paired") as error:
        compare(ours, theirs, x, **layouts)
    assert "fc.bias (10,) only in torch_module" in " ".join(str(error.value).split())
    assert len(str(error.value).splitlines()) <= MOST_LINES


# More of each kind, in single layers.

X = np.random.default_rng(0).standard_normal((3, 6, 7, 7))
ROWS = np.random.default_rng(0).standard_normal((5, 6))
MAP = {"layouts": {"inputs": ["b c h w -> b h w c"], "outputs": ["b c h w -> b h w c"]}}
RNGS = {"rngs": nnx.Rngs(0)}


class Applied(nnx.Module):
    """A Linear, a function, a Linear."""

    def __init__(self, function):
        self.a, self.b, self.function = Linear(6, 6, **RNGS), Linear(6, 6, **RNGS), function

    def __call__(self, x):
        return self.b(self.function(self.a(x)))


class TorchApplied(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.function = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6), function

    def forward(self, x):
        return self.b(self.function(self.a(x)))


def same(x):
    return x


LAYERS = {
    "eps of LayerNorm": (
        lambda: nnx.LayerNorm(6, use_fast_variance=False, **RNGS),
        lambda: torch.nn.LayerNorm(6),
        "the module itself: eps 1e-06 in Flax, 1e-05 in PyTorch",
    ),
    "groups": (
        lambda: nnx.GroupNorm(6, 2, epsilon=1e-5, **RNGS),
        lambda: torch.nn.GroupNorm(3, 6),
        "the module itself: groups 2 in Flax, 3 in PyTorch",
    ),
    "stride": (
        lambda: nnx.Sequential(Conv(6, 4, (3, 3), stride=2, **RNGS), lambda x: x.mean((1, 2), keepdims=True)),
        lambda: torch.nn.Sequential(torch.nn.Conv2d(6, 4, 3, 3), torch.nn.AdaptiveAvgPool2d(1)),
        "0: stride 2 in Flax, 3 in PyTorch",
    ),
    "dilation": (
        lambda: Conv(6, 4, (3, 3), padding=2, dilation=2, **RNGS),
        lambda: torch.nn.Conv2d(6, 4, 3, padding=1),
        "dilation 2 in Flax, 1 in PyTorch",
    ),
    "padding on one side": (
        lambda: nnx.Conv(6, 4, (3, 3), padding=[(0, 2), (1, 1)], **RNGS),
        lambda: torch.nn.Conv2d(6, 4, 3, padding=1),
        "padding ((0, 2), 1) in Flax, 1 in PyTorch",
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_setting_of_a_single_layer_is_explained(name):
    ours, theirs, expected = LAYERS[name]
    x, options = (ROWS, {}) if "LayerNorm" in name else (X, MAP)
    assert expected in told((ours(), theirs(), x, options), "eval")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (same, torch.sigmoid, "input of b: equal after sigmoid, which Flax lacks"),
        (nnx.relu, same, "input of b: equal after relu, which PyTorch lacks"),
        (nnx.relu, torch.nn.functional.silu, "input of b: relu in Flax, silu in PyTorch"),
        (partial(nnx.leaky_relu, negative_slope=0.01), torch.relu, "equal after leaky_relu|relu, which Flax lacks"),
    ],
)
def test_another_activation_is_explained(ours, theirs, expected):
    assert re.search(expected, told((Applied(ours), TorchApplied(theirs), ROWS, {}), "eval"))


def test_an_activation_before_a_flattening_is_explained():
    class Ours(nnx.Module):
        def __init__(self):
            self.a, self.b = Conv(6, 4, 1, **RNGS), Linear(4 * 5 * 5, 3, **RNGS)

        def __call__(self, x):
            return self.b(nnx.gelu(self.a(x)).transpose(0, 3, 1, 2).reshape(len(x), -1))

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(6, 4, 1), torch.nn.Linear(4 * 5 * 5, 3)

        def forward(self, x):
            return self.b(torch.nn.functional.gelu(self.a(x)).flatten(1))

    x = np.random.default_rng(0).standard_normal((2, 6, 5, 5))
    options = {"layouts": {"inputs": ["b c h w -> b h w c"]}}
    assert "input of b: approximate gelu in Flax, exact gelu in PyTorch" in told((Ours(), Theirs(), x, options), "eval")


def test_a_square_convolution_kernel_is_explained():
    class Untransposed(Conv):
        def __call__(self, x):
            self.kernel.set_value(self.kernel[...].transpose(0, 1, 3, 2))
            return super().__call__(x)

    pair = Untransposed(6, 6, (3, 3), padding=1, **RNGS), torch.nn.Conv2d(6, 6, 3, padding=1), X, MAP
    assert "the module itself: equal when kernel is transposed" in told(pair, "eval")


def test_arguments_of_attention_in_another_order_are_explained():
    class Scores(nnx.Module):
        def __call__(self, query, key):
            return nnx.softmax(query @ key.mT, axis=-1)

    class TorchScores(torch.nn.Module):
        def forward(self, query, key):
            return torch.softmax(query @ key.mT, -1)

    class Around(nnx.Module):
        def __init__(self):
            self.scores = Scores()

        def __call__(self, x, y):
            return self.scores(y, x)

    class TorchAround(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scores = TorchScores()

        def forward(self, x, y):
            return self.scores(x, y)

    report = compare(Around(), TorchAround(), ROWS, 2 * ROWS[::-1].copy(), dtypes=["float64"], modes=["eval"])
    assert "scores: its first two arguments are swapped" in report.explanations


def test_many_layers_with_one_mistake_are_one_line():
    ours = nnx.Sequential(*(LayerNorm(6, eps=1e-3, **RNGS) for _ in range(4)))
    theirs = torch.nn.Sequential(*(torch.nn.LayerNorm(6) for _ in range(4)))
    assert "\n0 and 3 more: eps 0.001 in Flax, 1e-05 in PyTorch\n" in told((ours, theirs, ROWS, {}), "eval")


def test_what_is_not_recognised_is_not_explained():
    assert compare(Applied(jnp.cos), TorchApplied(torch.sin), ROWS, dtypes=["float64"]).explanations == []


def test_a_right_port_has_no_explanation():
    report = compare(Applied(jnp.sin), TorchApplied(torch.sin), ROWS, dtypes=["float64"])
    assert report.ok
    assert report.explanations == []
    assert replace(report).finding is None


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        (MaxPool(3, 2, ceil_mode=True), torch.nn.MaxPool2d(3, 2, 1), "0: padding 0 in Flax, 1 in PyTorch"),
        (AvgPool(3, 2, ceil_mode=True), torch.nn.AvgPool2d(3, 2, 1), "0: padding 0 in Flax, 1 in PyTorch"),
    ],
)
def test_the_padding_of_a_pooling_layer_is_read(ours, theirs, says):
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 10))
    maps = "b c h w -> b h w c"
    pair = nnx.Sequential(ours), torch.nn.Sequential(theirs), x, {"layouts": {"inputs": [maps], "outputs": [maps]}}
    assert says in told(pair, "eval")
