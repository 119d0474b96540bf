"""One question to the Hub: it runs in a thread of its own, and it ends, whatever the other side does."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

from mlx_manager.errors import HubTimeout

Answer = TypeVar("Answer")

_current: contextvars.ContextVar[Question | None] = contextvars.ContextVar("hub_question", default=None)
_PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> tuple[str, str, int]:
    """Scheme, host and port: what decides whose the other side is. Raises ValueError for what is no URL."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https URL")
    return scheme, parts.hostname.lower(), parts.port or _PORTS[scheme]


class Question:
    """The time that one question may take, and the socket that it waits at.

    ``timeout_s``: longest silence of one read, write or connect. ``deadline_s``: from now to the end of all of it,
    however many requests it needs. Both are looked at by the sockets of `network.py`, in the question's own thread;
    `ask` looks at the deadline too, for what no socket can bound (looking up a name).
    """

    def __init__(self, endpoint: str, timeout_s: float, deadline_s: float) -> None:
        self.origin = origin_of(endpoint)
        self.host = self.origin[1]
        self.timeout_s = timeout_s
        self.deadline_s = deadline_s
        self.doing = "starting"
        self._end = time.monotonic() + deadline_s
        self._lock = threading.Lock()
        self._over = False
        self._waiting_at: socket.socket | None = None

    @staticmethod
    def current() -> Question | None:
        """The question that this thread is busy with."""
        return _current.get()

    async def ask(self, call: Callable[[], Answer]) -> Answer:
        """What ``call()`` returns or raises, run in a daemon thread of its own; HubTimeout at the deadline.

        Not a pool: one hung call must not keep the others waiting, nor the process from ending. When the caller is
        cancelled, the thread's socket is shut, so that it does not live on for a timeout's length.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()

        def if_awaited(give: Callable[[], None]) -> None:
            if not answer.done():
                give()

        def run() -> None:
            _current.set(self)
            give: Callable[[], None]
            try:
                give = partial(answer.set_result, call())
            except BaseException as error:  # noqa: BLE001  it is raised in the task that asked
                give = partial(answer.set_exception, error)
            # A loop that was closed meanwhile has nobody left to tell.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(if_awaited, give)

        # The context goes along, so that what the thread logs is known as its asker's.
        run_here = contextvars.copy_context().run
        threading.Thread(target=run_here, args=(run,), name="hub-question", daemon=True).start()
        try:
            async with asyncio.timeout(self.deadline_s):
                return await answer
        except TimeoutError:
            raise self.too_long() from None
        finally:
            self.give_up()

    @contextmanager
    def here(self) -> Iterator[None]:
        """Ask in this very thread while this lasts; it blocks for at most ``deadline_s``, but for looking up a name."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def give_up(self) -> None:
        """Nobody waits for the answer any more: shut the socket that the thread waits at. Twice is fine."""
        with self._lock:
            self._over = True
            if self._waiting_at is not None:
                with suppress(OSError):
                    # Not the method of an SSLSocket: that one forgets its TLS state while the other thread reads.
                    socket.socket.shutdown(self._waiting_at, socket.SHUT_RDWR)

    def left(self) -> float:
        """Seconds that the next step may take. Raises HubTimeout when there are none."""
        left = self._end - time.monotonic()
        if self._over or left <= 0:
            raise self.too_long()
        return min(left, self.timeout_s)

    @contextmanager
    def waiting_at(self, sock: socket.socket | None) -> Iterator[float]:
        """While this lasts, `give_up` shuts the socket. Yields the seconds that the step may take."""
        with self._lock:
            left = self.left()
            self._waiting_at = sock
        try:
            yield left
        finally:
            with self._lock:
                self._waiting_at = None

    def too_long(self) -> HubTimeout:
        return HubTimeout(f"{self.host} did not answer in full within {self.deadline_s:g} s (last: {self.doing}).")

    def silence(self, waited_s: float) -> HubTimeout:
        """The error for a step that was given ``waited_s`` seconds and got nothing."""
        if time.monotonic() >= self._end:
            return self.too_long()
        return HubTimeout(f"{self.host} was silent for {waited_s:g} s ({self.doing}).")
