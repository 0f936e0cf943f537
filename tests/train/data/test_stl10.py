"""STL-10 through the real builder of tensorflow-datasets, on a small archive in STL-10's layout."""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from train.data import open_source, stl10
from train.data.batches import train_batches
from train.data.reach import WAIT
from train.data.stl10 import ARCHIVE, URL, hashed_order
from train.data.stream import Stream

from .stl10_archive import images, write_archive

ROOT = Path(__file__).parents[3]
EXTRA = ("tensorflow_datasets", "tensorflow", "importlib_resources")
if not all(map(importlib.util.find_spec, EXTRA)):
    pytest.skip("the stl10 extra is not installed", allow_module_level=True)

import tensorflow_datasets as tfds  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def small_archive(tmp_path_factory):
    """The builder takes the small archive for the real one."""
    from tensorflow_datasets.core.download import checksums

    path = write_archive(tmp_path_factory.mktemp("archive"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tfds.builder_cls("stl10").url_infos, URL, checksums.compute_url_info(path))
        yield path


@pytest.fixture(scope="module")
def prepared(small_archive, tmp_path_factory):
    """A folder with the archive and what the builder has made of it; the archive is gone again."""
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copy(small_archive, folder)
    open_source(f"stl10:{folder}")
    (folder / ARCHIVE).unlink()
    return folder


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setattr(stl10, "why_unreachable", lambda url: "no answer within 4 s")


def test_images_stand_in_the_order_of_the_archive(prepared):
    source = open_source(f"stl10:{prepared}")
    assert np.array_equal(source.images, images("train"))
    assert (source.train, source.test, source.shape) == (range(8), range(8, 11), (96, 96))


def test_that_order_is_not_the_one_of_tensorflow_datasets(prepared):
    examples = tfds.builder("stl10", data_dir=prepared, file_format="array_record").as_data_source("train")
    order = hashed_order(11, "train")
    assert order.tolist() != list(range(11))
    assert np.array_equal(np.stack([example["image"] for example in examples]), images("train")[order])


def test_unlabelled_images_train_and_the_last_labelled_ones_test(prepared):
    source = open_source(f"stl10-unlabelled:{prepared}")
    assert (source.train, source.test) == (range(13), range(22, 24))
    assert np.array_equal(source.images, np.concatenate([images("unlabeled"), images("train")]))
    labelled = open_source(f"stl10:{prepared}")
    assert np.array_equal(source.images[22:], labelled.images[-2:])


def test_it_streams_in_the_order_of_a_resident_run(prepared):
    source = open_source(f"stl10-unlabelled:{prepared}")
    streamed = Stream(source, 3, seed=5, shuffle=True, workers=0).batches()
    for (batch, _), indices in zip(
        streamed, train_batches(source.train, 3, shuffle=True, seed=5, epoch=0), strict=False
    ):
        assert np.array_equal(batch, images("unlabeled")[indices])
    streamed.close()


def test_what_is_prepared_is_read_without_tensorflow_and_leaves_nothing_unpacked(prepared):
    code = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
from train.data import open_source
print(open_source("stl10:{prepared}").images.sum())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout == f"{images('train').sum()}\n", done.stderr
    assert not [path for path in prepared.rglob("*") if path.suffix == ".bin" or path.name.startswith("unpacked_")]


def test_without_network_and_archive_the_error_says_what_to_download_and_where_to_put_it(tmp_path, no_network):
    with pytest.raises(ValueError, match=r"^stl10:.*cannot be downloaded: no answer within 4 s\.") as caught:
        open_source(f"stl10:{tmp_path}")
    assert URL in str(caught.value)
    assert "put it into a folder as stl10_binary.tar.gz, and pass --data stl10:FOLDER" in str(caught.value)
    with pytest.raises(ValueError, match="pass --data stl10-unlabelled:FOLDER"):
        open_source(f"stl10-unlabelled:{tmp_path}")


def test_a_note_of_a_download_without_its_archive_is_no_archive(tmp_path, small_archive, no_network):
    """A kill between the two leaves that."""
    downloads = tmp_path / "downloads" / "stl10"
    downloads.mkdir(parents=True)
    archive = downloads / "ai.stan.edu_acoa_stl10_stl10_binaryXYZ.tar.gz"
    archive.with_name(f"{archive.name}.INFO").write_text("{}")
    for cut_off in (None, b"some"):
        if cut_off:
            archive.write_bytes(cut_off)
        with pytest.raises(ValueError, match="cannot be downloaded: no answer"):
            open_source(f"stl10:{tmp_path}")
    shutil.copy(small_archive, archive)
    assert stl10._is_downloaded(tmp_path, small_archive.stat().st_size)


@pytest.mark.skipif(stl10.fcntl is None, reason="no locks")
def test_what_a_killed_process_has_unpacked_goes_and_what_another_one_unpacks_stays(tmp_path):
    left = tmp_path / "unpacked_abc" / "train_X.bin"
    left.parent.mkdir()
    left.touch()
    with stl10._held(tmp_path), stl10._folder_to_unpack_in(tmp_path) as mine:
        assert left.exists()
        assert Path(mine).is_dir()
    with stl10._folder_to_unpack_in(tmp_path) as mine:
        assert [path for path in tmp_path.iterdir() if path.name.startswith("unpacked_")] == [Path(mine)]
    assert not list(tmp_path.iterdir())


def test_a_closed_network_is_an_error_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(ValueError, match="cannot be downloaded: "):
        open_source(f"stl10:{tmp_path}")


def test_a_network_that_swallows_everything_is_an_error_within_ten_seconds(tmp_path):
    """Of the command as a whole, told by the processor's time, which a busy machine does not make longer."""
    resource = pytest.importorskip("resource")
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and says nothing
        proxy = {"http_proxy": f"http://127.0.0.1:{server.getsockname()[1]}", "no_proxy": ""}
        words = [sys.executable, "-m", "train", "--data", f"stl10:{tmp_path}", "--run-dir", str(tmp_path / "run")]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(words, cwd=ROOT, env=os.environ | proxy, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 2
    assert "WARNING" not in done.stderr
    assert f"cannot be downloaded: no answer within {WAIT:g} s" in done.stderr
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert busy + WAIT < 10


def test_an_archive_that_is_cut_off_or_changed_is_refused_by_name(tmp_path, small_archive, no_network):
    whole = small_archive.read_bytes()
    archive = tmp_path / ARCHIVE
    archive.write_bytes(whole[:-7])
    message = f"{archive} must have {len(whole)} bytes, got {len(whole) - 7}: download it again"
    with pytest.raises(ValueError, match=f"^{re.escape(f'stl10:{tmp_path}: {message}')}$"):
        open_source(f"stl10:{tmp_path}")
    archive.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    with pytest.raises(ValueError, match=f"^{re.escape(f'stl10:{tmp_path}: preparing STL-10 failed: ')}.*{ARCHIVE}"):
        open_source(f"stl10:{tmp_path}")
    assert not list(tmp_path.glob("unpacked_*"))


@pytest.mark.parametrize("needed", ["tensorflow", "importlib_resources"])
def test_preparing_without_what_it_needs_names_the_extra(tmp_path, monkeypatch, needed):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == needed else real(name, *rest))
    message = f"preparing STL-10 needs {needed}, got none; install it with: pip install -e '.[stl10]'"
    with pytest.raises(ValueError, match=f"^{re.escape(f'stl10:{tmp_path}: {message}')}$"):
        open_source(f"stl10:{tmp_path}")


def test_a_missing_folder_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"^stl10:/nowhere/at/all: no such folder$"):
        open_source(f"stl10:{Path('/nowhere/at/all')}")
