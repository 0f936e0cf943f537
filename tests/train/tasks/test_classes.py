"""The loss of classes against a formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from flax_attn.testing import tolerance
from train.tasks.classes import cross_entropy, is_largest

LOGITS = np.random.default_rng(0).normal(0, 3, (11, 5))
LABELS = np.random.default_rng(1).integers(0, 5, 11)


def formula(logits, labels):
    return np.mean(np.log(np.exp(logits).sum(-1)) - logits[np.arange(len(labels)), labels])


def test_the_error_is_minus_the_logarithm_of_the_labels_share():
    expected = formula(LOGITS, LABELS)
    error = cross_entropy(jnp.asarray(LOGITS, jnp.float32), LABELS)
    assert abs(float(error) - expected) < tolerance("output", "float32") * expected


def test_the_error_keeps_the_digits_of_float64():
    with jax.enable_x64(True):
        error = float(cross_entropy(jnp.asarray(LOGITS), LABELS))
    expected = formula(LOGITS, LABELS)
    assert abs(error - expected) < tolerance("output", "float64") * expected


def test_the_error_is_float32_for_narrow_logits():
    assert cross_entropy(jnp.asarray(LOGITS, jnp.bfloat16), LABELS).dtype == jnp.float32


def test_what_fills_up_a_batch_does_not_count():
    error = cross_entropy(jnp.asarray(LOGITS, jnp.float32), LABELS, np.arange(11) < 7)
    expected = formula(LOGITS[:7], LABELS[:7])
    assert abs(float(error) - expected) < tolerance("output", "float32") * expected


def test_the_error_is_finite_for_the_surest_answers():
    error, gradient = jax.value_and_grad(cross_entropy)(jnp.array([[1e4, -1e4, 0.0]]), jnp.array([1]))
    assert float(error) == 2e4
    assert np.isfinite(gradient).all()


def test_right_is_the_largest_logit():
    assert is_largest(jnp.array([[0.0, 2.0, 1.0], [3.0, 2.0, 1.0]]), jnp.array([1, 2])).tolist() == [True, False]
