"""An address that cannot be reached is known within seconds, whatever is wrong with it."""

import contextlib
import http.server
import socket
import threading
import time

import pytest

from train.data.reach import WAIT, why_unreachable


@contextlib.contextmanager
def listening(answer):
    """The address of a server that either answers with a status or takes connections and says nothing."""
    if answer is None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/file"
        return

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/file"
        server.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1,nowhere.invalid")


def closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}/file"


def test_a_file_that_is_there_is_within_reach():
    with listening(200) as url:
        assert why_unreachable(url) is None


def test_a_server_that_refuses_says_why():
    with listening(404) as url:
        assert why_unreachable(url) == "Not Found"
    assert "refused" in why_unreachable(closed())


def test_a_network_that_swallows_everything_is_given_up_in_time(monkeypatch):
    with listening(None) as url:
        began = time.monotonic()
        assert why_unreachable(url, 0.3) == "no answer within 0.3 s"
        assert time.monotonic() - began < 15


def test_nothing_is_waited_for_longer_than_it_says(monkeypatch):
    waits = []

    def swallowed(url, timeout):
        waits.append(timeout)
        raise TimeoutError

    monkeypatch.setattr("urllib.request.urlopen", swallowed)
    join = threading.Thread.join
    monkeypatch.setattr(
        threading.Thread, "join", lambda thread, seconds: waits.append(seconds) or join(thread, seconds)
    )
    assert why_unreachable("http://nowhere.invalid/file") == f"no answer within {WAIT:g} s"
    assert waits == [WAIT, WAIT]


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch):
    stop = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: stop.wait(20))
    began = time.monotonic()
    assert why_unreachable("http://nowhere.invalid/file", 0.3) == "no answer within 0.3 s"
    assert time.monotonic() - began < 15
    stop.set()
