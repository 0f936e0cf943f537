"""A trained network from its folder, or what is wrong with that."""

import json

import jax
import numpy as np
import pytest
from flax import nnx

from train.config import PatchConfig
from train.look.observe import load_run

GONE = object()


def change(folder, name="config.json", **values):
    """Writes other values, and takes out those that are `GONE`."""
    written = json.loads((folder / name).read_text()) | values
    (folder / name).write_text(json.dumps({key: value for key, value in written.items() if value is not GONE}))


def test_a_network_comes_back_as_it_was_trained(make_run, tmp_path):
    options = {"network": "multi_head", "token_order": "article", "position": "learned", "seed": 11}
    expected = make_run(tmp_path, **options)
    config, network, (height, width) = load_run(tmp_path)
    assert (height, width, config.seed, network.token_order) == (20, 28, 11, "article")
    assert network.conv.bn1a.use_running_average
    weights, wanted = (jax.tree.leaves(nnx.state(each, (nnx.Param, nnx.BatchStat))) for each in (network, expected))
    assert len(weights) == len(wanted) > 20
    assert all(map(np.array_equal, weights, wanted))


def test_what_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there must be a run in .*none, got no such folder"):
        load_run(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"there must be a run in .*, got no config.json"):
        load_run(tmp_path)


def test_a_file_is_no_run(run):
    with pytest.raises(FileNotFoundError, match=r"there must be a run in .*model.safetensors, got no such folder"):
        load_run(run / "model.safetensors")


def test_a_run_that_is_not_finished(run):
    (run / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"run must hold a finished run, got one without model.safetensors"):
        load_run(run)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 3, "colour": "red"}, "must hold the options of a run of this version, got: .* argument 'size'"),
        ({"network": "vgg"}, "network must be cnn or a block of .*, got 'vgg'"),
        ({"epochs": "many"}, "must hold the options of a run of this version, got: .* 'str' and 'int'"),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0"),
    ],
)
def test_a_configuration_that_is_none(run, values, message):
    change(run, **values)
    with pytest.raises(ValueError, match=rf"config.json.*{message}"):
        load_run(run)


def test_options_that_a_run_does_not_know_yet_have_their_defaults_and_those_that_are_gone_say_nothing(run):
    change(run, keep=GONE, workers=2)
    assert load_run(run)[0].keep == PatchConfig().keep


@pytest.mark.parametrize("text", ["{", "[]", "\x00"])
def test_files_that_are_no_json(run, text):
    for name in ("data.json", "config.json"):
        (run / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name} must"):
            load_run(run)


def test_weights_of_another_network(run):
    change(run, network="cbam")
    with pytest.raises(ValueError, match=r"(?s)model.safetensors must hold the weights of the network .*: .*attn1"):
        load_run(run)


def test_weights_that_are_cut_off(run):
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model.safetensors must hold the weights of the network"):
        load_run(run)
