"""A small real HTTP proxy on loopback: CONNECT for https, absolute addresses for http, and a password if wanted."""

from __future__ import annotations

import base64
import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class LoopbackProxy:
    """`asked`: the first line of each request. With `login` ("user:password") everybody else gets a 407."""

    def __init__(self, login: str | None = None, port: int = 0) -> None:
        self.asked: list[str] = []
        self._login = base64.b64encode(login.encode()).decode() if login else None
        self._listener = socket.create_server(("127.0.0.1", port))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="proxy")]
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        with self._lock:
            for sock in (self._listener, *self._sockets):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self._run(self._serve, sock)

    def _run(self, target: object, *sockets: socket.socket) -> None:
        thread = threading.Thread(target=target, args=sockets, name="proxy")  # type: ignore[arg-type]
        with self._lock:
            self._sockets.extend(sockets)
            self._threads.append(thread)
        thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := sock.recv(65536)):
                    return
                head += data
            line, _, rest = head.partition(b"\r\n")
            self.asked.append(line.decode())
            if self._login and f"Basic {self._login}".encode() not in rest:
                sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            method, target, version = line.split(b" ")
            if method == b"CONNECT":
                host, _, port = target.rpartition(b":")
                first, answer = b"", b"HTTP/1.1 200 Connection established\r\n\r\n"
            else:
                place, _, path = target.removeprefix(b"http://").partition(b"/")
                host, _, port = place.rpartition(b":")
                # One request to a connection, so that the next one is seen too.
                first, answer = b"%s /%s %s\r\nConnection: close\r\n%s" % (method, path, version, rest), b""
            with socket.create_connection((host.decode(), int(port))) as upstream:
                upstream.sendall(first)
                sock.sendall(answer)
                back = threading.Thread(target=_pump, args=(upstream, sock), name="proxy")
                with self._lock:
                    self._sockets.append(upstream)
                back.start()
                _pump(sock, upstream)
                back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for sock in (source, sink):
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
