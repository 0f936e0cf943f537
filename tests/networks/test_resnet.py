"""ResNets: the published numbers of parameters, names, places of attention, and checkpoints as they are published."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

import flax_attn
from flax_attn.convert import NAMES
from flax_attn.layers import Conv
from flax_attn.networks.resnet import RESNETS, BasicBlock, Bottleneck, ResNet, create_resnet
from flax_attn.registry import BLOCKS, PLACES
from flax_attn.testing import relative_error, tolerance
from torch_ref.originals.original import declare_operators
from torch_ref.pairs import randomise

# Of 1000 classes, as the packages that published them count.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "cbam_resnet18": 11_779_392,
    "cbam_resnet34": 21_960_468,
    "cbam_resnet50": 28_089_624,
    "cbam_resnet101": 49_330_172,
    "seresnet18": 11_778_592,
    "seresnet34": 21_958_868,
    "seresnet50": 28_088_024,
    "seresnet101": 49_326_872,
    "bam_resnet18": 11_712_503,
    "bam_resnet34": 21_820_663,
    "bam_resnet50": 25_915_099,
    "bam_resnet101": 44_907_227,
    "skresnet18": 11_958_056,
    "skresnet34": 22_282_376,
    "skresnet50": 25_803_160,
    "eca_resnet18": 11_689_556,
    "eca_resnet34": 21_797_744,
    "eca_resnet50": 25_557_112,
    "eca_resnet101": 44_549_317,
    "eca_resnet152": 60_193_042,
}


def count(network):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))


def shapes_of(build):
    return nnx.eval_shape(lambda: build(rngs=nnx.Rngs(0)))


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_published_number_of_parameters(name):
    assert count(shapes_of(lambda rngs: create_resnet(name, rngs=rngs))) == PARAMETERS[name]


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.nightly)])
def test_names_and_shapes_are_torchvisions(depth):
    declare_operators()
    from torchvision import models

    theirs = getattr(models, f"resnet{depth}")(num_classes=7).state_dict()
    with jax.default_prng_impl("rbg"):
        ours = flax_attn.to_torch(ResNet(depth, num_classes=7, rngs=nnx.Rngs(0)))
    assert {name: array.shape for name, array in ours.items()} == {name: tuple(x.shape) for name, x in theirs.items()}


def test_convolutions_start_as_torchvisions():
    network = ResNet(18, rngs=nnx.Rngs(0))
    kernels = [module.kernel[...] for _, module in nnx.iter_modules(network) if isinstance(module, Conv)]
    assert len(kernels) == 20
    for kernel in kernels:
        height, width, _, planes = kernel.shape
        assert 0.95 < np.std(kernel) / (2 / (height * width * planes)) ** 0.5 < 1.05
        assert abs(np.mean(kernel)) < 0.05 * np.std(kernel)


@pytest.mark.parametrize(("stride_in", "stride"), [("3x3", (1, 2)), ("1x1", (2, 1))])
def test_which_convolution_halves_the_map(stride_in, stride):
    block = Bottleneck(8, 4, 2, stride_in=stride_in, rngs=nnx.Rngs(0))
    assert tuple(conv.strides[0] for conv in (block.conv1, block.conv2)) == stride


def test_attention_scales_the_branch_and_not_the_shortcut():
    class Nothing(nnx.Module):
        def __call__(self, x):
            return 0 * x

    block = BasicBlock(4, 4, attention=lambda channels: Nothing(), rngs=nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 7, 4)), jnp.float32)
    np.testing.assert_array_equal(block(x), np.maximum(x, 0))


def coordinate(*widths):
    """timm's coordinate attention, whose hidden layers have other widths than the authors'."""
    return [{"bias": False, "rd_channels": width} for width in widths]


# By the block and its arguments; of timm's gates, the authors' of SGE, and the defaults of ECA's code.
OF_GATES = [
    ("squeeze_excite", (), {18: 11_779_624, 34: 21_960_416, 50: 28_088_024, 101: 49_326_872}),
    ("eca", (), {18: 11_689_548, 34: 21_797_746, 50: 25_557_118, 101: 44_549_331}),
    (
        "eca",
        {"channels": None, "kernel_size": 3},
        {18: 11_689_536, 34: 21_797_720, 50: 25_557_080, 101: 44_549_259},
    ),
    ("effective_squeeze_excite", (), {18: 12_387_752, 34: 23_058_920, 50: 45_691_688, 101: 82_527_016}),
    ("efficient_local", (), {50: 25_828_904, 101: 45_134_376}),
    ("strip", (), {50: 25_647_656, 101: 44_744_232}),
    ("global_context", (), {18: 11_868_160, 34: 22_121_024, 50: 30_622_808, 101: 54_112_745}),
    ("coordinate", coordinate(8, 8, 8, 24), {18: 11_784_936, 34: 21_962_376}),
    ("coordinate", coordinate(8, 24, 40, 88), {50: 28_083_464, 101: 49_165_912}),
    ("spatial_group", {"groups": 64}, {18: 11_690_536, 34: 21_799_720, 50: 25_559_080, 101: 44_553_384}),
]


@pytest.mark.parametrize(
    ("depth", "attention", "args", "parameters"),
    [
        pytest.param(depth, name, args, size, marks=[] if depth in (18, 50) else [pytest.mark.nightly])
        for name, args, sizes in OF_GATES
        for depth, size in sizes.items()
    ],
)
def test_other_gates_have_the_number_of_parameters_of_the_packages(depth, attention, args, parameters):
    network = shapes_of(lambda rngs: ResNet(depth, attention, attention_args=args, rngs=rngs))
    assert count(network) == parameters


GATES = [entry.name for entry in BLOCKS if entry.kind == "gate" and not entry.needs_size]
CONVOLUTIONS = [entry.name for entry in BLOCKS if entry.place == "convolution"]


@pytest.mark.parametrize(
    ("attention", "place"), [(name, "branch") for name in GATES] + [(name, "convolution") for name in CONVOLUTIONS]
)
def test_every_gate_goes_into_a_block(attention, place):
    def shape():
        return BasicBlock(32, 32, attention=attention, place=place, rngs=nnx.Rngs(0))(jnp.ones((2, 8, 12, 32)))

    assert jax.eval_shape(shape).shape == (2, 8, 12, 32)


SIZED = [entry.name for entry in BLOCKS if entry.kind == "gate" and entry.needs_size]


@pytest.mark.parametrize("place", ["branch", "stages"])
@pytest.mark.parametrize("attention", SIZED)
def test_a_gate_of_one_size_is_told_the_size_of_each_map(attention, place):
    sizes = [(9, 13), (5, 7), (3, 4), (2, 2)]  # of images 33 x 50

    def logits(args):
        network = ResNet(18, attention, 7, place, attention_args=args, rngs=nnx.Rngs(0))
        return network(jnp.ones((2, 33, 50, 3)))

    args = [{"feat_size": size} for size in sizes]
    assert jax.eval_shape(lambda: logits(args)).shape == (2, 7)
    told = f"attention_args of a ResNet must have feat_size, the map's height and width, for {attention!r}, got "
    for lacking, got in (((), "{}"), ({"num_heads": 2}, "{'num_heads': 2}"), ([*args[:3], {}], "{}")):
        with pytest.raises(ValueError, match=re.escape(told + got)):
            jax.eval_shape(lambda lacking=lacking: logits(lacking))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("entry", [one for one in BLOCKS if one.kind != "gate"], ids=lambda entry: entry.name)
def test_blocks_that_map_no_map_to_a_map_are_refused(entry, place):
    told = f"attention must be a block of kind 'gate', from map to map, got {entry.name!r} of kind {entry.kind!r}"
    for build in (partial(ResNet, 18), partial(BasicBlock, 32, 32), partial(Bottleneck, 32, 8)):
        if build.func is ResNet or place != "stages":
            with pytest.raises(ValueError, match=re.escape(told)):
                build(attention=entry.name, place=place, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("attention", [name for name in GATES if name not in CONVOLUTIONS])
def test_only_convolutions_stand_in_place_of_one(attention):
    told = "attention in place of a convolution must be one of 'selective_kernel', 'split_attention', got "
    for build in (partial(ResNet, 50), partial(BasicBlock, 32, 32), partial(Bottleneck, 32, 8)):
        with pytest.raises(ValueError, match=re.escape(f"{told}{attention!r}")):
            build(attention=attention, place="convolution", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("place", ["branch", "stages"])
def test_attention_of_another_shape_is_refused_and_not_broadcast(place):
    class Pool(nnx.Module):
        def __call__(self, x):
            return jnp.mean(x, axis=(1, 2), keepdims=True)

    def logits():
        return ResNet(18, lambda channels: Pool(), place=place, rngs=nnx.Rngs(0))(jnp.ones((2, 32, 32, 3)))

    told = "the attention's output must have shape (b=2, h=8, w=8, c=64), got (2, 1, 1, 64)"
    with pytest.raises(ValueError, match=re.escape(told)):
        jax.eval_shape(logits)


def test_attention_between_the_stages():
    network = shapes_of(lambda rngs: ResNet(18, "eca", place="stages", rngs=rngs))
    assert [type(getattr(network, f"attention{stage}")).__name__ for stage in (1, 2, 3, 4)] == [
        *["EfficientChannelAttention"] * 3,
        "NoneType",
    ]
    assert network.layer1.layers[0].attention is None


def test_arguments_for_each_stage():
    sizes = (3, 5, 7, 9)
    args = [{"channels": None, "kernel_size": size} for size in sizes]
    network = shapes_of(lambda rngs: ResNet(18, "eca", attention_args=args, rngs=rngs))
    stages = [getattr(network, f"layer{stage}").layers[1] for stage in (1, 2, 3, 4)]
    assert tuple(block.attention.conv.kernel.shape[0] for block in stages) == sizes


def test_maps_of_the_attention_have_the_paths_of_the_blocks():
    def maps():
        return flax_attn.attention_maps(ResNet(18, "eca", rngs=nnx.Rngs(0)), jnp.ones((2, 33, 40, 3)))

    found = jax.eval_shape(maps)
    assert found["layer1.1.attention.gate"].shape == (2, 1, 1, 64)
    assert len(found) == 8


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("cbam_resnet18", "module.layer1.0.cbam.ChannelGate.mlp.1.weight"),
        ("bam_resnet18", "module.bam1.channel_att.gate_c.gate_c_fc_0.weight"),
    ],
)
def test_a_published_checkpoint_as_its_authors_save_it(tmp_path, name, entry):
    # The authors of CBAM and BAM train under DataParallel and save the epoch beside the weights.
    with jax.default_prng_impl("rbg"):
        network, other = (create_resnet(name, 7, rngs=nnx.Rngs(seed)) for seed in (0, 1))
    names = NAMES["attention-module.ResNet"]
    saved = flax_attn.to_torch(network, rename=names)
    assert entry in saved
    path = tmp_path / "best.pth.tar"
    torch.save({"epoch": 3, "state_dict": {name: torch.tensor(array) for name, array in saved.items()}}, path)
    flax_attn.from_torch(other, path, rename=names)
    for ours, theirs in zip(*(jax.tree.leaves(nnx.state(net, nnx.Param)) for net in (network, other)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_ecas_published_checkpoint_computes_what_timms_network_does(tmp_path):
    # The authors' network is timm's with fixed kernels, and `eca` where timm says `se`.
    declare_operators()
    from timm.layers import EcaModule
    from timm.models import resnet18

    theirs = resnet18(num_classes=7, block_args={"attn_layer": "eca"})
    for stage, size in enumerate((3, 5, 7, 7), 1):
        for block in getattr(theirs, f"layer{stage}"):
            block.se = EcaModule(kernel_size=size)
    randomise(theirs.double(), np.random.default_rng(0), {})
    saved = {f"module.{name.replace('.se.', '.eca.')}": value for name, value in theirs.state_dict().items()}
    assert "module.layer1.0.eca.conv.weight" in saved
    path = tmp_path / "eca_resnet18_k3577.pth.tar"
    torch.save({"epoch": 3, "state_dict": saved}, path)
    x = np.random.default_rng(1).standard_normal((2, 64, 64, 3))
    with jax.enable_x64(True):
        network = create_resnet("eca_resnet18", 7, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
        flax_attn.from_torch(network, path, rename=NAMES["ECANet.ResNet"])
        network.eval()
        ours = np.asarray(nnx.jit(lambda network, x: network(x))(network, x))
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    assert relative_error(ours, expected) <= tolerance("output", "float64")


def test_every_published_network_has_its_arguments():
    assert len(RESNETS) == 30
    with pytest.raises(ValueError, match=r"name must be one of 'resnet18', .*, got 'resnet19'"):
        create_resnet("resnet19", rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20}, "depth must be one of 18, 34, 50, 101, 152, got 20"),
        ({"depth": 18, "num_classes": 0}, "num_classes must be a whole number >= 1, got 0"),
        ({"depth": 18, "attention": "cbma"}, "name must be a block of flax_attn.list_blocks(), got 'cbma'"),
        (
            {"depth": 18, "attention": "eca", "place": "end"},
            "place must be one of 'branch', 'convolution', 'stages', got 'end'",
        ),
        ({"depth": 50, "stride_in": "5x5"}, "stride_in must be one of '3x3', '1x1', got '5x5'"),
        (
            {"depth": 18, "attention": "eca", "attention_args": [{}]},
            "attention_args must be one mapping or one for each of 4 stages, got 1",
        ),
        (
            {"depth": 18, "attention_args": {"kernel_size": 3}},
            "attention must be given for attention_args={'kernel_size': 3} to matter, got None",
        ),
        ({"depth": 18, "place": "branch"}, "attention must be given for place='branch' to matter, got None"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ResNet(**arguments, rngs=nnx.Rngs(0))


def test_bad_images():
    network = shapes_of(lambda rngs: ResNet(18, rngs=rngs))
    with pytest.raises(ValueError, match=re.escape("x must have shape (b, h, w, c=3), got (2, 3, 64, 64)")):
        network(jnp.ones((2, 3, 64, 64)))
