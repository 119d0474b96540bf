"""Watching through everything that can happen to a stream or a server, against a scripted server on loopback.

The real server never misbehaves on demand; this one plays a proxy that holds streams back, or a server that dies.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mlx_manager.cli.client import Accepted, ApiClient, Refused, StreamLost
from mlx_manager.cli.watch import Broken, Follower, Inbox, Message, Noted, Seen
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download
from mlx_manager.domain.snapshot import snapshot
from mlx_manager.domain.states import Status
from mlx_manager.errors import ServerUnreachable

WANTED = ModelRequest("org/model")
RUNNING = replace(Download("t1", WANTED, 0.0), status=Status.DOWNLOADING, total_bytes=100)
COMPLETED = replace(RUNNING, status=Status.COMPLETED, downloaded_bytes=100)


def _at(done: int) -> Download:
    return replace(RUNNING, downloaded_bytes=done)


Stream = Callable[["_Handler"], None]


class Script(ThreadingHTTPServer):
    """``streams``: what each stream in turn does; ``statuses``: the answers to /status in turn, the last one stays."""

    daemon_threads = True

    def __init__(self, streams: list[Stream], statuses: list[Download]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.streams, self.statuses = streams, statuses
        self.asked: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Script

    def do_GET(self) -> None:
        kind = self.path.rpartition("/")[2]
        self.server.asked.append((kind, self.headers["Last-Event-ID"]))
        if kind == "progress":
            self.server.streams.pop(0)(self)
        elif not self.server.statuses:
            self.answer(404, {"code": "download_not_found", "detail": "There is none.", "advice": "Ask."})
        else:
            left = self.server.statuses
            self.answer(200, snapshot(left.pop(0) if len(left) > 1 else left[0]))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append(("download", None))
        self.answer(200, {"task_id": "t1", "model_id": "org/model"})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


def events(*told: tuple[int, Download]) -> Stream:
    """A stream that tells these and ends."""

    def run(handler: _Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        for number, download in told:
            handler.wfile.write(f"id: {number}\ndata: {json.dumps(snapshot(download))}\n\n".encode())

    return run


def blocked(handler: _Handler) -> None:
    handler.answer(502, {"detail": "no streams here"})


@contextmanager
def serving(script: Script) -> Iterator[Script]:
    thread = threading.Thread(target=script.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield script
    finally:
        script.shutdown()
        script.server_close()
        thread.join()


class Place:
    """Where the next server comes from: ``urls`` in turn, then none."""

    is_embedded = False

    def __init__(self, *urls: str) -> None:
        self._urls = list(urls)

    def connect(self, tell: Callable[[str], None]) -> ApiClient:
        if not self._urls:
            raise ServerUnreachable("No server is left.")
        return ApiClient(self._urls.pop(0))


def follow(url: str, *others: str) -> list[Message]:
    """All that the follower tells, until it has no more to tell."""
    inbox: Inbox = queue.SimpleQueue()
    follower = Follower(Place(*others), WANTED, 0, (ApiClient(url), Accepted("t1", True)), inbox)
    follower.start()
    follower.join(20)
    assert not follower.is_alive()
    told = []
    while not inbox.empty():
        told.append(inbox.get())
    return told


def seen(told: list[Message]) -> list[tuple[str, int]]:
    return [(m.snapshot["status"], m.snapshot["downloaded_bytes"]) for m in told if isinstance(m, Seen)]


def notes(told: list[Message]) -> list[str]:
    return [m.text for m in told if isinstance(m, Noted) and m.text is not None]


def test_a_stream_that_breaks_is_taken_up_where_it_stood() -> None:
    script = Script([events((4, _at(10)), (7, _at(20))), events((9, COMPLETED))], [_at(20)])
    with serving(script):
        told = follow(script.url)
    assert seen(told) == [("downloading", 10), ("downloading", 20), ("downloading", 20), ("completed", 100)]
    assert script.asked == [("progress", None), ("status", None), ("progress", "7")]
    assert notes(told) == []


def test_where_streams_are_blocked_the_status_is_asked() -> None:
    script = Script([blocked, blocked], [_at(10), _at(20), _at(30), COMPLETED])
    with serving(script):
        told = follow(script.url)
    assert seen(told) == [("downloading", 10), ("downloading", 20), ("downloading", 30), ("completed", 100)]
    assert len(notes(told)) == 1
    assert "status" in notes(told)[0]


def test_a_pause_of_the_past_ends_nothing() -> None:
    paused = replace(RUNNING, status=Status.PAUSED)
    script = Script([events((3, paused), (4, _at(10))), events((5, COMPLETED))], [_at(5)])
    with serving(script):
        told = follow(script.url)
    assert [status for status, _ in seen(told)][-1] == "completed"
    assert "paused" not in [status for status, _ in seen(told)]


def test_a_pause_of_now_ends_the_watching() -> None:
    paused = replace(RUNNING, status=Status.PAUSED, downloaded_bytes=42)
    script = Script([events((3, paused))], [paused])
    with serving(script):
        assert seen(follow(script.url)) == [("paused", 42)]


@pytest.fixture
def gone() -> str:
    """The URL of a server that has died."""
    with serving(Script([], [])) as script:
        return script.url


def test_when_the_server_dies_the_next_one_is_asked_for_the_same(gone: str) -> None:
    with serving(Script([events((12, COMPLETED))], [_at(50)])) as second:
        told = follow(gone, second.url)
    assert second.asked == [("status", None), ("download", None), ("progress", None)]
    assert seen(told) == [("completed", 100)]
    assert notes(told)[0] == "The server is gone; looking for another …"
    assert notes(told)[1:] == ["Connected again."]


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.PAUSED, Status.CANCELLED, Status.FAILED])
def test_what_came_to_rest_while_the_server_died_is_not_begun_again(gone: str, status: Status) -> None:
    with serving(Script([blocked], [replace(RUNNING, status=status)])) as second:
        told = follow(gone, second.url)
    assert ("download", None) not in second.asked
    assert seen(told) == [(status.value, 0)]


def test_without_any_server_it_says_so(gone: str) -> None:
    told = follow(gone)
    assert isinstance(told[-1], Broken)
    assert str(told[-1].error) == "No server is left."


def test_a_download_that_nobody_knows_ends_the_watching() -> None:
    with serving(Script([blocked], [])) as script:
        told = follow(script.url)
    assert isinstance(told[-1], Broken)
    assert isinstance(told[-1].error, Refused)
    assert (told[-1].error.told_code, told[-1].error.status) == ("download_not_found", 404)


def test_what_is_no_event_stream_is_said_to_be_none() -> None:
    def page(handler: _Handler) -> None:
        handler.answer(200, {"hello": "there"})

    with serving(Script([page], [])) as script:
        client = ApiClient(script.url)
        with pytest.raises(StreamLost), client.stream("t1", None) as told:
            list(told)
        client.close()
