import numpy as np

from train.data.batches import eval_batches, train_batches


def epoch(number, shuffle=True, seed=0):
    batches = train_batches(range(20), 6, shuffle=shuffle, seed=seed, epoch=number)
    return np.stack(list(batches))


def test_unshuffled_batches_are_in_file_order_and_full():
    assert epoch(3, shuffle=False).tolist() == np.arange(18).reshape(3, 6).tolist()


def test_shuffled_batches_differ_by_epoch_and_seed_and_repeat():
    assert len(np.unique(epoch(0))) == 18
    assert not np.array_equal(epoch(0), epoch(1))
    assert not np.array_equal(epoch(0), epoch(0, seed=1))
    assert np.array_equal(epoch(1), epoch(1))


def test_test_batches_hold_every_image_once():
    batches = list(eval_batches(range(20, 33), 5))
    seen = np.concatenate([indices[real] for indices, real in batches])
    assert seen.tolist() == list(range(20, 33))
    assert all(len(indices) == 5 for indices, _ in batches)
