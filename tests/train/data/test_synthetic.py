"""The ranges asked for lie about what 5,000 photographs of the same size have (Caltech-101, box-resized)."""

import numpy as np
import pytest

from train.data.synthetic import synthetic_images

WHITE, PATCH, FILLED = 250, 16, 0.95


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return synthetic_images(3000)


@pytest.fixture(scope="module")
def luminance(images: np.ndarray) -> np.ndarray:
    return images[::3] @ np.array([0.299, 0.587, 0.114], np.float32)


@pytest.fixture(scope="module")
def white(images: np.ndarray) -> np.ndarray:
    return images.min(-1) >= WHITE


@pytest.fixture(scope="module")
def white_windows(white: np.ndarray) -> np.ndarray:
    """Share of the windows of each image that could pass for a white patch, by a summed-area table."""
    some = np.flatnonzero(white.sum((1, 2)) >= FILLED * PATCH**2)
    table = np.pad(white[some], ((0, 0), (1, 0), (1, 0))).cumsum(1, np.int32).cumsum(2, np.int32)
    rows = table[:, PATCH:] - table[:, :-PATCH]
    shares = np.zeros(len(white))
    shares[some] = (rows[:, :, PATCH:] - rows[:, :, :-PATCH] >= FILLED * PATCH**2).mean((1, 2))
    return shares


def test_shape_and_type(images):
    assert images.shape == (3000, 96, 96, 3)
    assert images.dtype == np.uint8
    assert synthetic_images(2, size=40).shape == (2, 40, 40, 3)


def test_same_seed_same_images_whatever_the_count(images):
    np.testing.assert_array_equal(synthetic_images(5), images[:5])


def test_every_image_and_every_seed_differs(images):
    assert len({image.tobytes() for image in images}) == len(images)
    other = synthetic_images(5, seed=1)
    assert all(np.abs(a.astype(int) - b).mean() > 10 for a, b in zip(other, images, strict=False))


def test_near_white_windows_are_as_frequent_as_in_photographs(white_windows):
    assert 0.0005 <= white_windows.mean() <= 0.002


def test_near_white_is_concentrated_in_few_images_and_has_all_sizes(white, white_windows):
    assert 0.01 <= (white_windows > 0).mean() <= 0.04
    covered = white.mean((1, 2))[white_windows > 0]
    assert (covered < 0.15).sum() >= 10
    assert (covered > 0.4).sum() >= 5


def test_brightness_and_contrast(luminance):
    assert 110 <= luminance.mean() <= 135
    contrast = luminance.std((1, 2))
    assert 45 <= contrast.mean() <= 62
    assert np.percentile(contrast, 5) <= 35
    assert np.percentile(contrast, 95) >= 70


def test_colour_channels_are_correlated(images):
    (_, red_green, red_blue), (_, _, green_blue), _ = np.corrcoef(images[::3].reshape(-1, 3).T)
    assert 0.82 <= red_green <= 0.95
    assert 0.82 <= green_blue <= 0.95
    assert 0.62 <= red_blue <= 0.82


def test_power_spectrum_falls_by_a_power_law(luminance):
    size = luminance.shape[-1]
    window = np.hanning(size)
    centred = luminance - luminance.mean((1, 2), keepdims=True)
    power = (np.abs(np.fft.rfft2(centred * window * window[:, None])) ** 2).mean(0)
    cycles = np.hypot(np.fft.fftfreq(size, 1 / size)[:, None], np.fft.rfftfreq(size, 1 / size)).round()
    rings = np.arange(3, 33)
    spectrum = [power[cycles == ring].mean() for ring in rings]
    assert -2.9 <= np.polyfit(np.log(rings), np.log(spectrum), 1)[0] <= -2.2


def test_gradients_are_sparse(luminance):
    gradient = np.diff(luminance, axis=2)
    kurtosis = (gradient**4).mean() / (gradient**2).mean() ** 2
    assert 12 <= kurtosis <= 26  # 3 for Gaussian noise
    assert 18 <= gradient.std() <= 30
