"""What these tests share."""

import pytest

from flax_attn.convert.rules import RULES


@pytest.fixture(autouse=True)
def _rules_as_before():
    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)
