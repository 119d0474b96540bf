"""The serving: two ports, a thread for each connection, HTTP/1.1 with keep-alive."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from http import HTTPStatus

from fakes.hub_control import PREFIX as CONTROL
from fakes.hub_gate import Gate
from fakes.hub_log import Record, RequestLog
from fakes.hub_message import Body, Exchange, Mark, Request
from fakes.hub_rules import FaultBook
from fakes.hub_wire import SEND_AT_ONCE, PeerGone, Stopped, Wire

Answer = Callable[[Request], Exchange]
_connections = itertools.count(1)


class Ended(Exception):
    """The connection is to be ended as a fault says."""

    def __init__(self, reset: bool) -> None:
        super().__init__("reset" if reset else "closed")
        self.reset = reset


class Port:
    """One listening port. It can be closed and opened again on the same number, as a network goes and comes back."""

    def __init__(
        self, name: str, answer: Answer, log: RequestLog, faults: FaultBook, *, port: int, tls: ssl.SSLContext | None
    ) -> None:
        self.name = name
        self._answer = answer
        self._log = log
        self._faults = faults
        self._tls = tls
        self._gate = Gate()
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        # Bound from the start, so that URLs can be made; listening from `open` on.
        self._listener: socket.socket | None = _bound(port)
        self.number: int = self._listener.getsockname()[1]

    def open(self) -> None:
        """Listen, and serve who comes."""
        if self._gate.is_open:
            self._gate = Gate()
        if self._listener is None:
            self._listener = _bound(self.number)
        self._listener.listen(1024)
        self._listener.setblocking(False)
        self._spawn(self._accept, self._listener, self._gate, "accept")

    def close(self) -> None:
        """Refuse who comes, reset who is there, and return when all threads have ended."""
        self._gate.open()
        while threads := self._running():
            for thread in threads:
                thread.join()
        self._gate.close()
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    @property
    def is_open(self) -> bool:
        """Whether it takes connections."""
        return not self._gate.is_open

    def _running(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._threads)

    def _spawn(self, work: Callable[[socket.socket, Gate], None], sock: socket.socket, gate: Gate, what: str) -> None:
        def run() -> None:
            try:
                work(sock, gate)
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=f"{self.name}: {what}", daemon=True)
        # Both at once: who closes the port joins what it finds in the set.
        with self._lock:
            self._threads.add(thread)
            thread.start()

    def _accept(self, listener: socket.socket, gate: Gate) -> None:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(gate, select.POLLIN)
        while not gate.is_open:
            poll.poll()
            with contextlib.suppress(OSError):
                sock, (_, client_port) = listener.accept()
                self._spawn(partial(self._serve, client_port), sock, gate, f"connection from {client_port}")
        listener.close()

    def _serve(self, client_port: int, sock: socket.socket, gate: Gate) -> None:
        number = next(_connections)
        wire = Wire(sock, gate, self._tls)
        reset = False
        with self._log.connection():
            try:
                wire.start()
                while (request := read_request(wire, self.name, number, client_port)) and self._reply(wire, request):
                    pass
            except Stopped:
                reset = True
            except Ended as ended:
                reset = ended.reset
            except PeerGone:
                pass
            finally:
                wire.close(reset)

    def _reply(self, wire: Wire, request: Request) -> bool:
        """Answer one request and tell whether the connection can take another."""
        exchange = self._answer(request)
        if exchange.route == CONTROL:
            return deliver(wire, exchange, RequestLog().begin(exchange), RequestLog())
        struck = self._faults.strike(exchange)
        record = self._log.begin(exchange)
        self._faults.noted(struck, record)
        outcome = "stopped"
        try:
            keep = deliver(wire, exchange, record, self._log)
            outcome = "sent"
        except PeerGone:
            outcome = "gone"
            raise
        except Ended as ended:
            outcome = str(ended)
            raise
        finally:
            self._log.end(record, outcome)
        return keep


def read_request(wire: Wire, port: str, connection: int, client_port: int) -> Request | None:
    """Return the next request, or None when there is none to come."""
    head = wire.read_until(b"\r\n\r\n").decode("latin-1")
    line, _, rest = head.partition("\r\n")
    try:
        method, target, version = line.split(" ")
    except ValueError:
        return None
    headers: dict[str, str] = {}
    for field in rest.split("\r\n"):
        name, colon, value = field.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    body = wire.read(int(headers.get("content-length", "0")))
    wishes = headers.get("connection", "").lower()
    keep_alive = "close" not in wishes if version == "HTTP/1.1" else "keep-alive" in wishes
    return Request(port, method, target, headers, body, connection, client_port, keep_alive)


def deliver(wire: Wire, exchange: Exchange, record: Record, log: RequestLog) -> bool:
    """Send the reply as its delivery says and tell whether the connection is still in step with the client."""
    reply, request = exchange.reply, exchange.request
    for hold in reply.delivery.holds:
        wire.hold(hold.seconds, hold.gate)
    if reply.delivery.drop:
        raise Ended(reset=True)
    body = reply.seal()
    headers = {"Date": formatdate(usegmt=True), "Server": "test-hub", **reply.headers}
    announced = headers.setdefault("Content-Length", str(len(body)))
    # What is announced and what is sent must agree, or the next answer would begin in the wrong place.
    keep = request.keep_alive and headers.get("Connection") != "close"
    keep = keep and (request.method == "HEAD" or announced == str(len(body)))
    headers["Connection"] = "keep-alive" if request.keep_alive and headers.get("Connection") != "close" else "close"
    reason = HTTPStatus(reply.status).phrase if reply.status in HTTPStatus._value2member_map_ else "Status"
    # An error's message may quote what was asked for, line breaks and all.
    fields = (f"{name}: {value}".replace("\r", " ").replace("\n", " ") for name, value in headers.items())
    lines = [f"HTTP/1.1 {reply.status} {reason}", *fields]
    with log.changed:
        record.status = reply.status
        record.answered_at = time.monotonic()
    wire.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace"))
    if request.method != "HEAD":
        send_body(wire, exchange, body, record, log)
    return keep


def send_body(wire: Wire, exchange: Exchange, body: Body, record: Record, log: RequestLog) -> None:
    """Send the body, stopping at each mark to do what it says."""
    pacers = exchange.reply.delivery.pacers
    step = min([SEND_AT_ONCE, *(pacer.step for pacer in pacers)])
    marks = sorted(exchange.reply.delivery.marks, key=lambda mark: mark.at)
    at = 0
    with opened(body) as file:
        for mark in [*marks, None]:
            stop = len(body) if mark is None else min(mark.at, len(body))
            while at < stop:
                end = min(stop, at + step)
                for pacer in pacers:
                    if (seconds := pacer.reserve(end - at)) > 0.001:
                        wire.hold(seconds)
                while at < end:
                    sent = send_piece(wire, body, file, at, end)
                    log.add_sent(record, sent)
                    at += sent
            if mark is not None:
                act(wire, mark)


def send_piece(wire: Wire, body: Body, file: int | None, at: int, end: int) -> int:
    """Send some of the body's bytes from `at` on, no further than `end`, and return how many."""
    if file is None or body.spoiled(at, end):
        return wire.send_some(body.read(at, end))
    return wire.send_file(file, body.start + at, end - at)


def act(wire: Wire, mark: Mark) -> None:
    """Do what a mark in a body says."""
    if mark.hold is not None:
        wire.hold(mark.hold.seconds, mark.hold.gate)
        return
    if mark.reset:
        wire.drain()
    raise Ended(mark.reset)


@contextlib.contextmanager
def opened(body: Body) -> Iterator[int | None]:
    """Open the file that a body comes from, if it comes from one."""
    if body.content.path is None:
        yield None
        return
    file = os.open(body.content.path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)


def _bound(port: int) -> socket.socket:
    """Return a socket bound to the port; one that was just closed may still be busy for a moment."""
    until = time.monotonic() + 5
    while True:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            sock.close()
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return sock
