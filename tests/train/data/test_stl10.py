"""STL-10 through the real builder of tensorflow-datasets, on a small archive in STL-10's layout; prepared once."""

import contextlib
import http.server
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest

from train.data import open_source
from train.data.stl10 import ARCHIVE, UNPACKED, URL, WAIT, hashed_order, why_unreachable

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
    (folder / ARCHIVE).unlink()
    return folder


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("no_proxy", "")


@needs_extra
def test_images_are_in_the_order_of_the_archive_not_in_that_of_tensorflow_datasets(prepared):
    import tensorflow_datasets as tfds

    source = open_source(f"stl10:{prepared}")
    assert np.array_equal(source.images, images("train"))
    assert (source.train, source.test, source.shape) == (range(8), range(8, 11), (96, 96))
    examples = tfds.builder("stl10", data_dir=prepared, file_format="array_record").as_data_source("train")
    order = hashed_order(11, "train")
    assert order.tolist() != list(range(11))
    assert np.array_equal(np.stack([example["image"] for example in examples]), images("train")[order])


@needs_extra
def test_unlabelled_images_train_and_the_last_labelled_ones_test(prepared):
    source = open_source(f"stl10-unlabelled:{prepared}")
    assert (source.train, source.test) == (range(13), range(22, 24))
    assert np.array_equal(source.images, np.concatenate([images("unlabeled"), images("train")]))


@needs_extra
def test_a_prepared_set_is_read_without_tensorflow_and_nothing_unpacked_is_left(prepared):
    code = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
from train.data import open_source
print(open_source("stl10:{prepared}").images.sum())
"""
    path = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path)
    assert done.stdout == f"{images('train').sum()}\n", done.stderr
    assert not [path for path in prepared.rglob("*") if path.suffix == ".bin" or path.name == UNPACKED]


@needs_extra
@pytest.mark.parametrize("kind", ["stl10", "stl10-unlabelled"])
def test_without_network_and_archive_the_error_says_what_to_download_and_where_to_put_it(tmp_path, no_network, kind):
    with pytest.raises(ValueError, match=rf"^{kind}:.*cannot be downloaded: .*refused\. Download") as caught:
        open_source(f"{kind}:{tmp_path}")
    assert URL in str(caught.value)
    assert f"put it into a folder as stl10_binary.tar.gz, and pass --data {kind}:FOLDER" in str(caught.value)


@needs_extra
def test_a_network_that_swallows_everything_is_given_up_soon(tmp_path, monkeypatch):
    with server(None) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "")
        with pytest.raises(ValueError, match=rf"cannot be downloaded: no answer within {WAIT:g} s"):
            open_source(f"stl10:{tmp_path}")


@needs_extra
def test_only_a_whole_download_with_its_record_is_used(tmp_path, archive, no_network, monkeypatch):
    """A kill between the two leaves the record alone."""
    import tensorflow_datasets as tfds

    def prepare(builder, **options):
        raise RuntimeError("got so far")

    monkeypatch.setattr(tfds.builder_cls("stl10"), "download_and_prepare", prepare)
    downloaded = tmp_path / "downloads" / "stl10" / "ai.stan.edu_acoa_stl10_stl10_binaryXYZ.tar.gz"
    downloaded.parent.mkdir(parents=True)
    downloaded.with_name(f"{downloaded.name}.INFO").write_text("{}")
    whole = archive.read_bytes()
    for content, message in ((None, "cannot be downloaded"), (b"some", "cannot be downloaded"), (whole, "got so far")):
        if content:
            downloaded.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            open_source(f"stl10:{tmp_path}")


@needs_extra
def test_a_truncated_or_changed_archive_is_refused_by_name(tmp_path, archive):
    whole, copy = archive.read_bytes(), tmp_path / ARCHIVE
    copy.write_bytes(whole[:-7])
    message = f"{copy} must have {len(whole)} bytes, got {len(whole) - 7}: download it again"
    with pytest.raises(ValueError, match=f"^{re.escape(f'stl10:{tmp_path}: {message}')}$"):
        open_source(f"stl10:{tmp_path}")
    copy.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    with pytest.raises(ValueError, match=f"^{re.escape(f'stl10:{tmp_path}: preparing STL-10 failed: ')}.*{ARCHIVE}"):
        open_source(f"stl10:{tmp_path}")
    assert not (tmp_path / UNPACKED).exists()


@needs_extra
@pytest.mark.parametrize("needed", ["tensorflow", "importlib_resources"])
def test_preparing_without_what_it_needs_names_the_extra(tmp_path, monkeypatch, needed):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == needed else real(name, *rest))
    message = f"preparing STL-10 needs {needed}, got none; install it with: pip install -e '.[stl10]'"
    with pytest.raises(ValueError, match=f"^{re.escape(f'stl10:{tmp_path}: {message}')}$"):
        open_source(f"stl10:{tmp_path}")


def test_a_missing_folder_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"^stl10:/nowhere/at/all: no such folder$"):
        open_source("stl10:/nowhere/at/all")


@contextlib.contextmanager
def server(status):
    """The address of a server that answers with a status, or takes connections and never answers."""
    if status is None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
        return

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as answering:
        threading.Thread(target=answering.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{answering.server_port}"
        answering.shutdown()


@pytest.mark.parametrize(
    ("status", "reason"), [(200, None), (404, "Not Found"), (None, "no answer within 0.3 s")], ids=str
)
def test_a_server_is_reachable_or_says_why_not(monkeypatch, status, reason):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with server(status) as url:
        assert why_unreachable(f"{url}/file", WAIT if status else 0.3) == reason


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch):
    monkeypatch.setenv("no_proxy", "nowhere.invalid")
    stop = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: stop.wait())
    assert why_unreachable("http://nowhere.invalid/file", 0.3) == "no answer within 0.3 s"
    stop.set()
