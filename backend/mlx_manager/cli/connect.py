"""Finding the server, or becoming it.

Every process that holds the data directory's lock serves the HTTP API, so the command line is always a client: of the
server that runs, or of one that it runs itself in a thread, on a free port of this machine, for as long as it needs.
Of its own one it asks without HTTP what it can (own.py).
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mlx_manager.cli.client import HEALTH_WITHIN_S, ApiClient, ServerSilent
from mlx_manager.cli.exits import error_code
from mlx_manager.cli.terminal import Teller
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.errors import DataDirInUse, MlxManagerError, ServerUnreachable
from mlx_manager.memory import share_arenas
from mlx_manager.services.access import read_token
from mlx_manager.services.data_dir import RunningServer, is_held, running_server
from mlx_manager.settings import Settings

if TYPE_CHECKING:
    from mlx_manager.embedded import EmbeddedServer

logger = logging.getLogger(__name__)

FOUND_WITHIN_S = 15.0
"""One that is starting or ending takes a second or two; after so long it is asked for no more."""
_LOOK_AGAIN_S = 0.1
_TOLD_AFTER_S = 1.0
"""Who waits for longer is told what for."""

Tell = Callable[[str], None]
"""Says a sentence to the person; from another thread than the one that waits, and never after that has returned."""


def tell_aside(text: str) -> None:
    Teller(sys.stderr).line(text)


class Connector:
    """Where the server comes from. What it started ends with its ``with`` block."""

    def __init__(self, settings: Settings, *, verbose: bool = False, comes_for: ModelRequest | None = None) -> None:
        """``verbose``: a server of our own logs to stderr too, each step. ``comes_for``: what it will be asked for."""
        self._settings = replace(settings, log_level="DEBUG") if verbose else settings
        self._verbose = verbose
        self._comes_for = comes_for
        self._embedded: EmbeddedServer | None = None
        self._client: ApiClient | None = None
        # The follower's thread looks for another server while the main thread may be leaving.
        self._lock = threading.Lock()
        self._leaving = threading.Event()
        # What is waited for at this moment.
        self._asked: RunningServer | None = None
        self._is_held = False
        self.silent: RunningServer | None = None
        """That which `find` found, and which did not answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        with self._lock:
            if self._embedded is not None:
                self._embedded.stop()
                self._embedded = None
            if self._client is not None:
                self._client.close()

    @property
    def is_embedded(self) -> bool:
        return self._embedded is not None

    def find(self, tell: Tell = tell_aside) -> ApiClient | None:
        """The server that runs; None when there is none that answers, and then `silent` may be one. Says so when it
        waits for one."""
        with _told(self._waited_for, tell, HEALTH_WITHIN_S):
            self._client = self._find()
        return self._client

    def _find(self) -> ApiClient | None:
        self.silent = None
        announced = self._asked = running_server(self._settings.home)
        try:
            return None if announced is None else _reach(announced, self._settings.home)
        except ServerSilent as error:
            logger.debug("A server is announced and silent: %s", error.detail)
            # Somebody else may listen where a server was killed: the lock is the truth.
            self.silent = announced if is_held(self._settings.home) else None
            return None
        finally:
            self._asked = None

    def connect(self, tell: Tell = tell_aside) -> ApiClient:
        """The server that runs, or one of our own. Waits for one that is just starting or ending, or does not answer,
        and says so.

        Raises MlxManagerError when there is none to be had.
        """
        # A server of our own may come of this, and the onlooker's is the first thread.
        share_arenas()
        with _told(self._waited_for, tell, FOUND_WITHIN_S):
            return self._connect()

    def _waited_for(self) -> str | None:
        """The holder of the data folder; None while nobody is known to hold it."""
        if (asked := self._asked) is not None:
            return f"the server at {asked.url} (process {asked.pid}), which has not answered yet"
        if self._is_held:
            return f"a process that holds {self._settings.home} and does not say where it listens"
        return None

    def _connect(self) -> ApiClient:
        give_up_at = time.monotonic() + FOUND_WITHIN_S
        while True:
            with self._lock:
                if self._leaving.is_set():
                    raise ServerUnreachable("This command is ending.")
                self._check_own()
                client = self._find() or self._become()
                if client is not None:
                    self._client = client
                    return client
            if time.monotonic() >= give_up_at:
                raise _silent_holder(self._settings)
            self._leaving.wait(_LOOK_AGAIN_S)

    def _become(self) -> ApiClient | None:
        # Here, because all of the core comes with it; a client of a running server starts twice as fast without.
        from mlx_manager.cli.own import OwnServer
        from mlx_manager.embedded import embedded

        # Ours from now on, so that it is ended whatever interrupts its start.
        self.silent = None
        self._embedded = embedded(self._settings, stderr=self._verbose, comes_for=self._comes_for)
        try:
            url = self._embedded.start()
        except DataDirInUse:
            self._is_held = running_server(self._settings.home) is None
            self._embedded = None
            return None
        except TimeoutError as error:
            raise ServerUnreachable(
                "The server inside this command did not start in time.",
                advice=f"Look into the log: {self._settings.log_file}",
            ) from error
        logger.info("No server was running; this command serves at %s while it runs.", url)
        return OwnServer(self._embedded, url, partial(read_token, self._settings.home))

    def _check_own(self) -> None:
        """Our own server does not answer to us: to start a second one would only hide why."""
        if self._embedded is not None:
            raise ServerUnreachable(
                "The server inside this command has ended.", advice=f"Look into the log: {self._settings.log_file}"
            )


@contextmanager
def _told(waited_for: Callable[[], str | None], tell: Tell, within_s: float) -> Iterator[None]:
    """While this lasts, somebody looks on and says what is waited for, as soon as that is long, and when it changes."""
    over = threading.Event()

    def look_on() -> None:
        said = None
        while not over.wait(_TOLD_AFTER_S):
            if (what := waited_for()) not in (None, said):
                tell(f"Waiting for {what}; given up after {within_s:.0f} s.")
                said = what

    onlooker = threading.Thread(target=look_on, name="onlooker", daemon=True)
    onlooker.start()
    try:
        yield
    finally:
        over.set()
        onlooker.join()


def _reach(announced: RunningServer, home: Path) -> ApiClient | None:
    client = ApiClient(announced.url, partial(read_token, home))
    try:
        # Of a server that was killed the port may be somebody else's by now.
        if client.health().get("pid") == announced.pid:
            return client
    except MlxManagerError as error:
        if error_code(error).startswith("access_") or isinstance(error, ServerSilent):
            client.close()
            raise
        logger.debug("The server at %s is announced but does not answer: %s", announced.url, error.detail)
    client.close()
    return None


def silence_of(server: RunningServer) -> str:
    """For the person, of one that `Connector.find` found silent."""
    return f"The server at {server.url} (process {server.pid}) has not answered for {HEALTH_WITHIN_S:.0f} s"


def _silent_holder(settings: Settings) -> MlxManagerError:
    announced = running_server(settings.home)
    who = f"process {announced.pid} at {announced.url}" if announced else "a process that does not say where it listens"
    return ServerUnreachable(
        f"{settings.home} is held by {who}, which has not answered for {FOUND_WITHIN_S:.0f} s.",
        advice="Wait for it or end it, then try again; or set MLX_MANAGER_HOME to another folder.",
    )
