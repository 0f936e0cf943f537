"""The steps: compiled once, pure, and equal to a formula that neither side is made from."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx

from flax_attn.networks.sensor import SpatialAttentionNeuralNetwork
from flax_attn.registry import BLOCKS
from flax_attn.testing import relative_error, tolerance
from train.config import NETWORKS, PatchConfig
from train.data.feed import Fed
from train.step import adam, create_state, eval_step, learning_rate, network_of, train_block, train_step
from train.tasks.labelled import SensorTask
from train.tasks.patch import PatchTask, build_network, is_right, mean_error

from .conftest import compiled

CLOSE = tolerance("output", "float32")
KEY = jax.random.key(0)
PER_IMAGE = PatchTask("per_image")
OPTIMIZER = optax.adam(1e-3)  # one for all tests: a step is compiled for its optimizer


def new_state(source, **options):
    network = build_network(PatchConfig(**options), *source.records.shape[1:3])
    return create_state(network, OPTIMIZER)


def copied(state):
    return jax.tree.map(jnp.copy, state)


def fed(source, indices, real=None):
    """A batch of images, whose places among all are their indices."""
    places = np.array(indices)
    return Fed(source.records, places, places, np.ones(len(places), bool) if real is None else real, None)


def leaves(tree):
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(tree)
    ]


def test_the_error_is_the_articles():
    p = np.random.default_rng(0).uniform(0, 1, 101).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 2, 101).astype(np.float32)
    wide = p.astype(np.float64)
    expected = -np.mean(y * np.log(wide + 1e-8) + (1 - y) * np.log(1 - wide + 1e-8))
    for error in (mean_error, jax.jit(mean_error)):
        assert abs(float(error(p, y)) - expected) < CLOSE * expected


@pytest.mark.parametrize("y", [0.0, 1.0])
@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_error_and_its_gradient_are_finite_for_the_surest_answers(p, y):
    error, gradient = jax.jit(jax.value_and_grad(mean_error))(jnp.array([p]), jnp.array([y]))
    assert abs(float(error) + np.log((p if y else 1 - p) + 1e-8)) < CLOSE * 20
    assert np.isfinite(gradient).all()


def test_the_error_is_float32_for_narrow_probabilities():
    assert mean_error(jnp.array([0.5], jnp.bfloat16), jnp.array([1.0])).dtype == jnp.float32


def test_the_error_keeps_the_digits_of_float64():
    p, y = np.array([0.3, 0.9]), np.array([1.0, 0.0], np.float32)
    with jax.enable_x64(True):
        error = float(mean_error(jnp.array(p), jnp.array(y)))
    expected = -(np.log(0.3 + 1e-8) + np.log(0.1 + 1e-8)) / 2
    assert abs(error - expected) < tolerance("output", "float64") * expected


def test_the_prediction_is_p_rounded():
    p, y = jnp.array([0.0, 0.49, 0.5, 0.51, 1.0]), jnp.array([0.0, 0.0, 0.0, 1.0, 0.0])
    assert is_right(p, y).tolist() == [True, True, True, True, False]


def test_train_step_compiles_once_and_moves_everything(source):
    state = new_state(source, network="cbam")
    before = copied(state)
    with compiled() as names:
        for epoch, start in ((0, 0), (0, 8), (1, 0)):
            state, _ = train_step(state, fed(source, np.arange(start, start + 8)), epoch, KEY, task=PER_IMAGE)
    assert names.count("train_step") == 1
    for name in ("params", "rest", "opt_state"):
        old, new = leaves(getattr(before, name)), leaves(getattr(state, name))
        assert all((a != b).any() for a, b in zip(old, new, strict=True)), name


def test_eval_step_compiles_once_and_leaves_the_state_alone(source):
    state = new_state(source, network="cbam")
    before = leaves(state)
    with compiled() as names:
        first, second = (eval_step(state, fed(source, np.arange(8)), KEY, task=PER_IMAGE) for _ in range(2))
    assert names.count("eval_step") == 1
    assert float(first.error) == float(second.error)
    assert all(np.array_equal(a, b) for a, b in zip(before, leaves(state), strict=True))


def test_what_fills_up_a_test_batch_does_not_count(source):
    state = new_state(source)
    whole = eval_step(state, fed(source, [32, 33, 34]), KEY, task=PER_IMAGE)
    filled = eval_step(state, fed(source, [32, 33, 34, 39, 39], np.arange(5) < 3), KEY, task=PER_IMAGE)
    assert abs(float(whole.error) - float(filled.error)) < CLOSE * float(whole.error)
    assert float(whole.accuracy) == float(filled.accuracy)


def test_dropout_follows_from_the_seed_and_the_number_of_steps(source):
    start = new_state(source, network="multi_head")
    indices = np.arange(8)

    def two_errors(state):
        state, first = train_step(state, fed(source, indices), 0, KEY, task=PER_IMAGE)
        # the same weights again: whatever differs comes from the random streams
        again = type(state)(*map(copied, (start.params, state.rest, start.opt_state)), state.graph, state.optimizer)
        _, second = train_step(again, fed(source, indices), 0, KEY, task=PER_IMAGE)
        return float(first.error), float(second.error)

    first, second = two_errors(copied(start))
    assert first != second
    assert two_errors(copied(start)) == (first, second)


def test_the_rules_give_the_labels_that_they_say(source):
    article = PatchTask("article").draw(source.records[:10], None, np.arange(10), KEY, training=True)
    assert article[1].tolist() == [1, 1, 1, 0, 1, 0, 1, 1, 0, 1]
    x, y = PatchTask("per_image").draw(source.records, None, np.arange(40), KEY, training=True)
    assert np.array_equal(y == 1, (x == 1).all(-1).any((1, 2)))


def test_the_one_cycle_schedule_rises_and_falls():
    rate = learning_rate("one_cycle", 0.5, 50)
    values = [float(rate(step)) for step in range(50)]
    assert np.argmax(values) == 10
    assert max(values) == 0.5
    assert values[0] < 0.05
    assert values[-1] < 0.01
    assert float(learning_rate("constant", 0.5, 50)(49)) == 0.5


def test_the_cosine_schedule_falls_from_the_maximum():
    rate = learning_rate("cosine", 0.5, 50)
    np.testing.assert_allclose(
        [rate(step) for step in range(51)], 0.25 + 0.25 * np.cos(np.pi * np.arange(51) / 50), atol=CLOSE
    )


def test_bfloat16_computes_narrow_and_keeps_parameters_wide(source):
    state = new_state(source, dtype="bfloat16")
    batch = np.arange(8)
    new, scores = jax.eval_shape(partial(train_step, task=PER_IMAGE), state, fed(source, batch), 0, KEY)
    assert {x.dtype.name for x in jax.tree.leaves(new.params)} == {"float32"}
    assert scores.error.dtype == jnp.float32
    p, attended = jax.eval_shape(lambda state, x: network_of(state)(x), state, jnp.zeros(source.records.shape))
    assert (attended.dtype, p.dtype) == (jnp.bfloat16, jnp.float32)


@pytest.mark.parametrize("network", ["cbam_spatial", "multi_head", "sensor"])
def test_the_steps_do_not_promote_ranks(source, network):
    inputs, labels = source.records, None
    if network != "sensor":
        task, build = PER_IMAGE, partial(build_network, PatchConfig(network=network, position="sine"), 32, 36)
    else:
        task, build = SensorTask(), lambda: SpatialAttentionNeuralNetwork((9, 31, 5), 3, rngs=nnx.Rngs(0))
        inputs, labels = np.zeros((9, 31, 5), np.float32), np.arange(4) % 3
    batch = np.arange(4)
    with jax.numpy_rank_promotion("raise"):
        state = jax.eval_shape(lambda: create_state(build(), OPTIMIZER))
        given = Fed(inputs, batch, batch, batch > 0, labels)
        jax.eval_shape(partial(train_step, task=task), state, given, 0, KEY)
        jax.eval_shape(partial(eval_step, task=task), state, given, KEY)


RATE, STEPS = 0.01, 23  # of Adam, against PyTorch's and optax's


def gradients(dtype):
    return np.random.default_rng(0).standard_normal((STEPS, 101)).astype(dtype) * np.logspace(-6, 1, 101, dtype=dtype)


def flaxs(optimizer, dtype):
    """Where zeros have gone after each step."""
    with jax.enable_x64(dtype == "float64"):
        state, update, total, places = optimizer.init(jnp.zeros(101, dtype)), jax.jit(optimizer.update), 0.0, []
        for gradient in gradients(dtype):
            updates, state = update(jnp.asarray(gradient), state)
            assert updates.dtype == dtype
            total = total + np.asarray(updates, np.float64)
            places.append(total)
        return places


def torchs(dtype):
    parameter = torch.zeros(101, dtype=getattr(torch, dtype), requires_grad=True)
    optimizer, total, places = torch.optim.Adam([parameter], lr=RATE), 0.0, []
    for gradient in gradients(dtype):
        parameter.grad = torch.tensor(gradient)
        before = parameter.detach().clone().zero_()
        parameter.data.zero_()
        optimizer.step()
        total = total + (parameter.detach() - before).double().numpy()
        places.append(total)
    return places


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_every_step_of_adam_is_pytorchs(dtype):
    for ours, theirs in zip(flaxs(adam(RATE), dtype), torchs(dtype), strict=True):
        assert relative_error(ours, theirs) <= tolerance("output", dtype)


def test_optaxs_adam_is_pytorchs_in_float64_and_less_exact_in_float32():
    truth = torchs("float64")
    wide, narrow = flaxs(optax.adam(RATE), "float64"), flaxs(optax.adam(RATE), "float32")
    assert relative_error(wide[-1], truth[-1]) <= tolerance("output", "float64")
    assert relative_error(narrow[-1], truth[-1]) > tolerance("output", "float32")


@pytest.mark.parametrize("rate", [RATE, optax.linear_schedule(1.0, 0.5, 7)])
def test_the_state_of_adam_is_optaxs(rate):
    ours, theirs = (optimizer.init(jnp.zeros(3)) for optimizer in (adam(rate), optax.adam(rate)))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)


# By day the networks of the tutorials: those of the other blocks are lowered every night.
FEATURED = {"cnn", *(entry.name for entry in BLOCKS if entry.featured)}


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=[] if name in FEATURED else [pytest.mark.nightly]) for name in NETWORKS]
)
def test_the_step_of_every_network_lowers_for_every_platform(network, source):
    state, batch = new_state(source, network=network), fed(source, range(8))
    traced = train_step.trace(state, batch, 0, KEY, task=PER_IMAGE)
    text = traced.lower(lowering_platforms=("cpu", "cuda", "tpu")).as_text()
    assert "stablehlo.convolution" in text


@pytest.mark.parametrize("network", ["cnn", "multi_head"])
def test_a_block_of_steps_lowers_for_every_platform(network, source):
    batch, places = fed(source, range(8)), np.arange(16).reshape(8, 2)
    whole = batch._replace(places=places, indices=places)
    traced = train_block.trace(new_state(source, network=network), whole, 0, 2, 0, KEY, task=PER_IMAGE)
    text = traced.lower(lowering_platforms=("cpu", "cuda", "tpu")).as_text()
    assert text.count("stablehlo.while") >= 1
    assert "tf.aliasing_output" in text or "jax.buffer_donor" in text  # the state is donated
