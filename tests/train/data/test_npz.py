"""Archives that are read, and what is said about those that are not."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from train.data import open_source

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 17, 19, 3), np.uint8)


def jpeg(image, kind="JPEG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    return file.getvalue()


def blobs(files):
    offset = np.cumsum([0, *map(len, files)])
    return {"jpeg": np.frombuffer(b"".join(files), np.uint8), "offset": offset}


FILES = [jpeg(image) for image in IMAGES]
BLOBS = blobs(FILES)


def test_an_array_is_read_as_it_is(tmp_path):
    np.savez(tmp_path / "a.npz", images=IMAGES)
    source = open_source(f"npz:{tmp_path / 'a.npz'}")
    assert np.array_equal(source.read(slice(None)), IMAGES)
    assert (source.train, source.test) == (range(5), range(5, 7))


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    np.savez(tmp_path / "a.npz", images=IMAGES)
    assert np.array_equal(open_source("npz:~/a.npz").read(slice(None)), IMAGES)
    with pytest.raises(FileNotFoundError, match=r"^npz:~/b.npz: no such file$"):
        open_source("npz:~/b.npz")
    for kind in ("npz", "folder", "stl10"):
        with pytest.raises(FileNotFoundError, match=rf"^{kind}:~nobody-of-this-name: no such "):
            open_source(f"{kind}:~nobody-of-this-name")


def test_jpeg_files_are_decoded_in_order(tmp_path):
    smooth = [np.full((17, 19, 3), value, np.uint8) for value in (0, 50, 100, 150, 200, 250)]
    np.savez(tmp_path / "a.npz", classes=np.array(["x"], object), **blobs([jpeg(image) for image in smooth]))
    images = open_source(f"npz:{tmp_path / 'a.npz'}").read(slice(None))
    assert images.shape == (6, 17, 19, 3)
    assert images.mean((1, 2, 3)).round().tolist() == [0, 50, 100, 150, 200, 250]


def test_grey_jpeg_files_become_colour(tmp_path):
    np.savez(tmp_path / "a.npz", **blobs([jpeg(image[..., 0]) for image in IMAGES]))
    assert open_source(f"npz:{tmp_path / 'a.npz'}").read(slice(None)).shape == (7, 17, 19, 3)


def damaged(files, place, file):
    return blobs([*files[:place], file, *files[place + 1 :]])


BAD = {
    "nothing known": ({"pictures": IMAGES}, "must hold images, or jpeg and offset, got pictures"),
    "no offset": ({"jpeg": BLOBS["jpeg"]}, "must hold images, or jpeg and offset, got jpeg"),
    "floats": ({"images": IMAGES / 255}, "uint8 (n, h, w, 3), are needed, got float64 (7, 17, 19, 3)"),
    "objects": ({"images": np.array([None] * 7)}, "plain arrays is needed, got: Object arrays cannot be loaded"),
    "no colours": ({"images": IMAGES[..., 0]}, "(n, h, w, 3), are needed, got uint8 (7, 17, 19)"),
    "channels first": ({"images": IMAGES.transpose(0, 3, 1, 2)}, "(n, h, w, 3), are needed, got uint8 (7, 3, 17, 19)"),
    "small": (
        {"images": IMAGES[:, :15]},
        "at least 16x16 pixels, uint8 (n, h, w, 3), are needed, got uint8 (7, 15, 19, 3)",
    ),
    "few": (
        {"images": IMAGES[:4]},
        "at least 5 images of at least 16x16 pixels, uint8 (n, h, w, 3), are needed, got uint8 (4, ",
    ),
    "blob dtype": (
        {**BLOBS, "jpeg": BLOBS["jpeg"].astype(int)},
        "jpeg must be uint8 (bytes,), and offset n + 1 integers that increase within [0, bytes], got jpeg int64",
    ),
    "blob axes": ({**BLOBS, "jpeg": BLOBS["jpeg"][:, None]}, ", 1) and offset int64 (8,)"),
    "offset dtype": ({**BLOBS, "offset": BLOBS["offset"] / 1}, "and offset float64 (8,)"),
    "offset length": ({**BLOBS, "offset": np.array([0])}, "and offset int64 (1,)"),
    "offset past the end": ({**BLOBS, "jpeg": BLOBS["jpeg"][:-1]}, "increase within [0, bytes], got jpeg uint8 ("),
    "offset below 0": ({**BLOBS, "offset": BLOBS["offset"] - 1}, "increase within [0, bytes], got jpeg uint8 ("),
    "offset back": (
        {**BLOBS, "offset": BLOBS["offset"][[0, 2, 1, 3, 4, 5]]},
        "increase within [0, bytes], got jpeg uint8 (",
    ),
    "cut JPEG": (damaged(FILES, 3, FILES[3][:300]), "image 3 must be a JPEG file, got bytes that do not decode"),
    "no JPEG": (damaged(FILES, 5, b"hello"), "image 5 must be a JPEG file, got bytes that do not decode"),
    "PNG": (damaged(FILES, 0, jpeg(IMAGES[0], "PNG")), "image 0 must be a JPEG file"),
    "sizes": (damaged(FILES, 2, jpeg(IMAGES[2, :, :18])), "the shape of the first, (17, 19, 3), got (17, 18, 3) for 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_archive_of_something_else_is_an_error_of_one_line(tmp_path, name):
    arrays, message = BAD[name]
    np.savez(tmp_path / "a.npz", **arrays)
    check(tmp_path / "a.npz", ValueError, message)


@pytest.mark.parametrize("compress", [np.savez, np.savez_compressed])
def test_a_truncated_or_changed_archive_is_an_error_of_one_line(tmp_path, compress):
    path = tmp_path / "a.npz"
    compress(path, images=IMAGES)
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], whole[:100], b"", whole[:500] + bytes(64) + whole[564:], b"not a zip"):
        path.write_bytes(part)
        check(path, ValueError, "a readable .npz archive of plain arrays is needed, got: ")


def test_a_single_array_a_folder_and_nothing_are_errors_of_one_line(tmp_path):
    np.save(tmp_path / "a.npy", IMAGES)
    check(tmp_path / "a.npy", ValueError, "got: a file that is truncated or of another kind")
    check(tmp_path, ValueError, "a readable .npz archive of plain arrays is needed, got: ")
    check(tmp_path / "b.npz", FileNotFoundError, "no such file")


def check(path, error, message):
    with pytest.raises(error, match=re.escape(message)) as caught:
        open_source(f"npz:{path}")
    assert str(caught.value).startswith(f"npz:{path}: ")
    assert "\n" not in str(caught.value)
