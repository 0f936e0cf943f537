"""The orders in which PyTorch's other runs take their sums."""

import torch

from train.twin import Order


def test_the_reference_takes_everything_as_it_comes():
    assert Order(0, seed=3).images(5, 7).tolist() == list(range(7))
    assert Order(0, seed=3).memory_format == torch.contiguous_format


def test_each_run_and_step_has_an_order_of_its_own():
    orders = [tuple(Order(run, seed).images(step, 11)) for seed in (0, 1) for run in (1, 2, 3) for step in range(4)]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert len(set(orders)) == len(orders)


def test_two_runs_go_through_both_memory_formats():
    assert {Order(run).memory_format for run in (1, 2)} == {torch.channels_last, torch.contiguous_format}
