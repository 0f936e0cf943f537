"""The devices of a run, and the memory they compute in."""

import platform
import subprocess
import sys

import pytest

from train.devices import keep_memory

# How many pages of new memory the second of two large arrays takes that are not alive at once.
COUNT = """
import resource
from train.devices import keep_memory

{call}
b"x" * 2**26
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def new_pages(call):
    command = [sys.executable, "-c", COUNT.format(call=call)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keep_memory sets options of glibc alone")
def test_memory_is_kept_for_the_next_large_array():
    assert new_pages("keep_memory()") < 10 < new_pages("")  # 16,384 of 4 KiB, or fewer larger ones


class NoOptions:
    def __init__(self, name):
        pass


class NoLibrary:
    def __init__(self, name):
        raise OSError(name)


@pytest.mark.parametrize("library", [NoOptions, NoLibrary])
def test_memory_is_left_alone_where_there_are_no_such_options(library, monkeypatch):
    monkeypatch.setattr("ctypes.CDLL", library)
    keep_memory()
