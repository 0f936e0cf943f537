"""The orders in which PyTorch's other runs take their sums."""

import pytest
import torch

from flax_attn.testing import relative_error, tolerance
from torch_ref.networks.patch import NetCBAM
from train.twin import Order


def kernels(order):
    with order.kernels():
        return order.memory_format, torch.backends.mkldnn.enabled


def test_the_reference_takes_everything_as_it_comes():
    twin = NetCBAM()
    before = {name: tensor.clone() for name, tensor in twin.state_dict().items()}
    Order(0, seed=3).channels(twin)
    assert all(torch.equal(before[name], tensor) for name, tensor in twin.state_dict().items())
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


def test_other_channels_are_the_same_function_with_other_sums():
    torch.manual_seed(0)
    twin, x = NetCBAM().double(), torch.rand(5, 3, 20, 28, dtype=torch.float64)
    for norm in (twin.conv.bn1a, twin.conv.bn2a):
        for tensor in (*norm.parameters(), *norm.buffers()):
            torch.nn.init.uniform_(tensor, 0.5, 1.5) if tensor.is_floating_point() else None
    for mode in ("eval", "train"):
        getattr(twin, mode)()
        expected = twin(x)[1].detach().numpy()
        Order(2, seed=0).channels(twin)
        assert 0 < relative_error(twin(x)[1].detach().numpy(), expected) <= tolerance("output", "float64")


def test_kernels_are_as_before_afterwards():
    before = torch.backends.mkldnn.enabled
    with Order(1, 0).kernels():
        assert torch.backends.mkldnn.enabled == before
    with pytest.raises(KeyError), Order(3, 0).kernels():
        raise KeyError(torch.backends.mkldnn.enabled)
    assert torch.backends.mkldnn.enabled == before
    with Order(3, 0).kernels():
        assert not torch.backends.mkldnn.enabled


def test_seeds_of_images_and_channels_do_not_coincide():
    twin = NetCBAM()
    with torch.no_grad():
        twin.conv.c1a.bias.copy_(torch.arange(32.0))
        twin.conv.c2a.bias.copy_(torch.arange(32.0))
    order = Order(1, seed=0)
    order.channels(twin)
    found = [twin.conv.c1a.bias.tolist(), twin.conv.c2a.bias.tolist(), order.images(0, 32).tolist()]
    assert len(set(map(tuple, found))) == 3
    assert all(sorted(places) == list(range(32)) for places in found)
