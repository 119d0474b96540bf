"""The connections of a server that strangers can reach: bounded in number, and none held open for nothing.

uvicorn waits for ever for a request that does not come and for a reader that does not read. Each such connection takes
a descriptor, of which downloads need some too. Here it is given up after a while, and the log says why. What is no HTTP
at all is answered in the form of every other error.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mlx_manager.routers.headers import SAFE_HEADERS
from mlx_manager.routers.problems import problem
from mlx_manager.services.access import is_here, place_of

logger = logging.getLogger(__name__)

MAX_HEAD = 32 * 1024
"""Bytes of a request's first line and headers."""
MOST_OF_ONE = 128
"""Connections from one address of the network."""
_RESERVE = 768
"""Descriptors that are kept for all else: the database, the log, of each download up to 64 files with their locks and
as many connections to the Hub as it may have. Half of what there is, where there are few."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: until a request must have come as a whole, and that a reader may go without reading anything at all."""

    request_s: float = 15.0
    read_s: float = 30.0


USUAL = Patience()


class Connections:
    """All connections of one server. ``most`` at once: one more is hung up on, before it has said anything."""

    def __init__(self, most: int, patience: Patience) -> None:
        self._most = most
        self._patience = patience
        self._told = False

    def protocol(self, **given: Any) -> H11Protocol:
        """What uvicorn asks for each connection."""
        return _Connection(self, **given)

    def has_room_for(self, new: _Connection) -> bool:
        same_place = sum(isinstance(one, _Connection) and one.place == new.place for one in new.connections)
        if len(new.connections) <= self._most and (same_place <= MOST_OF_ONE or is_here(new.place)):
            self._told = False
            return True
        if not self._told:
            # Said once, and again when there has been room in between: a flood must not fill the log too.
            self._told = True
            logger.warning("Too many connections (%d): one from %s was closed.", len(new.connections), new.place)
        return False

    def look_after(self, connections: Iterable[object]) -> None:
        """Once a second: give up those that nothing comes of."""
        now = asyncio.get_running_loop().time()
        for one in list(connections):
            if isinstance(one, _Connection) and (reason := one.is_stuck(now, self._patience)) is not None:
                logger.info("A connection from %s was given up: %s.", one.place, reason)
                one.transport.abort()


class _Connection(H11Protocol):
    """uvicorn's, which notices what it waits for."""

    def __init__(self, owner: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._owner = owner
        self.place = ""
        # What was seen last, and since when it has been the same.
        self._seen: object = None
        self._since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.place = place_of(self.client[0] if self.client else None)
        if not self._owner.has_room_for(self):
            transport.abort()

    def is_stuck(self, now: float, patience: Patience) -> str | None:
        """Why nothing will come of this connection, None while something may."""
        unread = self.transport.get_write_buffer_size()
        answered = getattr(self.cycle, "response_complete", True)
        if unread and (answered or self.flow.write_paused or self.transport.is_closing()):
            # Nobody writes now, so it gets less as it is read.
            return self._same(("reader", unread), now, patience.read_s, "it has not read anything for %g s")
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            # A new cycle is a new request: one that asks again and again is not the one that never asks.
            waited_for = ("request", id(self.cycle), self.conn.their_state)
            return self._same(waited_for, now, patience.request_s, "no whole request came within %g s")
        self._seen = None
        return None

    def _same(self, seen: object, now: float, limit_s: float, reason: str) -> str | None:
        if seen != self._seen:
            self._seen, self._since = seen, now
        return reason % limit_s if now - self._since >= limit_s else None

    def send_400_response(self, msg: str) -> None:
        """For what is no HTTP, called while its error is handled. uvicorn would answer in plain text, and does not tell
        headers that are too long from any other nonsense."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            # In the middle of an answer there is no place for another.
            self.transport.abort()
            return
        error = sys.exc_info()[1]
        too_large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
        answer = (
            problem(431, "headers_too_large", f"The headers have more than {MAX_HEAD} bytes.", "Send fewer headers.")
            if too_large
            else problem(400, "not_http", "This is no HTTP request.", "Use http:// and not https://, and HTTP/1.1.")
        )
        headers = [(name.encode(), value.encode()) for name, value in SAFE_HEADERS.items()]
        headers += [*answer.raw_headers, (b"connection", b"close")]
        body = bytes(answer.body)
        for event in (
            h11.Response(status_code=answer.status_code, headers=headers, reason=b""),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event))
        self.transport.close()


def most_connections(wanted: int) -> int:
    """So many connections that the process keeps descriptors for its work; ``wanted`` where it can have that many.

    Raises this process's own limit as far as that may be done: systems begin with few (256 on macOS).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _RESERVE
    if soft != resource.RLIM_INFINITY and soft < needed:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            soft = allowed
        except (OSError, ValueError) as error:
            # macOS refuses more than its kernel has, without saying how many that is.
            logger.info("The limit of %d open files stays: %s.", soft, error)
    return wanted if soft == resource.RLIM_INFINITY else max(16, min(wanted, soft - min(_RESERVE, soft // 2)))
