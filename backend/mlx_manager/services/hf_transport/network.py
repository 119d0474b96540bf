"""Sockets that look at their question's clock at every step, and that know why they failed.

httpcore2 reads a time limit once for each answer and counts it from byte to byte, so a body or a header that trickles
would never end. These streams take what is left of the question's time at each read instead.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, zip_longest
from typing import Any

import httpcore2

from mlx_manager.errors import TLS_ADVICE, HubTrouble, HubUnreachable
from mlx_manager.services.hf_transport.question import Question

# A name often stands for several addresses, and behind a broken IPv6 route half of them swallow every packet. All but
# the last address get this long to answer.
FIRST_TRIES_S = 2.0


class BoundedBackend(httpcore2.NetworkBackend):
    """Connects for the question that the calling thread is busy with. ``proxy``: host:port of the proxy, if it is one
    that is connected to. ``look_up``: host and port → addresses, in the order to try them; raises OSError."""

    def __init__(self, proxy: str | None = None, look_up: Callable[[str, int], list[str]] | None = None) -> None:
        self._inner = httpcore2.SyncBackend()
        self._proxy = proxy
        self._look_up = look_up or addresses_of

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        question = _question()
        who = f"the proxy {self._proxy}" if self._proxy else f"{host}:{port}"
        question.doing = f"looking up the name {host}"
        addresses = self._addresses(host, port)
        question.doing = f"connecting to {who}"
        while True:
            address = addresses.pop(0)
            wait = min(question.left(), FIRST_TRIES_S) if addresses else question.left()
            try:
                stream = self._inner.connect_tcp(address, port, wait, local_address, socket_options)
            except httpcore2.ConnectTimeout:
                if not addresses:
                    raise question.silence(wait) from None
            except httpcore2.ConnectError as error:
                if not addresses:
                    raise _not_connected(who, error.__cause__) from error
            else:
                return BoundedStream(stream, who)

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            return self._look_up(host, port)
        except (OSError, UnicodeError) as error:
            whose = " of the proxy" if self._proxy else ""
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a valid name"
            raise HubUnreachable(f"The name {host}{whose} cannot be resolved: {reason}.") from error

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError("a question to the Hub never sleeps")


class BoundedStream(httpcore2.NetworkStream):
    """A connection; ``who`` is at its other end. It may serve several questions, one after another."""

    def __init__(self, inner: httpcore2.NetworkStream, who: str) -> None:
        self._inner = inner
        self._who = who

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        with self._step("waiting for an answer of") as left:
            return self._inner.read(max_bytes, left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        with self._step("sending the question to") as left:
            self._inner.write(buffer, left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        try:
            with self._step("agreeing on TLS with") as left:
                inner = self._inner.start_tls(ssl_context, server_hostname, left)
        except HubTrouble:
            self.close()
            raise
        return BoundedStream(inner, self._who)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    @contextmanager
    def _step(self, doing: str) -> Iterator[float]:
        question = _question()
        question.doing = f"{doing} {self._who}"
        with question.waiting_at(self._inner.get_extra_info("socket")) as left:
            try:
                yield left
            except httpcore2.TimeoutException:
                raise question.silence(left) from None
            except httpcore2.NetworkError as error:
                raise _broken(self._who, error.__cause__) from error


def _question() -> Question:
    question = Question.current()
    if question is None:
        raise RuntimeError("the Hub is asked outside of a Question, where nothing would bound it")
    return question


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host, each once, IPv6 and IPv4 in turns beginning with the system's favourite."""
    families: dict[int, list[str]] = {}
    for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        families.setdefault(family, []).append(str(address[0]))
    turns = chain.from_iterable(zip_longest(*families.values()))
    return list(dict.fromkeys(address for address in turns if address is not None))


def _not_connected(who: str, cause: BaseException | None) -> HubUnreachable:
    if isinstance(cause, ConnectionRefusedError):
        return HubUnreachable(f"Connection refused by {who}: nothing listens there.")
    return HubUnreachable(f"No way to {who}: {_reason(cause)}.")


def _broken(who: str, cause: BaseException | None) -> HubUnreachable:
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = (cause.verify_message or "it cannot be verified").rstrip(".")
        return HubUnreachable(f"The TLS certificate of {who} is not trusted: {reason}.", advice=TLS_ADVICE)
    if isinstance(cause, ssl.SSLError):
        return HubUnreachable(f"No TLS with {who}: {cause.reason or 'it ended the talk'}.")
    return HubUnreachable(f"The connection to {who} broke: {_reason(cause)}.")


def _reason(cause: BaseException | None) -> str:
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return type(cause).__name__ if cause is not None else "closed"
