"""Users' images: upright, cut to the middle, resized; or named with what is wrong."""

import numpy as np
import pytest
from PIL import Image

from train.data.picture import read_picture

LEVELS = 3  # of 255, by which resampling and JPEG may change a flat colour


def thirds(height, width):
    """Red, green and blue from left to right."""
    picture = np.zeros((height, width, 3), np.uint8)
    for channel, part in enumerate(np.array_split(np.arange(width), 3)):
        picture[:, part, channel] = 255
    return picture


def near(got, want):
    return np.abs(got.astype(int) - want).max() <= LEVELS


def test_an_image_of_the_size_is_taken_as_it_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_picture(tmp_path / "a.png", 20, 28), pixels)


def test_the_middle_is_cut_out(tmp_path):
    # The columns at the seams mix a little with their neighbours.
    Image.fromarray(thirds(40, 120)).save(tmp_path / "a.png")
    assert near(read_picture(tmp_path / "a.png", 24, 24)[:, 4:-4], [0, 255, 0])
    Image.fromarray(thirds(40, 120).transpose(1, 0, 2)).save(tmp_path / "b.png")
    assert near(read_picture(tmp_path / "b.png", 17, 17)[4:-4], [0, 255, 0])
    wide = read_picture(tmp_path / "a.png", 24, 48)  # the image's proportions count, not its size
    assert near(wide[:, 16:32], [0, 255, 0])
    assert near(wide[:, 0], [255, 0, 0])


def test_the_orientation_in_exif_counts(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(thirds(60, 60)).save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    turned = read_picture(tmp_path / "a.jpg", 60, 60)
    assert near(turned[5, :, :], [254, 0, 0])
    assert near(turned[-5, :, :], [0, 0, 254])


@pytest.mark.parametrize(("value", "expected"), [(0xFFFF, 255), (0x8000, 128), (0x0203, 2)])
def test_sixteen_bits_become_eight(tmp_path, value, expected):
    Image.fromarray(np.full((31, 37), value, np.uint16)).save(tmp_path / "a.png")
    assert (read_picture(tmp_path / "a.png", 20, 28) == expected).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "CMYK", "RGBA", "YCbCr"])
def test_modes_become_rgb(tmp_path, mode):
    suffix = ".tif"
    Image.new("RGB", (41, 37), "white").convert(mode).save(tmp_path / f"a{suffix}")
    photo = read_picture(tmp_path / f"a{suffix}", 20, 28)
    assert (photo.shape, photo.dtype) == ((20, 28, 3), np.uint8)
    assert near(photo, 255)


def test_what_is_transparent_is_grey(tmp_path):
    Image.new("RGBA", (41, 37), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert near(read_picture(tmp_path / "a.png", 20, 28), 128)
