"""The planted faults of attention in windows, blocks and neighbourhoods."""

from .faults import Fault
from .planting import after, arguments, built, constant, wrap


def sides_swapped(right, query, key, value, height_rel, width_rel, **options):
    return right(query, key, value, width_rel, height_rel, **options)


def distances_reversed(right, query, key, value, height_rel, width_rel, **options):
    return right(query, key, value, height_rel[::-1], width_rel, **options)


def kernel_turned(right, x, kernel, *args, **options):
    return right(x, kernel[::-1, ::-1], *args, **options)


def setting(**values):
    def change(block):
        for name, value in values.items():
            setattr(block, name, value)

    return change


FAULTS: tuple[Fault, ...] = (
    Fault(
        "the key's position relative to the query",
        after("ops.relative_position_index", lambda index: index.T),
        "WindowAttention",
        found=("proj", "output"),
        given=True,
    ),
    Fault(
        "scores that are not scaled",
        arguments("ops.dot_product_attention", temperature=1.0),
        "WindowAttention",
        found=("proj", "output"),
        given=True,
    ),
    Fault(
        "a mask for the windows of another map",
        after("ops.repeat_windows", lambda x: x[::-1]),
        "ShiftedWindowAttention",
        found=("proj", "output"),
        given=True,
    ),
    Fault(
        "parts of a shifted window not kept apart",
        constant("blocks.window.APART", 0.0),
        "ShiftedWindowAttention",
        found=("proj", "output"),
        given=True,
    ),
    Fault(
        "places of a window in reverse order",
        after("ops.window_partition", lambda windows: windows[:, ::-1]),
        "ShiftedWindowAttention, one axis",
        found=("qkv", "output"),
        given=True,
    ),
    Fault(
        "the eps of the blocks' norms in the reduction's",
        arguments("layers.LayerNorm", eps=1e-6),
        "SpatialReductionAttention",
        found=("norm", "output"),
    ),
    Fault(
        "no temperature, with reduced keys",
        arguments("ops.dot_product_attention", temperature=1.0),
        "SpatialReductionAttention, linear",
        found=("proj", "output"),
        given=True,
    ),
    Fault(
        "GELU by a tanh",
        arguments("layers.GELU", approximate="tanh"),
        "FocalModulation",
        found=("focal_layers.0.1", "output"),
    ),
    Fault(
        "the modulator not divided",
        built("FocalModulation", setting(normalize_modulator=False)),
        "FocalModulation, normalised",
        found=("h", "output"),
        given=True,
    ),
    Fault(
        "overlaps averaged instead of summed",
        after("ops.fold", lambda x: x / 9),
        "OutlookAttention",
        found=("proj", "output"),
        given=True,
    ),
    Fault(
        "windows with rows for columns",
        after("ops.unfold", lambda x: x.swapaxes(3, 4)),
        "OutlookAttention, stride",
        found=("proj", "output"),
        given=True,
    ),
    Fault(
        "padding not hidden",
        built("HaloAttention", setting(mask_padding=False)),
        "HaloAttention, masked",
        found=("proj", "output"),
        given=True,
    ),
    Fault("tables of rows and columns swapped", wrap("ops.relative_attention", sides_swapped), "HaloAttention"),
    Fault("positions scaled", arguments("ops.relative_attention", scale_positions=True), "BottleneckAttention"),
    Fault(
        "distances of rows reversed", wrap("ops.relative_attention", distances_reversed), "BottleneckAttention, stride"
    ),
    Fault(
        "the eps of a lambda's norms",
        arguments("layers.BatchNorm", eps=1e-3),
        "LambdaLayer",
        found=("norm_q", "output"),
    ),
    Fault("places reversed in a table", wrap("ops.conv_general_dilated", kernel_turned), "LambdaLayer, of all"),
)
