"""The server around the app: uvicorn that answers from its first moment, and at the end closes open streams first."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI
from starlette.types import Message

from mlx_manager.app import create_app
from mlx_manager.connections import MAX_HEAD, USUAL, Connections, Patience, most_connections
from mlx_manager.process import BACKLOG, LAST_THREADS_S, Door, OnReady, Process, end_core
from mlx_manager.services.access import Access
from mlx_manager.settings import Settings
from mlx_manager.wiring import Core

logger = logging.getLogger(__name__)

STREAMS_END_S = 0.4
"""How long a watcher that does not read may keep its connection once the server ends."""
_CALLS = 256


def serve(settings: Settings, *, on_ready: OnReady | None = None) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; then end within two seconds with everything kept. A second signal ends
    the process at once, which loses no byte either. From the main thread only. Raises StartError."""
    process = Process(settings, _answer_at_once, on_ready=on_ready, serving=True, stderr=True)
    with _ended_by_signals(process.stop):
        process.run()
    _wait_for_no_thread()
    # The interpreter would search all there is for cycles before it ends: half a second, of the two that we promise.
    gc.freeze()


async def _answer_at_once(door: Door) -> None:
    await answer(door, on_up=door.open)


async def answer(door: Door, *, patience: Patience = USUAL, on_up: Callable[[], None] = lambda: None) -> None:
    """A `process.Answer` but for the opening: that is ``on_up``, called when the first request can be answered."""
    await door.core.expect_visitors()
    # Beside the streams there are calls, each of a moment.
    connections = Connections(most_connections(door.core.settings.max_streams + _CALLS), patience)
    server = _Uvicorn(create_app(door.core), door.core, connections, on_up)

    async def end() -> None:
        await door.closing.wait()
        server.should_exit = True

    ending = asyncio.create_task(end(), name="the door closes")
    try:
        await server.serve(sockets=[door.listener])
    finally:
        ending.cancel()


class _Uvicorn(uvicorn.Server):
    """uvicorn that says when it is up, and that ends the core and the open streams before it waits for them."""

    def __init__(self, app: FastAPI, core: Core, connections: Connections, on_up: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=connections.protocol,  # type: ignore[arg-type] # what makes one will do where a class is asked for
                h11_max_incomplete_event_size=MAX_HEAD,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                backlog=BACKLOG,
            )
        )
        self._app = app
        self._core = core
        self._connections = connections
        self._on_up = on_up

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals belong to `serve`, which has them for the time before and after too.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Before anybody is let in: the first answer of a FastAPI app takes ten times as long as the others.
        await _answer_once(self._app, self._core.access)
        await super().startup(sockets)
        self._on_up()

    async def on_tick(self, counter: int) -> bool:
        # Ten times a second.
        if counter % 10 == 0:
            self._connections.look_after(self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        impatient = asyncio.create_task(self._let_go())
        try:
            await asyncio.gather(end_core(self._core), super().shutdown(sockets))
        finally:
            impatient.cancel()

    async def _let_go(self) -> None:
        """A watcher that does not read keeps its stream from ending: its connection is cut."""
        await asyncio.sleep(STREAMS_END_S)
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if transport.get_write_buffer_size():
                transport.abort()


async def _answer_once(app: FastAPI, access: Access | None) -> None:
    """Have the app answer ``GET /health`` without a network."""
    proof = [] if access is None else [(b"authorization", f"Bearer {access.make_pass(60)}".encode())]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "root_path": "",
        "path": "/health",
        "raw_path": b"/health",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), *proof],
        "client": None,
        "server": None,
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    await app(scope, receive, send)


def _wait_for_no_thread() -> None:
    """End the process here if a thread is held up, by a disk that stalls for example: the interpreter would wait for it
    for ever. Whatever it was about to write, the next start gets on without."""
    until = time.monotonic() + LAST_THREADS_S
    others = [one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    for thread in others:
        thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in others):
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)


@contextmanager
def _ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """The first signal calls ``stop``, the second has its usual effect. Everything is as before afterwards."""
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    # Ignored by whoever started us, by nohup for example: that stays.
    before = {number: signal.getsignal(number) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}

    def first(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        stop()

    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
