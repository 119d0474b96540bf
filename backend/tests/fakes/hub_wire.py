"""One connection's socket: waits for bytes, for room, for a gate and for the peer's leaving, all at once.

Sockets do not block; every wait is a poll in which the server's own gate takes part. So a stop or a cut network
reaches a thread wherever it is, and the thread that owns the socket is the one that closes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import ssl
import struct
import sys
import termios
import time
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from fakes.hub_gate import Gate

T = TypeVar("T")
# Linux tells at once that the peer has shut its side; elsewhere a readable socket with nothing to read says so.
PEER_LEFT = getattr(select, "POLLRDHUP", 0)
GONE = select.POLLERR | select.POLLHUP | select.POLLNVAL | PEER_LEFT
SEND_AT_ONCE = 1 << 20
SO_NWRITE = 0x1024
"""macOS: how many bytes of a socket wait to be sent. Python's socket module does not name it."""


class PeerGone(Exception):
    """The peer closed or reset the connection."""


class Stopped(Exception):
    """The server wants the connection ended."""


class Waited(Enum):
    """How a wait ended."""

    ELAPSED = "elapsed"
    RELEASED = "released"


class Wire:
    """A connected socket. `stop` is the gate that ends everything on it by raising Stopped."""

    def __init__(self, sock: socket.socket, stop: Gate, tls: ssl.SSLContext | None) -> None:
        sock.setblocking(False)
        # A peer that left at once makes this fail on some systems; the first read will tell.
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stop = stop
        self._sock = sock
        self._tls = tls
        self._unread = b""

    def start(self) -> None:
        """Shake hands, when there is TLS."""
        if self._tls is not None:
            secure = self._tls.wrap_socket(self._sock, server_side=True, do_handshake_on_connect=False)
            self._sock = secure
            self._go(select.POLLIN, secure.do_handshake)

    def read_until(self, end: bytes, limit: int = 1 << 16) -> bytes:
        """Return what comes up to and with `end`; empty when the peer closes before it."""
        data = self._unread
        while end not in data:
            more = self._go(select.POLLIN, lambda: self._sock.recv(1 << 16))
            if not more or len(data) > limit:
                return b""
            data += more
        head, _, self._unread = data.partition(end)
        return head + end

    def read(self, nbytes: int) -> bytes:
        """Return so many bytes, or fewer when the peer closes."""
        data, self._unread = self._unread, b""
        while len(data) < nbytes and (more := self._go(select.POLLIN, lambda: self._sock.recv(1 << 16))):
            data += more
        data, self._unread = data[:nbytes], data[nbytes:]
        return data

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        view = memoryview(data)
        while view:
            view = view[self.send_some(view) :]

    def send_some(self, data: bytes | memoryview) -> int:
        """Send what fits of `data` and return how much that was."""
        return self._go(select.POLLOUT, lambda: self._sock.send(data))

    def send_file(self, file: int, offset: int, nbytes: int) -> int:
        """Send some of a file's bytes without bringing them here; returns how many."""
        if isinstance(self._sock, ssl.SSLSocket):
            return self.send_some(os.pread(file, min(nbytes, 256 << 10), offset))
        nbytes = min(nbytes, SEND_AT_ONCE)
        return self._go(select.POLLOUT, lambda: os.sendfile(self._sock.fileno(), file, offset, nbytes))

    def hold(self, seconds: float | None, gate: Gate | None = None) -> Waited:
        """Wait for so long (None: for ever) or for the gate; the peer's leaving and the server's stop raise."""
        until = None if seconds is None else time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        # A peer that pipelines is readable and still there, so where the kernel can tell, only its leaving counts.
        # With TLS its farewell is a message, and nobody sends anything else in the middle of an answer.
        readable = select.POLLIN if isinstance(self._sock, ssl.SSLSocket) or not PEER_LEFT else 0
        poll.register(self._sock, readable | PEER_LEFT)
        if gate is not None:
            poll.register(gate, select.POLLIN)
        while True:
            left = None if until is None else max(0.0, until - time.monotonic())
            ready = dict(poll.poll(None if left is None else left * 1000))
            if self._stop.fileno() in ready:
                raise Stopped
            if gate is not None and gate.fileno() in ready:
                return Waited.RELEASED
            if events := ready.get(self._sock.fileno(), 0):
                if events & GONE or isinstance(self._sock, ssl.SSLSocket) or not self._peeked():
                    raise PeerGone
                poll.modify(self._sock, PEER_LEFT)
            elif until is not None and time.monotonic() >= until:
                return Waited.ELAPSED

    def drain(self, timeout: float = 5) -> None:
        """Wait until the peer's kernel has all that was sent, as a reset would throw away what is still under way."""
        until = time.monotonic() + timeout
        while self._queued() and time.monotonic() < until:
            # The kernel announces an empty queue to nobody.
            self.hold(0.001)

    def close(self, reset: bool = False) -> None:
        """Close the connection, politely or with an RST."""
        with contextlib.suppress(OSError):
            if reset:
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                self._sock.shutdown(socket.SHUT_WR)
        self._sock.close()

    def _peeked(self) -> bytes:
        return self._go(select.POLLIN, lambda: self._sock.recv(1, socket.MSG_PEEK))

    def _queued(self) -> int:
        try:
            if sys.platform == "darwin":
                return self._sock.getsockopt(socket.SOL_SOCKET, SO_NWRITE)
            return int(struct.unpack("i", fcntl.ioctl(self._sock, termios.TIOCOUTQ, b"\0" * 4))[0])
        except OSError:
            return 0

    def _go(self, events: int, call: Callable[[], T]) -> T:
        """Do something that would block, waiting until it can be done."""
        while True:
            try:
                return call()
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError) as error:
                if isinstance(error, ssl.SSLError):
                    events = select.POLLIN if isinstance(error, ssl.SSLWantReadError) else select.POLLOUT
                self._wait(events)
            except OSError as error:
                raise PeerGone from error

    def _wait(self, events: int) -> None:
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        poll.register(self._sock, events)
        if self._stop.fileno() in dict(poll.poll()):
            raise Stopped
