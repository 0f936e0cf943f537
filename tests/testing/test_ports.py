"""Right ports of whole networks pass in every dtype, without bounds or names of zero gradients from their authors."""

import pytest

from flax_attn.testing import compare

from .residual import SHORT, resnet, small


def check(pair, dtypes):
    ours, theirs, x, options = pair
    report = compare(ours, theirs, x, dtypes=dtypes, **options)
    assert report.ok, str(report)
    assert {row.dtype for row in report.rows} == set(dtypes)
    return report


def test_a_small_network_of_everything():
    report = check(small(), ["float64", "float32", "bfloat16"])
    zero = {(row.path, row.mode) for row in report.rows if row.note == "zero by algebra"}
    assert ("conv.bias", "train") in zero
    assert ("conv.bias", "eval") not in zero


def test_a_short_resnet_with_cbam():
    check(resnet(SHORT), ["float64"])


@pytest.mark.nightly
@pytest.mark.parametrize(("batch", "size"), [(2, 64), (4, 128)])
def test_resnet50_with_cbam_in_every_dtype(batch, size):
    check(resnet(batch=batch, size=size), ["float64", "float32", "bfloat16"])
