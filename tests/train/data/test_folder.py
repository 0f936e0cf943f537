"""Photos of every kind become squares; what cannot be read is left out and named."""

import io
import os
import re
import shutil
import struct
import sys

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from train.data import folder as folder_module
from train.data import open_source
from train.data.folder import read_folder
from train.data.picture import read_picture

# A dark left half and a bright right half, wider than high: the centre square is cut through by the edge.
WIDE = np.full((101, 149, 3), 40, np.uint8)
WIDE[:, 74:] = 200

LATIN_1 = os.fsdecode(b"caf\xe9.txt")
latin_1 = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are always text")


def save(path, image=WIDE, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def flat(value, mode="RGB", size=(41, 37)):
    return Image.new(mode, size, value)


@pytest.fixture
def photos(tmp_path):
    """Five readable images; tests add others."""
    for number in (1, 2, 3, 10, 20):
        save(tmp_path / f"photo{number}.png", flat((number, 0, 0)))
    return tmp_path


def only(tmp_path, image, name="a.png", **options):
    """How one image is read; it takes five for a set."""
    for number in range(5):
        save(tmp_path / f"{number}{name}", image, **options)
    images = read_folder(str(tmp_path)).read(slice(None))
    assert (images == images[:1]).all()
    return images[0]


def test_images_stand_in_natural_order_of_their_names_and_folders(photos):
    save(photos / "more" / "b.png", flat((30, 0, 0)))
    save(photos / "a.png", flat((0, 0, 0)))
    source = open_source(f"folder:{photos}")
    assert source.read(slice(None)).shape == (7, 96, 96, 3)
    assert source.read(slice(None))[:, 0, 0, 0].tolist() == [0, 30, 1, 2, 3, 10, 20]
    assert (source.shape, source.notes, source.train) == ((96, 96), (), range(5))


def test_a_terminal_gets_a_bar_while_files_are_read(photos, monkeypatch):
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=97, force_terminal=terminal)
        monkeypatch.setattr("train.data.folder.get_console", lambda console=console: console)
        read_folder(str(photos))
        assert ("reading the files" in console.file.getvalue()) == terminal


def test_hidden_files_and_folders_are_passed_over(photos):
    for name in (".hidden.png", ".thumbnails/a.png", "shown/.b.png"):
        save(photos / name)
    source = read_folder(str(photos))
    assert source.read(slice(None))[:, 0, 0, 0].tolist() == [1, 2, 3, 10, 20]
    assert source.notes == ()


def test_the_central_square_is_kept(tmp_path):
    image = only(tmp_path, WIDE)
    assert image[:, :45].max() <= 42
    assert image[:, 51:].min() >= 198


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "bmp", "webp", "tif", "ppm", "tga", "jp2"])
def test_common_formats_are_read(tmp_path, kind):
    image = only(tmp_path, WIDE, f".{kind}").astype(int)
    assert abs(image[:, :40] - 40).max() <= 8
    assert abs(image[:, 56:] - 200).max() <= 8


def test_large_and_small_images_have_the_same_size_afterwards(tmp_path):
    large = only(tmp_path / "large", flat((7, 7, 7), size=(1201, 1607)), ".jpg")
    assert large.tolist() == [[[7, 7, 7]] * 96] * 96
    assert only(tmp_path / "small", flat((7, 8, 9), size=(16, 23))).tolist() == [[[7, 8, 9]] * 96] * 96


def test_nothing_becomes_brighter_than_it_was(tmp_path):
    dots = np.where(np.random.default_rng(0).random((307, 311, 1)) < 0.2, np.uint8(180), np.uint8(20)).repeat(3, 2)
    assert only(tmp_path, dots).max() <= 180


def test_photos_are_turned_as_their_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image = only(tmp_path, WIDE, ".jpg", exif=exif)
    assert image[:40].mean() < 50  # what was left is up
    assert image[56:].mean() > 190


@pytest.mark.parametrize(
    ("mode", "value", "colour"),
    [
        ("L", 90, [90, 90, 90]),
        ("1", 1, [255, 255, 255]),
        ("I;16", 90 * 256 + 255, [90, 90, 90]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (10, 20, 30, 0), [128, 128, 128]),
        ("LA", (200, 0), [128, 128, 128]),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(tmp_path, mode, value, colour):
    image = only(tmp_path, flat(value, mode))
    assert (image == colour).all()


def tiff(values, bits):
    """A TIFF file of one strip of greyscale values, packed with so many bits each."""
    height, width = values.shape
    packed = "".join(f"{value:0{bits}b}" for value in values.ravel())
    strip = int(packed, 2).to_bytes(len(packed) // 8, "big")
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(strip)) + strip + directory


@pytest.mark.parametrize("name", ["tag", "twelve bits", "nothing", "a tag of 0"])
def test_the_range_of_16_bits_is_what_the_file_says(tmp_path, name):
    values = np.full((20, 20), 2048, np.uint16)
    values[:10] = 4095
    path = tmp_path / "a.tif"
    if name == "twelve bits":
        path.write_bytes(tiff(values, 12))
    else:
        tags = {"tag": {281: 4095}, "a tag of 0": {281: 0}}
        Image.fromarray(values).save(path, tiffinfo=tags.get(name, {}))
    expected = (15, 8) if name in ("nothing", "a tag of 0") else (255, 128)  # of 65,535 or of 4,095
    picture = read_picture(path)
    assert (picture[0].max(), picture[-1].max()) == expected


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int16", "float32"])
def test_pixels_of_unknown_range_are_refused(tmp_path, dtype):
    Image.fromarray(np.full((20, 20), 90, dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"^pixels of unknown range: floating-point, signed, or wider than 16 bits$"):
        read_picture(tmp_path / "a.tif")


def test_a_pgm_file_of_twelve_bits_is_scaled(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 20 20 4095\n" + np.full((20, 20), 2048, ">u2").tobytes())
    assert (read_picture(tmp_path / "a.pgm") == 128).all()


def test_palettes_with_a_transparent_colour_and_cmyk_become_rgb(tmp_path):
    palette = Image.fromarray(WIDE).quantize(2)
    dark = palette.getpixel((0, 0))
    image = only(tmp_path / "palette", palette, transparency=dark)
    assert (image[:, :40] == 128).all()
    assert (image[:, 56:] == 200).all()
    cmyk = only(tmp_path / "cmyk", flat((0, 255, 255, 0), "CMYK"), ".jpg")
    assert (cmyk[..., 0] > 200).all()
    assert (cmyk[..., 1:] < 60).all()


def damage(photos):
    """A folder as people have them, and what is said of each file that is left out."""
    whole = save(photos / "x" / "cut.jpg").read_bytes()
    (photos / "x" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    noise = np.random.default_rng(0).integers(0, 256, (101, 149, 3), np.uint8)
    whole = save(photos / "cut.png", noise).read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "empty.jpg").write_bytes(b"")
    (photos / "notes.txt").write_text("no image")
    (photos / "renamed.jpg").write_text("no image")
    save(photos / "icon.png", flat((0, 0, 0), size=(15, 33)))
    return "cut.png (", "empty.jpg (not an image of a known format)", "notes.txt (", "renamed.jpg (", "x/cut.jpg ("


def test_what_cannot_be_read_and_what_is_too_small_is_left_out_counted_and_named(photos):
    unreadable = damage(photos)
    source = read_folder(str(photos))
    assert source.read(slice(None))[:, 0, 0, 0].tolist() == [1, 2, 3, 10, 20]
    (note,) = source.notes
    assert note.startswith(f"folder:{photos}: 6 files or folders left out: cut.png (")
    assert all(name in note for name in unreadable)
    assert "icon.png (15x33 pixels, smaller than 16x16)" in note


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_left_out_and_not_waited_for(photos):
    os.mkfifo(photos / "pipe.png")
    assert read_folder(str(photos)).notes == (
        f"folder:{photos}: 1 files or folders left out: pipe.png (not a regular file)",
    )


def test_what_claims_to_be_larger_than_any_photo_is_left_out(photos, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    save(photos / "large.png", flat((40, 0, 0), size=(40, 41)))
    save(photos / "larger.png", flat((50, 0, 0), size=(40, 51)))
    source = read_folder(str(photos))
    assert source.read(slice(None))[:, 0, 0, 0].tolist() == [40, 1, 2, 3, 10, 20]
    assert source.notes == (f"folder:{photos}: 1 files or folders left out: larger.png (more than 268 megapixels)",)
    monkeypatch.undo()
    assert Image.MAX_IMAGE_PIXELS * 2 > 16320 * 12240  # a 200-megapixel camera's


def test_folders_that_cannot_be_entered_and_links_to_folders_are_left_out_counted_and_named(photos, monkeypatch):
    for name in ("open", "more/closed10", "more/closed2"):
        save(photos / name / "b.png", flat((30, 0, 0)))
    (photos / "loop").symlink_to(photos)
    scan = os.scandir

    def closed(path):
        if "closed" in str(path):  # root may enter any
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    source = read_folder(str(photos))
    assert source.read(slice(None))[:, 0, 0, 0].tolist() == [30, 1, 2, 3, 10, 20]
    assert source.notes == (
        f"folder:{photos}: 3 files or folders left out: loop (a link to a folder), "
        "more/closed10 (Permission denied), more/closed2 (Permission denied)",
    )


def test_a_folder_that_cannot_be_read_at_all_says_so(photos, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(ValueError, match=re.escape("got none; ")) as caught:
        open_source(f"folder:{photos}")
    assert str(caught.value).endswith("1 files or folders left out: . (Permission denied)")


@latin_1
def test_names_that_are_no_text_can_be_shown(photos):
    (photos / LATIN_1).write_text("no image")
    (photos / "two\nlines.txt").write_text("no image")
    (note,) = read_folder(str(photos)).notes
    assert r"caf\udce9.txt (not an image of a known format), two\nlines.txt (" in note
    assert note.encode()


def test_of_many_files_the_first_are_named_and_the_others_counted(photos):
    for number in range(25):
        (photos / f"t{number}.txt").write_text("no image")
    (note,) = read_folder(str(photos)).notes
    assert ": 25 files or folders left out: t0.txt (not an image of a known format), t1.txt (" in note
    assert "t19.txt" in note
    assert note.endswith(" and 5 more")


def test_a_large_folder_keeps_paths_and_decodes_when_asked(photos, monkeypatch):
    damage(photos)
    small = read_folder(str(photos))
    monkeypatch.setattr(folder_module, "KEPT_BYTES", 11 * 96 * 96 * 3 - 1)
    large = read_folder(str(photos))
    assert not isinstance(large.records, np.ndarray)
    assert np.array_equal(np.stack(list(map(large.records.__getitem__, range(5)))), small.records)
    assert large.notes == small.notes
    shutil.rmtree(photos)
    with pytest.raises(OSError, match=r"photo1.png could be read at first, but no longer: no such file$"):
        large.records[0]


def test_a_folder_without_a_readable_image_is_an_error_that_says_what_was_there(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=re.escape("needed, got none; ")) as caught:
        open_source(f"folder:{tmp_path}")
    assert "1 files or folders left out: notes.txt" in str(caught.value)
    with pytest.raises(ValueError, match=r"at least 5 readable images are needed, got none"):
        open_source(f"folder:{save(tmp_path / 'inner' / '.hidden.png').parent}")


def test_too_few_images_a_file_and_a_missing_folder_are_errors(photos):
    (photos / "photo1.png").unlink()
    for path, error, message in (
        (
            photos,
            ValueError,
            "at least 5 images of at least 16x16 pixels, uint8 (n, h, w, 3), are needed, got uint8 (4, 96, 96, 3)",
        ),
        (photos / "photo2.png", ValueError, "must be a folder, got a file"),
        (photos / "nowhere", FileNotFoundError, "no such folder"),
    ):
        with pytest.raises(error, match=f"^{re.escape(f'folder:{path}: {message}')}$"):
            open_source(f"folder:{path}")
