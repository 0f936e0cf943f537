"""Checkpoints of another variant of a block: the error says with which arguments they would fit, and that is true."""

import ast
import inspect
import re

import numpy as np
import pytest
from flax import nnx

import flax_attn
from flax_attn import registry
from flax_attn.blocks.window import WindowAttention
from flax_attn.convert.walk import entries
from flax_attn.networks.resnet import ResNet

RNGS = nnx.Rngs(0)


def errors(module, state_dict):
    with pytest.raises(ValueError, match="does not fit") as error:
        flax_attn.from_torch(module, state_dict)
    return str(error.value).splitlines()[1:]


def hinted(lines):
    return [line.strip() for line in lines if "would fit" in line]


BLOCKS = [
    ("SqueezeExcite", {"channels": 64}, {"rd_channels": 4}),
    ("SqueezeExcite", {"channels": 64}, {"bias": False}),
    ("ChannelGate", {"gate_channels": 64}, {"reduction_ratio": 8}),
    ("CBAM", {"gate_channels": 64}, {"reduction_ratio": 8}),
    ("CBAM", {"gate_channels": 64}, {"no_spatial": False}),
    ("CBAM", {"gate_channels": 64}, {"reduction_ratio": 8, "no_spatial": False}),
    ("BAM", {"gate_channel": 64}, {"reduction_ratio": 8}),
    ("SCSE", {"in_channels": 64}, {"reduction": 8}),
    ("EfficientChannelAttention", {}, {"kernel_size": 7}),
    ("SelectiveKernel", {"in_channels": 32}, {"split_input": False}),
    ("GlobalContext", {"channels": 64}, {"fuse_add": True}),
    ("MultiSpectralAttention", {"channel": 64, "dct_h": 7, "dct_w": 7}, {"reduction": 8}),
    ("StripAttention", {"channels": 64}, {"kernel_size": 5}),
    ("ExternalAttention", {"d_model": 64}, {"memories": 32}),
    ("SpatialGroupEnhance", {"groups": 64}, {"groups": 8}),
    ("HaloAttention", {"dim": 16, "num_heads": 2, "block_size": 8}, {"block_size": 4}),
    ("FocalModulation", {"dim": 6, "focal_window": 3, "focal_level": 2}, {"focal_level": 3}),
    ("MultiQueryAttention2d", {"dim": 16, "num_heads": 4, "kv_stride": 1}, {"kv_stride": 2}),
    ("BottleneckAttention", {"dim": 16, "num_heads": 2, "feat_size": (14, 14)}, {"feat_size": (5, 24)}),
    ("AttentionPool2d", {"in_features": 32, "num_heads": 4, "feat_size": (7, 7)}, {"feat_size": (12, 12)}),
    ("OutlookAttention", {"dim": 64, "num_heads": 4}, {"kernel_size": 5}),
]


@pytest.mark.parametrize(("name", "args", "others"), BLOCKS)
def test_a_block_of_another_width_or_kernel(name, args, others):
    cls = getattr(flax_attn, name)
    for mine, theirs in ((args, {**args, **others}), ({**args, **others}, args)):
        given = flax_attn.to_torch(cls(**theirs, rngs=RNGS))
        (hint,) = hinted(errors(cls(**mine, rngs=RNGS), given))
        found = re.fullmatch(rf"{name}\((.*)\) would fit", hint)
        arguments = {key: ast.literal_eval(value) for key, value in re.findall(r"(\w+)=([^=]+)(?:, |$)", found[1])}
        usual = {name: one.default for name, one in inspect.signature(cls.__init__).parameters.items()}
        assert {name: value for name, value in theirs.items() if value != usual[name]}.items() <= arguments.items()
        flax_attn.from_torch(cls(**arguments, rngs=RNGS), given)


def shapes_of(cls, args):
    return nnx.eval_shape(lambda: cls(**args, rngs=nnx.Rngs(0)))


def test_a_block_that_is_not_in_the_registry():
    others = shapes_of(WindowAttention, {"dim": 12, "num_heads": 3, "window_size": (4, 4)})
    lines = errors(WindowAttention(12, 3, window_size=(7, 7), rngs=RNGS), weights_of(others))
    assert hinted(lines) == ["WindowAttention(dim=12, num_heads=3, head_dim=4, window_size=(4, 4)) would fit"]


@pytest.mark.parametrize("entry", list(registry.BLOCKS), ids=lambda entry: entry.name)
def test_no_candidate_raises(entry):
    """A checkpoint of other sizes, beside an entry that no argument explains."""
    mine, theirs = (shapes_of(entry.block, entry.arguments(*size)) for size in ((64, (8, 8)), (96, (12, 12))))
    lines = errors(mine, {**weights_of(theirs), "more": np.broadcast_to(np.float32(0), (3, 2500))})
    assert hinted(lines) == []
    assert not [line for line in lines if "conversion rule" in line]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("HaloAttention", {"dim": 64}),
        ("SplitAttention", {"in_channels": 64, "norm": True}),
        ("BottleneckAttention", {"dim": 64}),
    ],
)
def test_what_is_there_already_is_no_hint(name, args):
    cls, size = getattr(flax_attn, name), {"feat_size": (8, 8)} if name == "BottleneckAttention" else {}
    first, other = ({"qkv_bias": True}, {}) if name != "SplitAttention" else ({"bias": True}, {})
    lines = errors(shapes_of(cls, {**args, **size, **other}), weights_of(shapes_of(cls, {**args, **size, **first})))
    (hint,) = hinted(lines)
    assert "dim_out" not in hint
    assert "padding" not in hint


def test_the_entries_are_named_beside_the_hint():
    given = flax_attn.to_torch(flax_attn.SqueezeExcite(64, rd_channels=4, rngs=RNGS))
    assert [line.strip() for line in errors(flax_attn.SqueezeExcite(64, rngs=RNGS), given)] == [
        "fc1.weight: expected shape (8, 64, 1, 1), got (4, 64, 1, 1)",
        "fc1.bias: expected shape (8,), got (4,)",
        "fc2.weight: expected shape (64, 8, 1, 1), got (64, 4, 1, 1)",
        "SqueezeExcite(channels=64, rd_channels=4) would fit",
    ]


def test_a_kernel_that_the_channels_set():
    given = flax_attn.to_torch(flax_attn.EfficientChannelAttention(kernel_size=7, rngs=RNGS))
    lines = errors(flax_attn.EfficientChannelAttention(64, rngs=RNGS), given)
    assert hinted(lines) == ["EfficientChannelAttention(kernel_size=7) would fit"]


@pytest.mark.parametrize(
    ("module", "state_dict"),
    [
        (flax_attn.SqueezeExcite(64, rngs=RNGS), flax_attn.SqueezeExcite(32, rngs=RNGS)),
        (flax_attn.CBAM(64, rngs=RNGS), flax_attn.SqueezeExcite(64, rngs=RNGS)),
        (flax_attn.layers.Linear(3, 5, rngs=RNGS), flax_attn.layers.Linear(3, 4, rngs=RNGS)),
    ],
)
def test_no_hint_where_no_argument_fits(module, state_dict):
    assert hinted(errors(module, flax_attn.to_torch(state_dict))) == []


def test_a_block_within_a_network():
    class Net(nnx.Module):
        def __init__(self, **args):
            self.first = flax_attn.CBAM(16, 8, rngs=RNGS)
            self.second = flax_attn.CBAM(64, **args, rngs=RNGS)

    lines = errors(Net(), flax_attn.to_torch(Net(reduction_ratio=4)))
    assert hinted(lines) == ["CBAM(gate_channels=64, reduction_ratio=4) would fit second"]


def resnet(attention, args):
    """Shapes alone: a whole network takes long to make."""
    return nnx.eval_shape(lambda: ResNet(18, attention, 3, attention_args=args, rngs=nnx.Rngs(0)))


def weights_of(network):
    return {name: np.broadcast_to(np.float32(0), entry.shape) for name, entry in entries(network).items()}


@pytest.mark.parametrize(
    ("attention", "args", "others"),
    [
        ("squeeze_excite", {}, {"rd_divisor": 1}),
        ("squeeze_excite", {"rd_divisor": 1}, {}),
        ("cbam", {}, {"no_spatial": False, "reduction_ratio": 8}),
        ("bam", {}, {"reduction_ratio": 8}),
        ("eca", {}, {"channels": None, "kernel_size": 9}),
    ],
)
def test_a_resnet_names_what_to_pass_for_all_places(attention, args, others):
    given = weights_of(resnet(attention, others))
    (hint,) = hinted(errors(resnet(attention, args), given))
    found = re.fullmatch(r"attention_args=(\{.*\}) would fit every \w+", hint)
    flax_attn.from_torch(resnet(attention, ast.literal_eval(found[1])), given)


def test_a_resnet_with_other_kernels_in_some_stages():
    published = [{"channels": None, "kernel_size": size} for size in (3, 5, 7, 7)]
    lines = hinted(errors(resnet("eca", {}), weights_of(resnet("eca", published))))
    places = (f"layer{stage}.{number}.attention" for stage in (3, 4) for number in (0, 1))
    assert lines == [f"attention_args={{'channels': None, 'kernel_size': 7}} would fit {', '.join(places)}"]
