"""How hypothesis runs."""

import jax
import pytest
from hypothesis import HealthCheck, Phase, settings


@pytest.fixture(autouse=True)
def quick_random_numbers():
    """Initial values are of no interest here, and the default generator takes long to compile for every shape."""
    with jax.default_prng_impl("rbg"):
        yield


def pytest_configure(config):
    settings.register_profile(
        "flax_attn",
        deadline=None,  # the first call of a program compiles it
        database=None,  # no files in the tree
        phases=(Phase.explicit, Phase.generate, Phase.shrink),  # explaining a failure calls the modules many times more
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    settings.load_profile("flax_attn")
