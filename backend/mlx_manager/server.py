"""The server around the app: it binds before it starts anything, and at the end it closes open streams first.

One process holds a data directory. Its order: lock the directory, open the log, bind the port, start the core, answer,
announce the address to others. Each step that fails is one StartError, and what was done before it is undone.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import psutil
import uvicorn
from fastapi import FastAPI
from starlette.types import Message

from mlx_manager import __version__
from mlx_manager.app import create_app
from mlx_manager.connections import MAX_HEAD, USUAL, Connections, Patience, most_connections
from mlx_manager.errors import PortInUse, StartError
from mlx_manager.logs import FILE_ONLY, Redactor, logging_to
from mlx_manager.memory import share_arenas
from mlx_manager.services.access import Access
from mlx_manager.services.data_dir import DataDir, RunningServer
from mlx_manager.settings import Settings
from mlx_manager.wiring import Core

logger = logging.getLogger(__name__)

OnReady = Callable[[str], None]
"""Called once with the server's URL, on its loop, when it answers."""

STREAMS_END_S = 0.4
"""How long a watcher that does not read may keep its connection once the server ends."""
CORE_ENDS_S = 1.2
"""How long the downloads may take to write down where they stand; a disk that stalls may need longer, and is left."""
LAST_THREADS_S = 0.2
_BACKLOG = 128
_CALLS = 256


def serve(settings: Settings, *, on_ready: OnReady | None = None) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP; then end within two seconds with everything kept. A second signal ends
    the process at once, which loses no byte either. From the main thread only. Raises StartError."""
    share_arenas()
    process = _Process(settings, on_ready=on_ready, serving=True, stderr=True)
    with _ended_by_signals(process.stop):
        process.run()
    _wait_for_no_thread()
    # The interpreter would search all there is for cycles before it ends: half a second, of the two that we promise.
    gc.freeze()


class EmbeddedServer:
    """The same server in a thread of a program that goes on with other things; no signal is touched.

    Its log goes to the file alone: the terminal belongs to the program. Downloads that an earlier process left behind
    rest until they are asked for: the program came for its own.
    """

    def __init__(self, settings: Settings, *, stderr: bool = False, patience: Patience = USUAL) -> None:
        """``settings.port`` 0 takes any free port. ``stderr``: the program wants the log on its terminal too."""
        self._ready: Future[str] = Future()
        self._process = _Process(
            settings, on_ready=self._ready.set_result, serving=False, stderr=stderr, patience=patience
        )
        # A daemon: a program that dies of something else must not be held by it; all bytes are safe at any moment.
        self._thread = threading.Thread(target=self._run, name="mlx-manager-server", daemon=True)

    def start(self, timeout_s: float = 30.0) -> str:
        """The URL, once it answers. Raises StartError, and TimeoutError when it takes longer than ``timeout_s``."""
        self._thread.start()
        return self._ready.result(timeout_s)

    def stop(self) -> None:
        """End as `serve` does at SIGTERM, and wait for it. Twice is fine."""
        self._process.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._process.run()
        except BaseException as error:
            if self._ready.done():
                logger.exception("The server ended by an error.")
                raise
            self._ready.set_exception(error)


class _Process:
    """One life of a server, from the lock to its release. ``serving``: the process is here for this alone."""

    def __init__(
        self,
        settings: Settings,
        *,
        on_ready: OnReady | None,
        serving: bool,
        stderr: bool,
        patience: Patience = USUAL,
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._on_ready = on_ready
        self._serving = serving
        self._stderr = stderr
        self._stopping = False
        self._uvicorn: _Uvicorn | None = None

    def stop(self) -> None:
        """Ask it to end; returns at once. From any thread and from a signal handler."""
        self._stopping = True
        if self._uvicorn is not None:
            self._uvicorn.should_exit = True

    def run(self) -> None:
        settings, redactor = self._settings, Redactor()
        data_dir = DataDir(settings.home)
        data_dir.acquire()
        try:
            with logging_to(
                level=settings.log_level,
                form=settings.log_format,
                file=settings.log_file,
                stderr=self._stderr,
                redactor=redactor,
            ):
                try:
                    with listening(settings.host, settings.port) as listener:
                        _run_loop(self._live(data_dir, listener, redactor))
                except StartError as error:
                    # On the terminal whoever called us says it.
                    logger.error("Not started: %s %s", error.detail, error.advice, extra=FILE_ONLY)
                    raise
        finally:
            data_dir.release()

    async def _live(self, data_dir: DataDir, listener: socket.socket, redactor: Redactor) -> None:
        async with Core(self._settings, hide=redactor.hide, recover=self._serving) as core:
            url = url_of(self._settings.host, listener)

            def ready() -> None:
                data_dir.announce(
                    RunningServer(
                        url=url,
                        pid=os.getpid(),
                        version=__version__,
                        token_needed=core.access is not None,
                        others=others_of(self._settings, listener),
                    )
                )
                logger.info("MLX Manager %s answers at %s; models are in %s.", __version__, url, core.cache.cache_dir)
                if core.access is not None:
                    logger.info("It asks for the access token, which `mlx-manager token` shows.")
                if self._on_ready is not None:
                    self._on_ready(url)

            # Beside the streams there are calls, each of a moment.
            connections = Connections(most_connections(self._settings.max_streams + _CALLS), self._patience)
            self._uvicorn = _Uvicorn(create_app(core), core, connections, ready)
            # A signal may have come while the core started.
            self._uvicorn.should_exit = self._stopping
            await self._uvicorn.serve(sockets=[listener])
        logger.info("Stopped.")


class _Uvicorn(uvicorn.Server):
    """uvicorn that says when it answers, and that ends the core and the open streams before it waits for them."""

    def __init__(self, app: FastAPI, core: Core, connections: Connections, ready: Callable[[], None]) -> None:
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
                backlog=_BACKLOG,
            )
        )
        self._app = app
        self._core = core
        self._connections = connections
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals belong to `serve`, which has them for the time before and after too.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Before anybody is let in: the first answer of a FastAPI app takes ten times as long as the others.
        await _answer_once(self._app, self._core.access)
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        # Ten times a second.
        if counter % 10 == 0:
            self._connections.look_after(self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        logger.info("Stopping; unfinished downloads keep all they have and go on at the next start.")
        # Streams first: they would hold their connections for ever.
        self._core.end_streams()
        impatient = asyncio.create_task(self._let_go())
        try:
            await asyncio.gather(self._end_core(), super().shutdown(sockets))
        finally:
            impatient.cancel()

    async def _end_core(self) -> None:
        try:
            async with asyncio.timeout(CORE_ENDS_S):
                await self._core.stop()
        except TimeoutError:
            logger.error("The downloads did not stop within %.1f s; the server ends all the same.", CORE_ENDS_S)
            self._core.give_up()

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


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    """`asyncio.run` without its wait for threads: a Hub that is silent must not hold up the end."""
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(main)
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=LAST_THREADS_S))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


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


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens already, so that a port in use is known before anything else. Raises StartError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as error:
        raise StartError(
            f"The host {host!r} cannot be listened on: {error.strerror}.",
            advice="Use 127.0.0.1, or an address of this machine (--host or MLX_MANAGER_HOST).",
        ) from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A port whose last server just ended is free again at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise _not_bound(host, port, error) from error
    try:
        yield listener
    finally:
        listener.close()


def _not_bound(host: str, port: int, error: OSError) -> StartError:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(f"The port {port} of {host} is taken by another program.")
    advice = "Use 127.0.0.1, or an address of this machine (--host or MLX_MANAGER_HOST)."
    if error.errno in (errno.EACCES, errno.EPERM):
        advice = "Choose a port above 1023 with --port or MLX_MANAGER_PORT."
    return StartError(f"{host}:{port} cannot be listened on: {error.strerror}.", advice=advice)


def url_of(host: str, listener: socket.socket) -> str:
    """How this machine reaches the listener; no slash at its end."""
    port = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared with, not listened on
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def others_of(settings: Settings, listener: socket.socket) -> tuple[str, ...]:
    """How other machines reach the listener, as far as this one can know; none where they cannot."""
    port = listener.getsockname()[1]
    if settings.is_loopback:
        hosts = []
    elif settings.host in ("0.0.0.0", "::"):  # noqa: S104 - compared with, not listened on
        known = [ipaddress.ip_address(one) for one in _addresses(listener.family)]
        hosts = [str(one) for one in known if not (one.is_loopback or one.is_link_local)]
    else:
        hosts = [settings.host]
    return tuple(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}" for host in hosts)


def _addresses(family: socket.AddressFamily) -> list[str]:
    found = (one for each in psutil.net_if_addrs().values() for one in each)
    return [one.address.partition("%")[0] for one in found if one.family == family]


def embedded(settings: Settings, *, stderr: bool = False) -> EmbeddedServer:
    """A server for one program's own use, on a loopback port of its own."""
    return EmbeddedServer(replace(settings, host="127.0.0.1", port=0, names=()), stderr=stderr)
