"""What these tests share."""

import jax
import pytest


@pytest.fixture(autouse=True)
def quick_random_numbers():
    """Initial values are of no interest here, and the default generator takes long to compile for every shape."""
    with jax.default_prng_impl("rbg"):
        yield
