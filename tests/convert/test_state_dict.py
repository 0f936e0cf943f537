"""from_torch and to_torch: all or nothing, every problem named at once, files read without running them."""

import os
import pickle
import resource
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file, save_file

import flax_attn
from flax_attn.convert import OFFICIAL_CBAM_NAMES, TUTORIAL_NAMES
from flax_attn.layers import BatchNorm, Conv, Embedding, LayerNorm, Linear
from torch_ref.blocks import cbam as pt


def make(seed=0):
    return flax_attn.CBAM(8, 4, no_spatial=False, rngs=nnx.Rngs(seed))


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(array.shape).astype(array.dtype) for name, array in flax_attn.to_torch(make()).items()
    }


def state(module):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize(
    ("make_ours", "theirs"),
    [
        (lambda r: Linear(3, 5, rngs=r), torch.nn.Linear(3, 5)),
        (lambda r: Linear(5, 5, bias=False, rngs=r), torch.nn.Linear(5, 5, bias=False)),
        (lambda r: nnx.Linear(5, 5, rngs=r), torch.nn.Linear(5, 5)),
        (lambda r: Conv(4, 6, (3,), rngs=r), torch.nn.Conv1d(4, 6, 3)),
        (lambda r: Conv(4, 6, (3, 5), groups=2, rngs=r), torch.nn.Conv2d(4, 6, (3, 5), groups=2)),
        (lambda r: Conv(4, 4, (3, 3), rngs=r), torch.nn.Conv2d(4, 4, 3)),
        (lambda r: Conv(2, 3, (3, 5, 7), rngs=r), torch.nn.Conv3d(2, 3, (3, 5, 7))),
        (lambda r: LayerNorm(7, rngs=r), torch.nn.LayerNorm(7)),
        (lambda r: BatchNorm(7, rngs=r), torch.nn.BatchNorm1d(7)),
        (lambda r: Embedding(5, 5, rngs=r), torch.nn.Embedding(5, 5)),
        (
            lambda r: nnx.Sequential(Linear(3, 5, rngs=r), nnx.relu, Linear(5, 2, rngs=r)),
            torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2)),
        ),
        (
            lambda r: nnx.List([Linear(3, 5, rngs=r), LayerNorm(3, rngs=r)]),
            torch.nn.ModuleList([torch.nn.Linear(3, 5), torch.nn.LayerNorm(3)]),
        ),
        (
            lambda r: nnx.Dict(a=Linear(3, 5, rngs=r), b=LayerNorm(3, rngs=r)),
            torch.nn.ModuleDict({"a": torch.nn.Linear(3, 5), "b": torch.nn.LayerNorm(3)}),
        ),
    ],
)
def test_every_rule_goes_both_ways(make_ours, theirs):
    with torch.no_grad():
        for tensor in (*theirs.parameters(), *theirs.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape))
    ours = flax_attn.from_torch(make_ours(nnx.Rngs(0)), theirs.state_dict())
    back = flax_attn.to_torch(ours)
    assert list(back) == list(theirs.state_dict())
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(back[name], tensor.numpy(), strict=True)


def test_it_fills_in_place_and_returns_the_module():
    module = make()
    assert flax_attn.from_torch(module, weights()) is module
    assert same(
        flax_attn.to_torch(module).values(), {**weights(), "spatial_gate.spatial.bn.num_batches_tracked": 0}.values()
    )


def test_all_problems_are_named_at_once_and_nothing_is_loaded():
    module = make()
    before = state(module)
    wrong = weights(1)
    del wrong["channel_gate.mlp.1.bias"]
    wrong["channel_gate.mlp.3.weight"] = wrong["channel_gate.mlp.3.weight"].T.copy()
    wrong["spatial_gate.spatial.bn.weight"] = np.zeros(1, np.int64)
    wrong["spatial_gate.spatial.conv.weight"] = "weights"
    wrong["extra.weight"] = np.zeros(3)
    with pytest.raises(ValueError, match="does not fit CBAM, which is left unchanged") as error:
        flax_attn.from_torch(module, wrong)
    lines = str(error.value).splitlines()[1:]
    assert [line.strip() for line in lines] == [
        "channel_gate.mlp.1.bias: expected shape (2,), got nothing",
        "channel_gate.mlp.3.weight: expected shape (8, 2), got (2, 8)",
        "spatial_gate.spatial.conv.weight: expected an array of floats, got str",
        "spatial_gate.spatial.bn.weight: expected an array of floats, got int64 of shape (1,)",
        "extra.weight: expected no such entry, got float64 of shape (3,)",
    ]
    assert same(state(module), before)


def test_a_square_kernel_is_not_taken_for_its_transpose():
    weight = np.arange(9.0, dtype=np.float32).reshape(3, 3)
    linear = flax_attn.from_torch(Linear(3, 3, bias=False, rngs=nnx.Rngs(0)), {"weight": weight})
    np.testing.assert_array_equal(linear(jnp.eye(3)), weight.T)


def test_nothing_is_reshaped_to_fit():
    with pytest.raises(ValueError, match=r"weight: expected shape \(2, 6\), got \(3, 4\)"):
        flax_attn.from_torch(Linear(6, 2, bias=False, rngs=nnx.Rngs(0)), {"weight": np.zeros((3, 4), np.float32)})


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: nnx.InstanceNorm(3, rngs=rngs),
        lambda rngs: nnx.BatchNorm(3, rngs=rngs),
        lambda rngs: nnx.Sequential(nnx.InstanceNorm(3, rngs=rngs), nnx.GroupNorm(3, 1, rngs=rngs)),
    ],
)
def test_num_batches_tracked_is_ignored_in_every_layer(make):
    given = flax_attn.to_torch(make(nnx.Rngs(0)))
    counted = {f"{name.rpartition('.')[0]}.num_batches_tracked".lstrip("."): np.array(7) for name in given}
    loaded = flax_attn.from_torch(make(nnx.Rngs(0)), given | counted)
    assert flax_attn.to_torch(loaded).keys() == given.keys()


def test_running_statistics_that_no_layer_has_are_an_error():
    given = torch.nn.InstanceNorm2d(3, affine=True, track_running_stats=True).state_dict()
    with pytest.raises(ValueError, match="running_mean: expected no such entry") as caught:
        flax_attn.from_torch(nnx.InstanceNorm(3, rngs=nnx.Rngs(0)), given)
    assert "num_batches_tracked" not in str(caught.value)


def test_num_batches_tracked_may_be_absent_from_a_batch_norm():
    given = weights()
    given["spatial_gate.spatial.bn.num_batches_tracked"] = np.array(7)
    loaded = flax_attn.from_torch(make(), given)
    assert flax_attn.to_torch(loaded)["spatial_gate.spatial.bn.num_batches_tracked"] == 0
    del given["spatial_gate.spatial.bn.num_batches_tracked"]
    flax_attn.from_torch(make(), given)


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16", "float16"])
def test_values_keep_the_modules_dtype(param_dtype):
    module = flax_attn.ChannelGate(8, 4, param_dtype=param_dtype, rngs=nnx.Rngs(0))
    given = pt.ChannelGate(8, 4).double().state_dict()
    flax_attn.from_torch(module, given)
    for name, array in flax_attn.to_torch(module).items():
        assert array.dtype == jnp.dtype(param_dtype)
        np.testing.assert_array_equal(array, given[name].numpy().astype(array.dtype))


def test_bfloat16_tensors():
    given = pt.ChannelGate(8, 4).bfloat16().state_dict()
    module = flax_attn.from_torch(flax_attn.ChannelGate(8, 4, rngs=nnx.Rngs(0)), given)
    np.testing.assert_array_equal(flax_attn.to_torch(module)["mlp.1.weight"], given["mlp.1.weight"].float().numpy())


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_safetensors_file_and_back(tmp_path, param_dtype):
    module = flax_attn.CBAM(8, 4, param_dtype=param_dtype, rngs=nnx.Rngs(3))
    path = tmp_path / "weights.safetensors"
    written = flax_attn.to_torch(module, path)
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode
    loaded = flax_attn.from_torch(flax_attn.CBAM(8, 4, param_dtype=param_dtype, rngs=nnx.Rngs(4)), str(path))
    assert same(state(loaded), state(module))
    assert written.keys() == load_file(path).keys()


def test_pytorch_reads_what_we_write(tmp_path):
    path = tmp_path / "weights.safetensors"
    module = make(5)
    flax_attn.to_torch(module, path)
    from safetensors.torch import load_file as load_torch

    twin = pt.CBAM(8, 4, no_spatial=False)
    twin.load_state_dict(load_torch(path))
    for name, tensor in twin.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), flax_attn.to_torch(module)[name])


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_pytorch_files(tmp_path, suffix):
    twin = pt.CBAM(8, 4, no_spatial=False)
    path = tmp_path / f"weights{suffix}"
    torch.save(twin.state_dict(), path)
    loaded = flax_attn.from_torch(make(), path)
    np.testing.assert_array_equal(
        flax_attn.to_torch(loaded)["channel_gate.mlp.1.weight"], twin.channel_gate.mlp[1].weight.detach().numpy()
    )


def test_training_checkpoint_is_looked_into(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"epoch": 3, "state_dict": pt.CBAM(8, 4, no_spatial=False).state_dict(), "best": 0.5}, path)
    flax_attn.from_torch(make(), path)


class Bomb:
    """Runs code on unpickling."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", [".pt", ".pth"])
@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path, suffix, save):
    path = tmp_path / f"evil{suffix}"
    save({"weight": Bomb(tmp_path / "ran")}, path)
    module = make()
    before = state(module)
    with pytest.raises(ValueError, match="would run code"):
        flax_attn.from_torch(module, path)
    assert not (tmp_path / "ran").exists()
    assert same(state(module), before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_damaged_files(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(weights(), path)
    else:
        torch.save(weights(), path)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a checkpoint at all"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="state_dict must be"):
            flax_attn.from_torch(make(), path)


@pytest.mark.parametrize("part", [0.0, 0.5, 0.99])
def test_a_file_that_is_cut_short_says_so(tmp_path, part):
    path = tmp_path / "weights.pt"
    torch.save({name: torch.from_numpy(array) for name, array in weights().items()}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"weights\.pt', which is damaged or cut short: .") as error:
        flax_attn.from_torch(make(), path)
    assert "run code" not in str(error.value)


def test_a_whole_module_is_named_and_the_way_out(tmp_path):
    path = tmp_path / "module.pt"
    torch.save(torch.nn.Sequential(torch.nn.Linear(3, 5)), path)
    with pytest.raises(ValueError, match="would run code") as error:
        flax_attn.from_torch(make(), path)
    message = str(error.value)
    assert "torch.nn.modules.container.Sequential, torch.nn.modules.linear.Linear; save module.state_dict()" in message
    assert "damaged" not in message


def test_a_whole_module_in_pytorchs_old_format(tmp_path):
    path = tmp_path / "module.pth"
    torch.save(torch.nn.Linear(3, 5), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"would run code when unpickled: .*torch\.nn\.modules\.linear\.Linear"):
        flax_attn.from_torch(make(), path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_called_by_its_name(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(3, 5), torch.ones(2, 3)), path)
    with pytest.raises(ValueError, match=r"is a TorchScript archive.*save module\.state_dict\(\)"):
        flax_attn.from_torch(make(), path)


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        flax_attn.from_torch(make(), tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match=r"must end in \.safetensors, \.pt or \.pth"):
        flax_attn.to_torch(make(), tmp_path / "weights.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [[1, 2], 3, None])
def test_not_a_mapping(given):
    with pytest.raises(ValueError, match="state_dict must be a mapping"):
        flax_attn.from_torch(make(), given)


def test_a_failing_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    flax_attn.to_torch(make(), path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))  # as a full disk
    try:
        with pytest.raises(OSError, match="File too large"):
            flax_attn.to_torch(make(1), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class Scaled(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(jnp.ones(3))


def test_a_parameter_outside_any_layer_is_an_error():
    with pytest.raises(ValueError, match=r"conversion rule, got in Dict outside of any: Param 'inner\.scale'"):
        flax_attn.to_torch(nnx.Dict(inner=Scaled()))


def test_numpy_jax_and_torch_values_are_one():
    given = weights()
    loaded = [
        flax_attn.from_torch(make(), {name: convert(array) for name, array in given.items()})
        for convert in (np.asarray, jnp.asarray, torch.from_numpy)
    ]
    assert same(state(loaded[0]), state(loaded[1]))
    assert same(state(loaded[0]), state(loaded[2]))


def test_training_the_original_leaves_the_loaded_module_alone():
    # Large and one-dimensional: such arrays are aligned, which is when jax would go on using their memory.
    twin = torch.nn.Sequential(torch.nn.Linear(64, 1024), torch.nn.BatchNorm1d(1024), torch.nn.LayerNorm(1024))
    rngs = nnx.Rngs(0)
    module = nnx.Sequential(Linear(64, 1024, rngs=rngs), BatchNorm(1024, rngs=rngs), LayerNorm(1024, rngs=rngs))
    flax_attn.from_torch(module, twin.state_dict())
    before = [array.copy() for array in state(module)]
    twin(torch.randn(8, 64)).square().sum().backward()
    torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert same(state(module), before)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(2, dtype=torch.float8_e4m3fn),
        torch.zeros(2).to_sparse(),
        torch.zeros(2, device="meta"),
        torch.zeros(2, dtype=torch.complex64),
        np.array(["a", "b"]),
        None,
        1.0,
    ],
    ids=["float8", "sparse", "meta", "complex", "text", "None", "number"],
)
def test_entries_that_are_no_arrays_of_floats(value):
    given = {**weights(), "channel_gate.mlp.1.bias": value, "extra.weight": np.zeros(3)}
    with pytest.raises(ValueError, match=r"mlp\.1\.bias: expected an array of floats, got") as error:
        flax_attn.from_torch(make(), given)
    assert "extra.weight: expected no such entry" in str(error.value)


def test_wrong_kinds_of_arguments():
    twin = pt.CBAM(8, 4, no_spatial=False)
    with pytest.raises(ValueError, match=r"module must be a flax\.nnx\.Module, got <class '.*CBAM'>"):
        flax_attn.from_torch(flax_attn.CBAM, twin.state_dict())
    with pytest.raises(ValueError, match=r"module must be a flax\.nnx\.Module, got <class 'torch_ref"):
        flax_attn.from_torch(twin, twin.state_dict())
    with pytest.raises(ValueError, match=r"got CBAM, pass its state_dict\(\)"):
        flax_attn.from_torch(make(), twin)


def test_a_data_parallel_prefix_is_explained():
    with pytest.raises(ValueError, match=r"pass rename=\{'module': ''\}"):
        flax_attn.from_torch(make(), {f"module.{name}": array for name, array in weights().items()})


def test_keys_must_be_names(tmp_path):
    torch.save({0: torch.zeros(2)}, tmp_path / "list.pt")
    for given in ({0: np.zeros(2)}, tmp_path / "list.pt"):
        with pytest.raises(ValueError, match="names for keys, got 0"):
            flax_attn.from_torch(make(), given)


def test_safetensors_of_a_dtype_that_numpy_lacks(tmp_path):
    from safetensors.torch import save_file as save_torch

    path = tmp_path / "float8.safetensors"
    save_torch({"weight": torch.zeros(2, dtype=torch.float8_e4m3fn)}, path)
    with pytest.raises(ValueError, match=r"state_dict must be a whole \.safetensors file of dtypes that numpy has"):
        flax_attn.from_torch(make(), path)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="an existing folder"):
        flax_attn.to_torch(make(), tmp_path / "nowhere" / "weights.safetensors")


class Holder(nnx.Module):
    """Modules in plain containers."""

    def __init__(self, *, rngs):
        self.pair = nnx.data((Linear(2, 3, rngs=rngs), Linear(3, 5, rngs=rngs)))
        self.named = nnx.data({"x": Linear(2, 2, rngs=rngs)})


def test_plain_containers_are_walked():
    assert list(flax_attn.to_torch(Holder(rngs=nnx.Rngs(0)))) == [
        "pair.0.weight",
        "pair.0.bias",
        "pair.1.weight",
        "pair.1.bias",
        "named.x.weight",
        "named.x.bias",
    ]


class Longer(nnx.Sequential):
    def __init__(self, *, rngs):
        super().__init__(Linear(2, 3, rngs=rngs))
        self.head = Linear(3, 5, rngs=rngs)


def test_no_parameter_is_left_out_in_silence():
    assert [name for name in flax_attn.to_torch(Longer(rngs=nnx.Rngs(0))) if "head" in name] == [
        "head.weight",
        "head.bias",
    ]
    with pytest.raises(ValueError, match=r"conversion rule.*'lora\.lora_a'.*'lora\.lora_b'"):
        flax_attn.to_torch(nnx.LoRALinear(3, 5, lora_rank=2, rngs=nnx.Rngs(0)))


def test_renaming_is_asked_for_by_name():
    linear = Linear(3, 5, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError):
        flax_attn.from_torch(linear, flax_attn.to_torch(linear), {})
    with pytest.raises(TypeError):
        flax_attn.to_torch(linear, None, {})


def test_saving_reads_the_table_from_right_to_left():
    named = flax_attn.to_torch(make(), rename=OFFICIAL_CBAM_NAMES)
    assert {".".join(name.split(".")[:2]) for name in named} == {"module.ChannelGate", "module.SpatialGate"}
    flax_attn.from_torch(make(), named, rename=OFFICIAL_CBAM_NAMES)


class Table:
    """Has a shape and numbers and is no array all the same, as a data frame is."""

    shape = (2,)

    def __array__(self, dtype=None, copy=None):
        return np.zeros(self.shape, dtype)


def test_what_has_only_a_shape_is_no_array():
    given = {**weights(), "channel_gate.mlp.1.bias": Table()}
    with pytest.raises(ValueError, match=r"mlp\.1\.bias: expected an array of floats, got Table$"):
        flax_attn.from_torch(make(), given)


class Network(nnx.Module):
    def __init__(self, token_order, name="w_qs"):
        self.token_order = token_order
        self.attn1 = nnx.Dict(**{name: Linear(2, 3, rngs=nnx.Rngs(0))})


PIXELS = "".join(["pix", "els"])  # not the very object of the source


@pytest.mark.parametrize(
    ("module", "where"),
    [(Network(PIXELS), "Network"), (nnx.Dict(deep=nnx.List([Network(PIXELS)])), r"deep\.0")],
)
@pytest.mark.parametrize("table", [dict(TUTORIAL_NAMES), {**TUTORIAL_NAMES, "module": ""}])
def test_where_the_token_order_may_be_wrong(module, where, table):
    with pytest.warns(UserWarning, match=f"^{where}: the tutorial trained .* token_order='article'") as caught:
        flax_attn.from_torch(module, flax_attn.to_torch(module), rename=table)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("module", "table"),
    [
        (Network("article"), TUTORIAL_NAMES),
        (Network("zigzag"), TUTORIAL_NAMES),
        (Network(PIXELS, "other"), TUTORIAL_NAMES),
        (Network(PIXELS), None),
        (Network(PIXELS), {"ChannelGate": "channel_gate"}),
    ],
    ids=["article", "another order", "another attention", "no table", "another table"],
)
def test_no_warning_where_the_token_order_is_none_of_the_tutorials(module, table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flax_attn.from_torch(module, flax_attn.to_torch(module), rename=table)


def prefixed(prefix):
    return {f"{prefix}{name}": array for name, array in weights().items()}


@pytest.mark.parametrize("key", ["model_state_dict", "model", "net", "weights"])
def test_a_state_dict_under_a_key_is_asked_for_by_its_key(key):
    checkpoint = {
        "epoch": 3,
        key: weights(),
        "optimizer": {"state": {0: {}}, "param_groups": [{"lr": 0.1}]},
        "loss": 0.5,
    }
    with pytest.raises(ValueError, match=rf"got entries that hold such mappings: pass key='{key}'$"):
        flax_attn.from_torch(make(), checkpoint)
    loaded = flax_attn.from_torch(make(), checkpoint, key=key)
    assert same(state(loaded), state(flax_attn.from_torch(make(), weights())))


def test_of_several_state_dicts_one_is_chosen():
    checkpoint = {"model": weights(0), "model_ema": weights(1), "optimizer": {"state": {}}}
    with pytest.raises(ValueError, match="pass key='model' or key='model_ema'"):
        flax_attn.from_torch(make(), checkpoint)
    loaded = flax_attn.from_torch(make(), checkpoint, key="model_ema")
    assert same(state(loaded), state(flax_attn.from_torch(make(), weights(1))))
    with pytest.raises(ValueError, match=r"key must name an entry .*key='model' or key='model_ema', got 'ema'"):
        flax_attn.from_torch(make(), checkpoint, key="ema")
    with pytest.raises(ValueError, match="key must name an entry that holds a state_dict, no such entry, got 'model'"):
        flax_attn.from_torch(make(), weights(), key="model")


WRAPPED = {
    "DataParallel": ("module.", ["module"]),
    "compile": ("_orig_mod.", ["_orig_mod"]),
    "compile, DataParallel": ("_orig_mod.module.", ["module", "_orig_mod"]),
    "DataParallel, compile": ("module._orig_mod.", ["module", "_orig_mod"]),
    "FSDP": ("_fsdp_wrapped_module.", ["_fsdp_wrapped_module"]),
    "all": ("module._orig_mod._fsdp_wrapped_module.", ["module", "_orig_mod", "_fsdp_wrapped_module"]),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_the_names_of_wrappers_are_explained_and_removed(wrapper):
    prefix, names = WRAPPED[wrapper]
    with pytest.raises(ValueError, match=r"of wrappers: pass rename=\{.*\}$") as error:
        flax_attn.from_torch(make(), prefixed(prefix))
    advice = eval(str(error.value).rpartition("rename=")[2])
    assert list(advice) == names
    loaded = flax_attn.from_torch(make(), prefixed(prefix), rename=advice)
    assert same(state(loaded), state(flax_attn.from_torch(make(), weights())))


@pytest.mark.parametrize("prefix", ["module.module.", "module.module.module.", "module._orig_mod.module."])
def test_the_same_wrapper_twice_is_explained_step_by_step(prefix):
    table = None
    for _ in range(3):
        with pytest.raises(ValueError, match=r"of wrappers: pass rename=\{.*\}$") as error:
            flax_attn.from_torch(make(), prefixed(prefix), rename=table)
        advice = eval(str(error.value).rpartition("rename=")[2])
        assert advice != table
        table = advice
        if prefix.count("module.") == max(run.count("module") for run in table):
            break
    flax_attn.from_torch(make(), prefixed(prefix), rename=table)


def test_an_attribute_called_module_is_no_wrapper():
    class Around(nnx.Module):
        def __init__(self):
            self.module = make()

    with pytest.raises(ValueError, match=r"module\.extra: expected no such entry") as error:
        flax_attn.from_torch(Around(), {**prefixed("module."), "module.extra": np.ones(1)})
    assert "wrappers" not in str(error.value)


def test_the_names_of_inner_wrappers_are_removed_where_they_stand():
    given = {
        name.replace("mlp.", "_checkpoint_wrapped_module.mlp._orig_mod."): array for name, array in weights().items()
    }
    with pytest.raises(
        ValueError, match=r"of wrappers: pass rename=\{'_orig_mod': '', '_checkpoint_wrapped_module': ''\}"
    ):
        flax_attn.from_torch(make(), given)
    with pytest.raises(ValueError, match=r"rename=\{'_orig_mod': '', '_checkpoint_wrapped_module': ''\}"):
        flax_attn.from_torch(make(), given, rename={"_orig_mod": ""})  # advice adds to what was passed
    flax_attn.from_torch(make(), given, rename={"_checkpoint_wrapped_module": "", "_orig_mod": ""})


def test_the_counter_of_an_averaged_model_may_be_skipped():
    given = {**prefixed("module."), "n_averaged": np.array(7)}
    with pytest.raises(ValueError, match=r"(?s)rename=\{'module': ''\}.*AveragedModel: pass skip='n_averaged'"):
        flax_attn.from_torch(make(), given)
    flax_attn.from_torch(make(), given, rename={"module": ""}, skip="n_averaged")


class Classifier(nnx.Module):
    def __init__(self, classes, *, rngs):
        self.body, self.head, self.header = (Linear(3, n, rngs=rngs) for n in (4, classes, 2))


@pytest.mark.parametrize("skip", ["head", ["head"], ("head.weight", "head.bias")])
def test_another_number_of_classes_is_loaded_without_the_head(skip, caplog):
    given = flax_attn.to_torch(Classifier(10, rngs=nnx.Rngs(1)))
    module = Classifier(7, rngs=nnx.Rngs(2))
    head = np.asarray(module.head.kernel[...])
    with pytest.raises(ValueError, match=r"head\.weight: expected shape \(7, 3\), got \(10, 3\)"):
        flax_attn.from_torch(module, given)
    with caplog.at_level("INFO", logger="flax_attn"):
        flax_attn.from_torch(module, given, skip=skip)
    assert caplog.messages == ["from_torch skipped head.bias, head.weight"]
    np.testing.assert_array_equal(module.head.kernel[...], head)
    np.testing.assert_array_equal(flax_attn.to_torch(module)["header.weight"], given["header.weight"])


def test_what_is_skipped_may_be_on_one_side_alone_and_all_else_is_strict():
    given = {
        name: array
        for name, array in flax_attn.to_torch(Classifier(7, rngs=nnx.Rngs(1))).items()
        if "head." not in name
    }
    flax_attn.from_torch(Classifier(7, rngs=nnx.Rngs(0)), given, skip="head")
    flax_attn.from_torch(Classifier(7, rngs=nnx.Rngs(0)), {**given, "aux.bias": np.ones(1)}, skip=["head", "aux"])
    with pytest.raises(ValueError, match=r"aux\.bias: expected no such entry"):
        flax_attn.from_torch(Classifier(7, rngs=nnx.Rngs(0)), {**given, "aux.bias": np.ones(1)}, skip=["head"])
    for skip in (3, [3], {"head": True}):
        with pytest.raises(ValueError, match="skip must be a path or a sequence of paths, got"):
            flax_attn.from_torch(Classifier(7, rngs=nnx.Rngs(0)), given, skip=skip)
    with pytest.raises(ValueError, match="skip must name paths of module or state_dict, got 'hea', 'fc'"):
        flax_attn.from_torch(Classifier(7, rngs=nnx.Rngs(0)), given, skip=["hea", "head", "fc"])


@pytest.mark.parametrize("param_dtype", [jnp.float32, jnp.bfloat16])
def test_tensors_go_into_load_state_dict(tmp_path, param_dtype):
    module = Linear(3, 5, param_dtype=param_dtype, rngs=nnx.Rngs(0))
    tensors = flax_attn.to_torch(module, tmp_path / "linear.pt", tensors=True)
    twin = torch.nn.Linear(3, 5, dtype=tensors["weight"].dtype)
    twin.load_state_dict(tensors)
    twin.load_state_dict(torch.load(tmp_path / "linear.pt", weights_only=True))
    np.testing.assert_array_equal(twin.weight.detach().float().numpy(), np.asarray(module.kernel[...].T, np.float32))
    before = state(module)
    with torch.no_grad():
        tensors["weight"].add_(1)
    assert same(state(module), before)
