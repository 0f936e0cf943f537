"""All tolerances; a test over the syntax tree finds any elsewhere.

A relative error is ``norm(got - reference) / norm(reference)`` over one tensor. The reference is PyTorch's float64
result, also for the narrower dtypes, on weights and inputs rounded to that dtype: tested is how far *our* float32 is
from the truth, not from PyTorch's float32, which in places is less accurate than ours.

Loosening a row, or adding one to `EXCEPTIONS`, needs a reason beside it.
"""

QUANTITIES = ("output", "map", "parameter gradient", "input gradient", "buffer")
# After a number of optimizer steps, in float64 only: float32 trajectories diverge by themselves.
TRAINED = ("loss", "trained parameter", "trained buffer")
DTYPES = ("float64", "float32", "bfloat16")

TABLE: dict[tuple[str, str, str], float] = {
    ("output", "float64", "cpu"): 1e-12,
    ("map", "float64", "cpu"): 1e-12,
    ("parameter gradient", "float64", "cpu"): 1e-12,
    ("input gradient", "float64", "cpu"): 1e-12,
    ("buffer", "float64", "cpu"): 1e-12,
    ("loss", "float64", "cpu"): 1e-9,
    ("trained parameter", "float64", "cpu"): 1e-9,
    ("trained buffer", "float64", "cpu"): 1e-9,
    ("output", "float32", "cpu"): 2e-6,
    ("map", "float32", "cpu"): 2e-6,
    ("parameter gradient", "float32", "cpu"): 2e-5,
    ("input gradient", "float32", "cpu"): 2e-5,
    ("buffer", "float32", "cpu"): 2e-6,
    # For outputs float32's, times the 2**16 between the two roundings. Gradients that are a single number are
    # off by up to a half, as a maximum may fall on another element, and its gradient with it. Below 1: a gradient that
    # is zero is off by 1. What is meaningful about bfloat16 is the ratio to PyTorch's own error, `RATIOS`.
    ("output", "bfloat16", "cpu"): 0.13,
    ("map", "bfloat16", "cpu"): 0.13,
    ("parameter gradient", "bfloat16", "cpu"): 0.8,
    ("input gradient", "bfloat16", "cpu"): 0.8,
    ("buffer", "bfloat16", "cpu"): 0.13,
    # The same run twice, its float32 sums taken in another order: over a few steps the difference grows.
    ("training error", "float32", "cpu"): 1e-3,
    # The loss of one training step, ours against PyTorch's, from equal weights on equal batches (train/compare.py). In
    # float64 at each step; in float32 where `NOISE_FACTOR` times the spread of PyTorch's own runs is less.
    ("step loss", "float64", "cpu"): 1e-8,
    ("step loss", "float32", "cpu"): 1e-5,
    # Of training on several devices or in several processes against training on one; in float32 over the first ten
    # steps, as sums in another order part any two runs after that.
    ("step loss elsewhere", "float64", "cpu"): 1e-10,
    ("step loss elsewhere", "float32", "cpu"): 1e-5,
}

EXCEPTIONS: dict[tuple[str, str, str, str], tuple[float, str]] = {}
"""(case, quantity, dtype, backend) to (tolerance, reason)."""

_RESNET_50 = (
    {"input gradient": 3e-12, "parameter gradient": 3e-12},
    "9.9e-13 measured: 53 layers that follow each other round, and norms over eight values in the last stage",
)
_CANCELLED = (
    {"input gradient": 3e-12, "parameter gradient": 6e-12},
    "gradients of norms in its attention are sums that nearly cancel: with the batch in another order the original's "
    "own differ by 1.5e-12 (CBAM) and 2.9e-12 (SK)",
)
ORIGINALS: dict[str, tuple[dict[str, float], str]] = {
    "ResNet, torchvision.models:resnet50": _RESNET_50,
    "ResNet, pytorchcv.models.resnet:resnet50": _RESNET_50,
    "ResNet, pytorchcv.models.cbamresnet:cbam_resnet50": _CANCELLED,
    "ResNet, timm.models:skresnet50": _CANCELLED,
    "DifferentialAttention, timm.layers:DiffAttention": (
        {"output": 3e-7, "input gradient": 4e-7, "parameter gradient": 1e-6},
        "the exponentials whose difference weighs the second softmax are float32; with dual_lambda they are not, and "
        "all of it is held to float64",
    ),
    "AttentionPool2d, timm.layers.attention_pool2d:AttentionPool2d, another size": (
        {"output": 3e-8, "input gradient": 4e-8, "parameter gradient": 3e-7},
        "it resizes the table in float32",
    ),
    "RotaryAttentionPool2d, timm.layers.attention_pool2d:RotAttentionPool2d": (
        {"output": 4e-8, "input gradient": 8e-8, "parameter gradient": 1e-7},
        "its sines and cosines are float32; the one query is not turned, so they reach the output by the keys alone",
    ),
    "RotaryAttentionPool2d, timm.layers.attention_pool2d:RotAttentionPool2d, map": (
        {"output": 2e-7, "input gradient": 4e-7, "parameter gradient": 4e-7},
        "its sines and cosines are float32",
    ),
    "EffectiveSqueezeExcite, timm.layers:EffectiveSEModule": (
        {"input gradient": 5e-9, "parameter gradient": 5e-8},
        "the gradient of PyTorch's hardsigmoid is 1/6 in float32, in float64 too; most of the input's goes past it",
    ),
}
"""(tolerances, reason) by the name of an original (torch_ref/originals) that computes a part in float32 or is deep: of
the quantities that this affects, about three times what is measured. The others are held to `TABLE`."""

RATIOS: dict[str, tuple[float, float]] = {"float32": (1.0, 3.0), "bfloat16": (1.2, 4.0)}
"""Our error over PyTorch's own, both against float64, pooled per case: the geometric mean over all cases may be at most
the first number, and no case above the second one."""

UNITS: dict[str, float] = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7}
"""One unit in the last place of 1. Errors below it are raised to it: they do not say who is better."""

# The relative errors in float64 that rounding to float32 somewhere inside makes: from a small part of a sum to all of a
# deep network, whose layers amplify it.
FLOAT32_SIZES = (1e-9, 1e-4)

# Documented figures are stale if current ones differ by more than this factor; another CPU, which sums in another
# order, stays within it.
STALE = 100.0

# Where a tensor is the remainder of larger sums, a result may be off by what PyTorch's moves when all its arithmetic is
# off by the tolerance of an output (`flax_attn.testing.rounding`). The largest of some random runs measures that; it
# falls short of the worst case by less than this factor. What is all or nothing, a saturated gate about to turn say,
# takes a few runs to happen.
NOISE_RUNS = 32
NOISE_SIZES = 8  # each of them half the one before: in bfloat16 down to less than one unit in the last place
NOISE_FACTOR = 4.0

# A network of any depth may be off by as much, times the same factor, when all its arithmetic is off by these units in
# the last place, in turn. A float64 sum hardly ever takes a ReLU or a maximum across a kink; in the narrow dtypes it
# happens now and then, changes all gradients before it, and takes more runs to be seen.
NOISE_UNITS = (1.0, 2.0, 4.0)
WIDENING_RUNS = {"float64": 3, "float32": 24, "bfloat16": 12}

# A hypothesis about a mistake explains a difference of which it leaves no more than this.
EXPLAINED = 0.01

# A gradient with less than this share of the norm of all gradients, in PyTorch's float64, is zero but for rounding.
ZERO = 1e-12

UNDERFLOW: dict[str, float] = {"float64": 2.0**-511, "float32": 2.0**-63, "bfloat16": 2.0**-63}
"""The root of the smallest normal number: what is smaller has 0 as its square. Next to saturation there are such."""

# Statistical tests of initial values and dropout rates: the probability that a correct sample is rejected.
P_VALUE = 1e-4


def table(backend: str = "cpu", case: str = "", precision: str = "highest") -> dict[tuple[str, str], float]:
    """All tolerances by (quantity, dtype), the ``tolerances`` of `flax_attn.testing.compare` that nothing widens.

    Args:
        backend: as for `tolerance`.
        case: likewise.
        precision: likewise.

    Example:
        >>> table()["output", "float64"] == tolerance("output", "float64")
        True
    """
    rows = dict.fromkeys((quantity, dtype) for quantity, dtype, _ in TABLE if quantity in (*QUANTITIES, *TRAINED))
    return {row: tolerance(*row, backend, case, precision) for row in rows}


def tolerance(quantity: str, dtype: str, backend: str = "cpu", case: str = "", precision: str = "highest") -> float:
    """The largest relative error that ``quantity`` may have.

    Args:
        quantity: one of `QUANTITIES` or `TRAINED`.
        dtype: one of `DTYPES`.
        backend: "cpu", "gpu" or "tpu". A backend without rows of its own uses the CPU's.
        case: the name of a case, for its exceptions.
        precision: of matrix products. Off the CPU anything but "highest" rounds operands to a narrower type (TF32,
            bfloat16), and float32 uses bfloat16's row.

    Raises:
        ValueError: there is no such row.

    Example:
        >>> tolerance("output", "float64") < tolerance("output", "float32")
        True
    """
    if precision != "highest" and backend != "cpu" and dtype == "float32":
        dtype = "bfloat16"
    for held_to in (backend, "cpu"):
        if (case, quantity, dtype, held_to) in EXCEPTIONS:
            return EXCEPTIONS[case, quantity, dtype, held_to][0]
        if (quantity, dtype, held_to) in TABLE:
            return TABLE[quantity, dtype, held_to]
    raise ValueError(f"(quantity, dtype) must be a row of the tolerance table, got {(quantity, dtype)}")
