"""STL-10 through the real builder of tensorflow-datasets, on a small archive in STL-10's layout; prepared once."""

import importlib.util
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from train.data import open_source
from train.data.stl10 import UNPACKED, URL, hashed_order

from .stl10_archive import images, write_archive

EXTRA = ("tensorflow_datasets", "tensorflow", "importlib_resources")
needs_extra = pytest.mark.skipif(not all(map(importlib.util.find_spec, EXTRA)), reason="needs the stl10 extra")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A small archive that the builder takes for the real one."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    path = write_archive(tmp_path_factory.mktemp("archive"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tfds.builder_cls("stl10").url_infos, URL, checksums.compute_url_info(path))
        yield path


@pytest.fixture(scope="module")
def prepared(archive, tmp_path_factory):
    """A folder with the prepared data set, and what a killed preparation had left; the archive is gone again."""
    folder = tmp_path_factory.mktemp("prepared")
    left = folder / UNPACKED / "GZIP.incomplete_1234" / "train_X.bin"
    left.parent.mkdir(parents=True)
    left.touch()
    shutil.copy(archive, folder)
    open_source(f"stl10:{folder}")
    (folder / archive.name).unlink()
    return folder


@needs_extra
def test_images_are_in_the_order_of_the_archive_not_in_that_of_tensorflow_datasets(prepared):
    import tensorflow_datasets as tfds

    source = open_source(f"stl10:{prepared}")
    assert np.array_equal(source.read(slice(None)), images("train"))
    assert (source.train, source.test, source.shape) == (range(8), range(8, 11), (96, 96))
    examples = tfds.builder("stl10", data_dir=prepared, file_format="array_record").as_data_source("train")
    order = hashed_order(11, "train")
    assert order.tolist() != list(range(11))
    assert np.array_equal(np.stack([example["image"] for example in examples]), images("train")[order])


@needs_extra
def test_unlabelled_images_train_and_the_last_labelled_ones_test(prepared):
    source = open_source(f"stl10-unlabelled:{prepared}")
    assert (source.train, source.test) == (range(13), range(22, 24))
    assert np.array_equal(source.read(slice(None)), np.concatenate([images("unlabeled"), images("train")]))


@needs_extra
def test_a_prepared_set_is_read_without_tensorflow_and_nothing_unpacked_is_left(prepared):
    code = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
from train.data import open_source
print(open_source("stl10:{prepared}").read(slice(None)).sum())
"""
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path)
    assert done.stdout == f"{images('train').sum()}\n", done.stderr
    assert not [path for path in prepared.rglob("*") if path.suffix == ".bin" or path.name == UNPACKED]


@needs_extra
@pytest.mark.parametrize("kind", ["stl10", "stl10-unlabelled"])
def test_without_network_and_archive_the_error_says_what_to_download_and_where_to_put_it(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ValueError, match=rf"^{kind}:.*: STL-10 could not be prepared: .*refused") as caught:
        open_source(f"{kind}:{tmp_path}")
    assert f"download {URL} (2.6 GB) into a folder and pass --data {kind}:FOLDER" in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_extra
@pytest.mark.parametrize("change", [lambda whole: whole[:-7], lambda whole: whole[:500] + b"no" + whole[502:]])
def test_a_truncated_or_changed_archive_is_refused_by_name(tmp_path, archive, change):
    (tmp_path / archive.name).write_bytes(change(archive.read_bytes()))
    message = f"stl10:{tmp_path}: STL-10 could not be prepared: "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*{archive.name}.*wrong"):
        open_source(f"stl10:{tmp_path}")
    assert not (tmp_path / UNPACKED).exists()


@needs_extra
def test_preparing_without_tensorflow_names_the_extra(tmp_path, archive):
    shutil.copy(archive, tmp_path)
    code = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
from train.data import open_source
try:
    open_source("stl10:{tmp_path}")
except ValueError as error:
    print(error)
"""
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path)
    assert "That needs the stl10 extra, install it with: pip install -e '.[stl10]'; " in done.stdout, done.stderr


def test_a_missing_folder_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"^stl10:/nowhere/at/all: no such folder$"):
        open_source("stl10:/nowhere/at/all")
