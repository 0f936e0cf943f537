"""Every rule, against the function of PyTorch's layer: the same numbers out, and the same bits back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn import layers
from flax_attn.testing import relative_error, tolerance

F64 = {"param_dtype": jnp.float64}
# Drawing a kernel that is overwritten compiles a program per shape.
ZEROS = {"kernel_init": nnx.initializers.zeros}
KERNEL = {**ZEROS, **F64}


def randomise(module):
    """Weights in which nothing is symmetric, equal or negligible; variances stay positive."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                drawn = torch.randn(tensor.shape, generator=generator)
                tensor.copy_(drawn.abs() + 0.5 if name.endswith("running_var") else drawn)
    return module


def moved(x):
    """Channels first to channels last."""
    return np.moveaxis(x, 1, -1)


def same(x):
    return x


def pads(kernel, *, padding, output_padding=0, dilation=1):
    """PyTorch's padding of a transposed convolution, as Flax counts it."""
    return [(dilation * (k - 1) - padding, dilation * (k - 1) - padding + output_padding) for k in kernel]


def conv(rank, in_features, out_features, kernel, *, padding=0, groups=1, stride=1, dilation=1):
    ours = lambda r: nnx.Conv(  # noqa: E731
        in_features,
        out_features,
        kernel,
        strides=stride,
        padding=[(padding, padding)] * rank,
        kernel_dilation=dilation,
        feature_group_count=groups,
        rngs=r,
        **KERNEL,
    )
    layer = getattr(torch.nn, f"Conv{rank}d")
    return ours, layer(in_features, out_features, kernel, stride, padding, dilation, groups)


def conv_transpose(rank, in_features, out_features, kernel, *, transposed, stride=1, padding=0, extra=0, dilation=1):
    ours = lambda r: nnx.ConvTranspose(  # noqa: E731
        in_features,
        out_features,
        kernel,
        strides=(stride,) * rank,
        padding=pads(kernel, padding=padding, output_padding=extra, dilation=dilation),
        kernel_dilation=dilation,
        transpose_kernel=transposed,
        rngs=r,
        **KERNEL,
    )
    layer = getattr(torch.nn, f"ConvTranspose{rank}d")
    return ours, layer(in_features, out_features, kernel, stride, padding, extra, dilation=dilation)


TWO_SETTINGS = {"epsilon": 1e-5, "use_fast_variance": False}

CASES = {
    "Linear": ((lambda r: nnx.Linear(3, 5, rngs=r, **KERNEL), torch.nn.Linear(3, 5)), (7, 3), same),
    "square Linear": ((lambda r: nnx.Linear(5, 5, rngs=r, **KERNEL), torch.nn.Linear(5, 5)), (7, 5), same),
    "Linear without bias": (
        (lambda r: nnx.Linear(3, 5, use_bias=False, rngs=r, **KERNEL), torch.nn.Linear(3, 5, bias=False)),
        (7, 3),
        same,
    ),
    "LinearGeneral": ((lambda r: nnx.LinearGeneral(3, 5, rngs=r, **KERNEL), torch.nn.Linear(3, 5)), (7, 3), same),
    "Conv1d": (conv(1, 4, 6, (3,), groups=2, stride=2, dilation=2, padding=1), (2, 4, 11), moved),
    "Conv2d": (conv(2, 4, 6, (3, 5), groups=2, stride=2, padding=1), (2, 4, 11, 7), moved),
    "square Conv2d": (conv(2, 3, 3, (3, 3)), (2, 3, 5, 7), moved),
    "depthwise Conv2d": (conv(2, 3, 6, (3, 3), groups=3), (2, 3, 5, 7), moved),
    "Conv3d": (conv(3, 4, 6, (3, 2, 5), groups=2, padding=1), (2, 4, 5, 3, 7), moved),
    "BatchNorm1d": ((lambda r: layers.BatchNorm(3, rngs=r, **F64), torch.nn.BatchNorm1d(3)), (7, 3), same),
    "BatchNorm2d": (
        (lambda r: nnx.BatchNorm(3, use_running_average=True, rngs=r, **F64), torch.nn.BatchNorm2d(3)),
        (2, 3, 5, 7),
        moved,
    ),
    "BatchNorm3d without weights": (
        (
            lambda r: nnx.BatchNorm(3, use_scale=False, use_bias=False, use_running_average=True, rngs=r, **F64),
            torch.nn.BatchNorm3d(3, affine=False),
        ),
        (2, 3, 5, 7, 1),
        moved,
    ),
    "LayerNorm": (
        (lambda r: nnx.LayerNorm(5, rngs=r, **TWO_SETTINGS, **F64), torch.nn.LayerNorm(5)),
        (3, 7, 5),
        same,
    ),
    "LayerNorm without bias": (
        (
            lambda r: nnx.LayerNorm(5, use_bias=False, rngs=r, **TWO_SETTINGS, **F64),
            torch.nn.LayerNorm(5, bias=False),
        ),
        (3, 7, 5),
        same,
    ),
    "our LayerNorm": ((lambda r: layers.LayerNorm(5, rngs=r, **F64), torch.nn.LayerNorm(5)), (3, 7, 5), same),
    "GroupNorm": (
        (lambda r: nnx.GroupNorm(6, num_groups=2, rngs=r, **TWO_SETTINGS, **F64), torch.nn.GroupNorm(2, 6)),
        (3, 6, 5, 7),
        moved,
    ),
    "InstanceNorm": (
        (lambda r: nnx.InstanceNorm(3, rngs=r, **TWO_SETTINGS, **F64), torch.nn.InstanceNorm2d(3, affine=True)),
        (2, 3, 5, 7),
        moved,
    ),
    "InstanceNorm without weights": (
        (
            lambda r: nnx.InstanceNorm(3, use_scale=False, use_bias=False, rngs=r, **TWO_SETTINGS, **F64),
            torch.nn.InstanceNorm1d(3),
        ),
        (2, 3, 5),
        moved,
    ),
    "RMSNorm": (
        (lambda r: nnx.RMSNorm(5, epsilon=1e-5, rngs=r, **F64), torch.nn.RMSNorm(5, eps=1e-5)),
        (3, 7, 5),
        same,
    ),
    "PReLU": ((lambda r: nnx.PReLU(**F64), torch.nn.PReLU()), (3, 7), same),
    **{
        f"{name}, transpose_kernel={transposed}": (conv_transpose(*args, transposed=transposed, **options), x, moved)
        for transposed in (True, False)
        for name, args, options, x in [
            ("ConvTranspose1d", (1, 3, 5, (2,)), {"stride": 3}, (2, 3, 7)),
            (
                "ConvTranspose2d",
                (2, 3, 5, (3, 2)),
                {"stride": 2, "padding": 1, "extra": 1, "dilation": 2},
                (2, 3, 5, 7),
            ),
            ("square ConvTranspose2d", (2, 3, 3, (3, 3)), {"stride": 2, "padding": 1}, (2, 3, 5, 7)),
            ("ConvTranspose3d", (3, 2, 3, (2, 3, 5)), {"stride": 2, "padding": 1}, (2, 2, 5, 3, 7)),
        ]
    },
}


@pytest.mark.parametrize("name", CASES)
def test_equal_functions_and_equal_bits_back(name):
    (make_ours, theirs), shape, layout = CASES[name]
    given = randomise(theirs).state_dict()
    x = np.random.default_rng(0).standard_normal(shape)
    with jax.enable_x64(True):
        ours = flax_attn.from_torch(make_ours(nnx.Rngs(0)), given)
        if isinstance(ours, layers.BatchNorm):
            ours.eval()
        got = np.asarray(ours(jnp.asarray(layout(x))))
        back = flax_attn.to_torch(ours)
    wanted = layout(theirs.double().eval()(torch.from_numpy(x)).detach().numpy())
    assert relative_error(got, wanted) <= tolerance("output", "float64")
    assert list(back) == list(given)
    for entry, tensor in given.items():
        np.testing.assert_array_equal(back[entry], tensor.numpy())


def test_embedding_looks_up_the_same_rows():
    theirs = randomise(torch.nn.Embedding(7, 3))
    ours = flax_attn.from_torch(nnx.Embed(7, 3, rngs=nnx.Rngs(0)), theirs.state_dict())
    rows = np.array([[5, 0, 6], [2, 2, 1]])
    np.testing.assert_array_equal(ours(jnp.asarray(rows)), theirs(torch.from_numpy(rows)).detach().numpy())


@pytest.mark.parametrize(
    ("make", "in_axes", "out_axes"),
    [
        (lambda r: nnx.LinearGeneral(5, (2, 3), rngs=r, **KERNEL), (5,), (2, 3)),
        (lambda r: nnx.LinearGeneral((2, 3), 5, axis=(-2, -1), rngs=r, **KERNEL), (2, 3), (5,)),
        (lambda r: nnx.LinearGeneral((2, 3), (3, 2), axis=(-2, -1), rngs=r, **KERNEL), (2, 3), (3, 2)),
    ],
)
def test_a_general_linear_is_a_linear_over_flattened_axes(make, in_axes, out_axes):
    theirs = randomise(torch.nn.Linear(int(np.prod(in_axes)), int(np.prod(out_axes))))
    given = theirs.state_dict()
    x = np.random.default_rng(0).standard_normal((7, 11, *in_axes))
    with jax.enable_x64(True):
        ours = flax_attn.from_torch(make(nnx.Rngs(0)), given)
        got = np.asarray(ours(jnp.asarray(x)))
        back = flax_attn.to_torch(ours)
    wanted = theirs.double()(torch.from_numpy(x.reshape(7, 11, -1))).detach().numpy().reshape(7, 11, *out_axes)
    assert relative_error(got, wanted) <= tolerance("output", "float64")
    for entry, tensor in given.items():
        np.testing.assert_array_equal(back[entry], tensor.numpy())


def test_a_general_linear_with_batch_axes_has_no_counterpart():
    layer = nnx.LinearGeneral(5, 3, batch_axis={0: 2}, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"conversion rule of LinearGeneral at 'inner': batch_axis must be empty"):
        flax_attn.to_torch(nnx.Dict(inner=layer))


@pytest.mark.parametrize(
    ("ours", "theirs", "lines"),
    [
        (
            lambda r: nnx.ConvTranspose(4, 6, (3,), rngs=r, **ZEROS),
            torch.nn.ConvTranspose1d(4, 6, 3, groups=2),
            ["weight: expected shape (4, 6, 3), got (4, 3, 3)"],
        ),
        (
            lambda r: nnx.ConvTranspose(4, 6, (3, 5), transpose_kernel=True, rngs=r, **ZEROS),
            torch.nn.ConvTranspose2d(4, 6, (5, 3)),
            ["weight: expected shape (4, 6, 3, 5), got (4, 6, 5, 3)"],
        ),
        (lambda r: nnx.PReLU(), torch.nn.PReLU(5), ["weight: expected shape (1,), got (5,)"]),
        (
            lambda r: nnx.LinearGeneral(5, (2, 3), rngs=r, **ZEROS),
            torch.nn.Linear(6, 5),
            ["weight: expected shape (6, 5), got (5, 6)", "bias: expected shape (6,), got (5,)"],
        ),
        (
            lambda r: nnx.BatchNorm(3, rngs=r),
            torch.nn.BatchNorm2d(3, affine=False),
            ["weight: expected shape (3,), got nothing", "bias: expected shape (3,), got nothing"],
        ),
        (
            lambda r: layers.BatchNorm(3, rngs=r),
            torch.nn.BatchNorm2d(3, track_running_stats=False),
            ["running_mean: expected shape (3,), got nothing", "running_var: expected shape (3,), got nothing"],
        ),
        (
            lambda r: nnx.BatchNorm(3, use_scale=False, use_bias=False, rngs=r),
            torch.nn.BatchNorm2d(3),
            [
                "weight: expected no such entry, got torch.float32 of shape (3,)",
                "bias: expected no such entry, got torch.float32 of shape (3,)",
            ],
        ),
        (
            lambda r: nnx.InstanceNorm(3, rngs=r),
            torch.nn.InstanceNorm2d(3),
            ["weight: expected shape (3,), got nothing", "bias: expected shape (3,), got nothing"],
        ),
        (lambda r: nnx.LayerNorm(5, rngs=r), torch.nn.LayerNorm((3, 5)), ["(5,), got (3, 5)", "(5,), got (3, 5)"]),
    ],
)
def test_what_has_no_counterpart_is_named(ours, theirs, lines):
    with pytest.raises(ValueError, match="does not fit") as error:
        flax_attn.from_torch(ours(nnx.Rngs(0)), theirs.state_dict())
    found = str(error.value).splitlines()[1:]
    assert len(found) == len(lines)
    assert all(expected in line for line, expected in zip(found, lines, strict=True))


def test_random_streams_are_no_entries():
    rngs = nnx.Rngs(0)
    module = nnx.Dict(dropout=nnx.Dropout(0.5, rngs=rngs), ours=layers.Dropout(0.5, rngs=rngs))
    module.rngs = rngs
    module.linear = nnx.Linear(3, 5, rngs=rngs)
    assert list(flax_attn.to_torch(module)) == ["linear.weight", "linear.bias"]
