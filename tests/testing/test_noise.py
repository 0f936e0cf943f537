"""Random rounding errors in PyTorch: of the stated size, repeatable, and no more than that."""

import torch

from flax_attn.testing.noise import noise


def test_noise_is_relative_random_and_gone_afterwards():
    layer, x = torch.nn.Linear(3, 5).double(), torch.ones(2, 3, dtype=torch.float64)
    plain = layer(x)
    moved = []
    for seed in (0, 1, 0):
        with noise(2.0**-20, seed):
            moved.append(layer(x))
    assert torch.equal(moved[0], moved[2])
    assert not torch.equal(moved[0], moved[1])
    bound = 3 * 2.0**-20 * (layer.weight.abs().sum(1) + layer.bias.abs())
    assert ((moved[0] - plain).abs() <= bound).all()
    assert torch.equal(layer(x), plain)
    with noise(1.0, 0):
        assert torch.equal(torch.zeros(3) * 2, torch.zeros(3))


def test_batch_norm_keeps_its_running_statistics():
    norm = torch.nn.BatchNorm1d(3)
    with noise(2.0**-20, 0):
        norm(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)))
    assert norm.running_mean.any()


def test_equal_numbers_stay_equal_where_ties_are_kept():
    x = torch.tensor([3.0, 1.0, 3.0, 3.0], dtype=torch.float64)
    for ties in (False, True):
        with noise(2.0**-20, 0, ties=ties):
            moved = x * 2
        assert len(set(moved.tolist())) == (2 if ties else 4)
        assert not torch.equal(moved, x * 2)


def test_kept_ties_get_errors_of_the_same_spread():
    ones = torch.ones(1000, dtype=torch.float64)
    x = torch.linspace(0.5, 2, 1000, dtype=torch.float64)
    for seed in range(3):
        with noise(2.0**-20, seed, ties=True):
            moved = x * ones
        unit = (moved / x / (moved / x)[0] - 1) * 2**20
        assert 0.4 < unit.std() < 0.8  # 0.577 for a uniform distribution
        assert unit.abs().max() <= 2
