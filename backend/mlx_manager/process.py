"""One life of MLX Manager in a process: it holds the data directory, runs the core, and has a door for others.

Its order: lock the directory, open the log, bind the port, start the core, open the door, announce the address to
others. Each step that fails is one StartError, and what was done before it is undone. Who answers at the door is given
from outside: `server.py` does it from the first moment, `embedded.py` once somebody has come.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mlx_manager import __version__
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.errors import PortInUse, StartError
from mlx_manager.logs import FILE_ONLY, Redactor, logging_to
from mlx_manager.memory import share_arenas
from mlx_manager.services.data_dir import DataDir, RunningServer
from mlx_manager.settings import Settings
from mlx_manager.wiring import Core

logger = logging.getLogger(__name__)

OnReady = Callable[[str], None]
"""Called once with the server's URL, on its loop, when it listens there and the others can find it."""

CORE_ENDS_S = 1.2
"""How long the downloads may take to write down where they stand; a disk that stalls may need longer, and is left."""
LAST_THREADS_S = 0.2
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Door:
    """Where others come in. ``listener`` listens already, so nobody who comes early is refused; ``open`` tells
    everybody the address; ``wall_up`` takes it back and refuses whoever comes, for good; ``closing`` is set when the
    process is to end. Both calls raise DataDirNotWritable, the second after it is done."""

    core: Core
    listener: socket.socket
    open: Callable[[], None]
    wall_up: Callable[[], None]
    closing: asyncio.Event


Answer = Callable[[Door], Awaitable[None]]
"""Opens the door, has an answer for whoever comes, and ends the core when the door is closing."""


class Process:
    """One life, from the lock to its release. ``serving``: the process is here for this alone; otherwise
    ``comes_for`` is what it is here for."""

    def __init__(
        self,
        settings: Settings,
        answer: Answer,
        *,
        on_ready: OnReady | None,
        serving: bool,
        stderr: bool,
        comes_for: ModelRequest | None = None,
    ) -> None:
        self._settings = settings
        self._answer = answer
        self._on_ready = on_ready
        self._serving = serving
        self._stderr = stderr
        self._comes_for = comes_for
        self._stopping = False
        self._close: Callable[[], None] = lambda: None

    def stop(self) -> None:
        """Ask it to end; returns at once. From any thread and from a signal handler."""
        self._stopping = True
        self._close()

    def run(self) -> None:
        """Returns when it has ended. Raises StartError."""
        # Before there are threads: what they have by then they keep.
        share_arenas()
        settings, redactor = self._settings, Redactor()
        data_dir = DataDir(settings.home, settings.hub_memory)
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
        closing, loop = asyncio.Event(), asyncio.get_running_loop()

        def close() -> None:
            with suppress(RuntimeError):  # the loop has ended already
                loop.call_soon_threadsafe(closing.set)

        async with Core(self._settings, hide=redactor.hide, recover=self._serving, comes_for=self._comes_for) as core:
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
                logger.info("MLX Manager %s listens at %s; models are in %s.", __version__, url, core.cache.cache_dir)
                if core.access is not None:
                    logger.info("It asks for the access token, which `mlx-manager token` shows.")
                if self._on_ready is not None:
                    self._on_ready(url)

            def wall_up() -> None:
                try:
                    # First, so that nobody who is refused still finds it.
                    data_dir.withdraw()
                finally:
                    if listener.fileno() != -1:
                        # Or the loop would take the next file with this number for the listener.
                        loop.remove_reader(listener)
                        listener.close()

            self._close = close
            # A signal may have come while the core started.
            if self._stopping:
                closing.set()
            await self._answer(Door(core, listener, ready, wall_up, closing))
        logger.info("Stopped.")


async def end_core(core: Core) -> None:
    """End every watcher's stream, and the downloads with all they have."""
    logger.info("Stopping; unfinished downloads keep all they have and go on at the next start.")
    # Streams first: they would hold their connections for ever.
    core.end_streams()
    try:
        async with asyncio.timeout(CORE_ENDS_S):
            await core.stop()
    except TimeoutError:
        logger.error("The downloads did not stop within %.1f s; the server ends all the same.", CORE_ENDS_S)
        core.give_up()


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
        listener.listen(BACKLOG)
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
    # Of all processes only a server for the whole network has use for it.
    import psutil

    found = (one for each in psutil.net_if_addrs().values() for one in each)
    return [one.address.partition("%")[0] for one in found if one.family == family]
