"""HTTP exchanges over libcurl's multi interface, all in the one thread that calls ``run``.

The event loop is our own (``socket_action`` over `selectors`), because libcurl's select-based waiting cannot see
descriptors above 1,023, which a server with many watchers reaches. HTTP/1.1 only: with HTTP/2 all ranges would share
one connection, and with it one congestion window and one stall.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import pycurl

BURIAL_S = 0.5


@dataclass(frozen=True, slots=True)
class WireOptions:
    """``proxy_for(url)``: the proxy's URL or None. ``ca_file``: PEM bundle; None: what the platform trusts."""

    user_agent: str
    connect_timeout_s: float
    proxy_for: Callable[[str], str | None] = lambda url: None
    ca_file: str | None = None
    native_ca: bool = False


@dataclass(slots=True)
class Head:
    """Status and headers (names in lower case) of the latest answer on an exchange."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    def feed(self, line: bytes) -> None:
        text = line.decode("latin-1").strip()
        if text.startswith("HTTP/"):
            parts = text.split(" ", 2)
            self.status = int(parts[1]) if len(parts) > 1 and parts[1].isdigit() else 0
            self.headers = {}
        elif ":" in text:
            name, _, value = text.partition(":")
            self.headers[name.strip().lower()] = value.strip()


class Listener(Protocol):
    def on_body(self, head: Head, chunk: bytes) -> bool:
        """A piece of the body; False ends the exchange."""

    def on_end(self, head: Head, failure: WireFailure | None) -> None:
        """The last call. ``failure`` is None when the answer came whole."""


@dataclass(frozen=True, slots=True)
class WireFailure:
    """``code`` is libcurl's (pycurl.E_…); ``reason`` says it for people, without any URL."""

    code: int
    reason: str

    @property
    def untrusted(self) -> bool:
        """The server's certificate is not one to be trusted."""
        return self.code == pycurl.E_PEER_FAILED_VERIFICATION


class Exchange:
    """One request and its answer."""

    __slots__ = ("curl", "head", "listener", "proxy")

    def __init__(self, curl: Any, listener: Listener, proxy: str | None) -> None:
        self.curl, self.listener, self.proxy = curl, listener, proxy
        self.head = Head()


class Wire:
    """Owner of the sockets. Everything but ``wake`` belongs to one thread."""

    def __init__(self, options: WireOptions) -> None:
        self._options = options
        self._selector = selectors.DefaultSelector()
        self._bell_in, self._bell_out = socket.socketpair()
        self._bell_in.setblocking(False)
        self._bell_out.setblocking(False)
        self._selector.register(self._bell_in, selectors.EVENT_READ)
        self._timer: float | None = None
        self._idle: list[Any] = []
        self._crash: Exception | None = None
        self._exchanges: dict[Any, Exchange] = {}
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._on_socket)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._on_timer)
        self._multi.setopt(pycurl.M_MAXCONNECTS, 64)

    def open(self, url: str, headers: list[str], byte_range: tuple[int, int] | None, listener: Listener) -> Exchange:
        """GET ``url``; ``byte_range`` is half-open. Redirects are answers like any other."""
        curl = self._idle.pop() if self._idle else self._new_curl()
        exchange = Exchange(curl, listener, self._options.proxy_for(url))
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.HTTPHEADER, headers)
        if byte_range:
            curl.setopt(pycurl.RANGE, f"{byte_range[0]}-{byte_range[1] - 1}")
        else:
            curl.unsetopt(pycurl.RANGE)
        # Empty strings keep libcurl from reading proxies, and exceptions from them, out of the environment by rules of
        # its own.
        curl.setopt(pycurl.PROXY, exchange.proxy or "")
        curl.setopt(pycurl.NOPROXY, "")
        curl.setopt(pycurl.HEADERFUNCTION, exchange.head.feed)
        curl.setopt(pycurl.WRITEFUNCTION, lambda chunk: self._on_body(exchange, chunk))
        self._exchanges[curl] = exchange
        self._multi.add_handle(curl)
        return exchange

    def close(self, exchange: Exchange) -> None:
        """Drop an exchange and its connection; its listener hears nothing more."""
        if self._exchanges.pop(exchange.curl, None) is not None:
            self._multi.remove_handle(exchange.curl)
            self._idle.append(exchange.curl)

    def pause(self, exchange: Exchange) -> None:
        """Read no more of it for now; its sender feels that by TCP's own means. Also from a listener's ``on_body``."""
        exchange.curl.pause(pycurl.PAUSE_RECV)

    def go_on(self, exchange: Exchange) -> None:
        if exchange.curl in self._exchanges:
            exchange.curl.pause(pycurl.PAUSE_CONT)

    def run(self, timeout_s: float) -> None:
        """Wait for traffic, ``timeout_s`` at most, and call the listeners of what came."""
        if self._timer is not None:
            timeout_s = min(timeout_s, max(0.0, self._timer - time.monotonic()))
        for key, mask in self._selector.select(timeout_s):
            if key.fileobj is self._bell_in:
                self._drain_bell()
                continue
            bits = (pycurl.CSELECT_IN if mask & selectors.EVENT_READ else 0) | (
                pycurl.CSELECT_OUT if mask & selectors.EVENT_WRITE else 0
            )
            self._multi.socket_action(key.fd, bits)
        if self._timer is not None and self._timer <= time.monotonic():
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        if self._crash is not None:
            raise self._crash
        self._collect()

    def _on_body(self, exchange: Exchange, chunk: bytes) -> int | None:
        """libcurl takes any other number than the chunk's length as the order to end the exchange."""
        try:
            return None if exchange.listener.on_body(exchange.head, chunk) else -1
        except Exception as error:  # noqa: BLE001 - pycurl would print it and go on; `run` raises it
            self._crash = self._crash or error
            return -1

    def wake(self) -> None:
        """End a ``run`` early. From any thread."""
        try:
            self._bell_out.send(b"!")
        except BlockingIOError:
            pass  # the bell is ringing already
        except OSError:
            pass  # the wire is shut down: nobody is left to wake

    def shutdown(self) -> None:
        """End every exchange and connection, without a word to the listeners."""
        for exchange in list(self._exchanges.values()):
            self.close(exchange)
        self._bell_in.close()
        self._bell_out.close()
        # libcurl waits here for a look-up of a name that it cannot break off, many seconds where the DNS is silent.
        # Nobody else need: the thread ends with the look-up.
        burial = threading.Thread(target=self._bury, name="wire-end", daemon=True)
        burial.start()
        burial.join(BURIAL_S)

    def _bury(self) -> None:
        self._multi.close()
        for curl in self._idle:
            curl.close()
        self._idle.clear()
        self._selector.close()

    def _collect(self) -> None:
        more = 1
        while more:
            more, whole, failed = self._multi.info_read()
            for curl in whole:
                self._end(curl, None)
            for curl, code, text in failed:
                self._end(curl, WireFailure(code, self._reason(curl, code, text)))

    def _reason(self, curl: Any, code: int, text: str) -> str:
        exchange = self._exchanges.get(curl)
        proxy = urlsplit(exchange.proxy).netloc.rpartition("@")[2] if exchange and exchange.proxy else ""
        if code == pycurl.E_COULDNT_CONNECT and not text.startswith(_TUNNEL):
            return _no_connection(curl.getinfo(pycurl.OS_ERRNO), proxy)
        return _reason(code, text)

    def _end(self, curl: Any, failure: WireFailure | None) -> None:
        exchange = self._exchanges.get(curl)
        if exchange is None:
            return
        self.close(exchange)
        exchange.listener.on_end(exchange.head, failure)

    def _new_curl(self) -> Any:
        curl = pycurl.Curl()
        options = self._options
        curl.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.FOLLOWLOCATION, 0)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, int(options.connect_timeout_s * 1000))
        curl.setopt(pycurl.BUFFERSIZE, 512 * 1024)
        curl.setopt(pycurl.TCP_KEEPALIVE, 1)
        curl.setopt(pycurl.USERAGENT, options.user_agent)
        curl.setopt(pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS)
        if options.ca_file:
            curl.setopt(pycurl.CAINFO, options.ca_file)
        if options.native_ca:
            curl.setopt(pycurl.SSL_OPTIONS, pycurl.SSLOPT_NATIVE_CA)
        return curl

    def _on_socket(self, what: int, fd: int, multi: Any, data: Any) -> None:
        known = fd in self._selector.get_map()
        if what == pycurl.POLL_REMOVE:
            if known:
                self._selector.unregister(fd)
            return
        events = (selectors.EVENT_READ if what in (pycurl.POLL_IN, pycurl.POLL_INOUT) else 0) | (
            selectors.EVENT_WRITE if what in (pycurl.POLL_OUT, pycurl.POLL_INOUT) else 0
        )
        if known:
            self._selector.modify(fd, events)
        else:
            self._selector.register(fd, events)

    def _on_timer(self, timeout_ms: int) -> None:
        self._timer = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000

    def _drain_bell(self) -> None:
        try:
            while self._bell_in.recv(4096):
                pass
        except BlockingIOError:
            return


_TUNNEL = "CONNECT tunnel"
"""How libcurl begins what it says of a proxy that will not let one through."""
_REASONS = {
    pycurl.E_COULDNT_RESOLVE_HOST: "the name of the server cannot be resolved (DNS)",
    pycurl.E_COULDNT_RESOLVE_PROXY: "the name of the proxy cannot be resolved (DNS)",
    pycurl.E_OPERATION_TIMEDOUT: "connecting took too long",
    pycurl.E_PARTIAL_FILE: "the server ended the answer early",
    pycurl.E_GOT_NOTHING: "the server closed the connection without an answer",
    pycurl.E_RECV_ERROR: "the connection was reset",
    pycurl.E_SEND_ERROR: "the connection was reset",
    pycurl.E_PEER_FAILED_VERIFICATION: "the server's TLS certificate is not trusted",
    pycurl.E_SSL_CONNECT_ERROR: "no TLS connection could be made",
    pycurl.E_SSL_CACERT_BADFILE: "the file with trusted certificates cannot be read",
    pycurl.E_FTP_WEIRD_SERVER_REPLY: "the server's answer is not HTTP",
    pycurl.E_UNSUPPORTED_PROTOCOL: "the server's answer is not HTTP",
}


def _no_connection(number: int, proxy: str) -> str:
    """``number``: what the system said (errno), 0 where libcurl does not know; ``proxy``: host:port, where there is
    one in between."""
    if number == errno.ECONNREFUSED:
        refused = f"the proxy {proxy} refused the connection" if proxy else "the connection was refused"
        return f"{refused}: nothing listens there"
    where = f"the proxy {proxy}" if proxy else "the server"
    return f"no connection to {where}" + (f": {os.strerror(number)}" if number else "")


def _reason(code: int, text: str) -> str:
    if text.startswith(_TUNNEL):
        return f"the proxy refuses ({text})"
    known = _REASONS.get(code)
    if known is None:
        return text or f"libcurl error {code}"
    return known
