"""The orders in which PyTorch's other runs take their sums."""

import pytest
import torch

from train.twin import Order


def kernels(order):
    with order.kernels():
        return order.memory_format, torch.backends.mkldnn.enabled


def test_the_reference_takes_everything_as_it_comes():
    assert Order(0, seed=3).images(5, 7).tolist() == list(range(7))
    assert kernels(Order(0, 3)) == (torch.contiguous_format, torch.backends.mkldnn.enabled)


def test_each_run_and_step_has_an_order_of_its_own():
    orders = [tuple(Order(run, seed).images(step, 11)) for seed in (0, 1) for run in (1, 2, 3) for step in range(4)]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len(set(orders)) == len(orders)


def test_four_runs_go_through_all_kernels():
    for first in (1, 5):
        orders = [Order(run, 0) for run in range(first, first + 4)]
        assert len(set(map(kernels, orders))) == 4


def test_kernels_are_as_before_afterwards():
    before = torch.backends.mkldnn.enabled
    with Order(1, 0).kernels():
        assert torch.backends.mkldnn.enabled == before
    with pytest.raises(KeyError), Order(3, 0).kernels():
        raise KeyError(torch.backends.mkldnn.enabled)
    assert torch.backends.mkldnn.enabled == before
    with Order(3, 0).kernels():
        assert not torch.backends.mkldnn.enabled
