"""What may stand between a browser and the server: a proxy that passes everything on, and can hold back the streams."""

from __future__ import annotations

import re
import select
import socket
import threading
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

STREAMS = re.compile(rb"^GET /api/(events|models/download/[^/ ]+/progress)[ ?]")


class Streams(Enum):
    PASS = "everything passes"
    HOLD = "they stay open and say nothing, as behind a proxy that collects an answer before it passes it on"
    CUT = "they are reset, as by a proxy that does not know them"


class Gateway:
    """`url` leads to the server at `target`. `streams` may be changed at any time; it holds for open ones too."""

    def __init__(self, target: str) -> None:
        self._target = (urlsplit(target).hostname, urlsplit(target).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.streams = Streams.PASS
        self.last_event_ids: list[str] = []
        """What came with the streams that were asked for: where each wants to go on."""
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, name="gateway")]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            for sock in (self._listener, *self._open):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(sock,), name="gateway")
                with self._lock:
                    self._open.add(sock)
                    self._threads.append(thread)
                thread.start()

    def _serve(self, browser: socket.socket) -> None:
        with browser, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := browser.recv(65536)):
                    return
                head += data
            stream = STREAMS.match(head) is not None
            if stream:
                found = re.search(rb"\r\nLast-Event-ID: *(\d+)", head, re.IGNORECASE)
                self.last_event_ids.append(found[1].decode() if found else "")
            with socket.create_connection(self._target) as server:
                # One request to a connection: the next one is looked at too.
                server.sendall(re.sub(rb"\r\nConnection: [^\r]*", b"\r\nConnection: close", head, count=1, flags=re.I))
                self._pump(browser, server, stream)
        with self._lock:
            self._open.discard(browser)

    def _pump(self, browser: socket.socket, server: socket.socket, stream: bool) -> None:
        other = {browser: server, server: browser}
        while True:
            ready, _, _ = select.select([browser, server], [], [], 0.05)
            if stream and self.streams is Streams.CUT:
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                return
            for sock in ready:
                if not (data := sock.recv(65536)):
                    return
                if not (stream and self.streams is Streams.HOLD and sock is server):
                    other[sock].sendall(data)
