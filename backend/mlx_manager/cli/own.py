"""The server that this command runs itself, asked without HTTP: as a client asks it, with the same answers and errors.

Only what is about downloads: whoever pulls a model needs no more, and never has the web framework imported. All else
goes over HTTP, as from any other client.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from mlx_manager.cli.client import ANSWER_WITHIN_S, SILENCE_S, Accepted, ApiClient, Refused, Snapshot, StreamLost
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.events import Event
from mlx_manager.domain.snapshot import snapshot
from mlx_manager.errors import MlxManagerError, ServerUnreachable
from mlx_manager.services.ports import Subscription

if TYPE_CHECKING:
    from mlx_manager.embedded import EmbeddedServer
    from mlx_manager.wiring import Core

T = TypeVar("T")


class OwnServer(ApiClient):
    def __init__(self, server: EmbeddedServer, url: str, token: Callable[[], str | None] = lambda: None) -> None:
        """``token``: as of an ApiClient, for what is asked over HTTP."""
        super().__init__(url, token)
        self._server = server

    def request(self, wanted: ModelRequest, priority: int = 0) -> Accepted:
        download, created = self._core(lambda core: core.manager.request(wanted, priority))
        return Accepted(download.task_id, created)

    def status(self, task_id: str, *, files: bool = False) -> Snapshot:
        return snapshot(self._core(lambda core: core.manager.get(task_id)), files=files)

    def move(self, task_id: str, verb: str) -> Snapshot:
        return snapshot(self._core(lambda core: getattr(core.manager, verb)(task_id)))

    @contextmanager
    def stream(self, task_id: str, after: str | None) -> Iterator[Iterator[tuple[str, Snapshot]]]:
        first, subscription = self._core(lambda core: core.watch(task_id, None if after is None else int(after)))
        try:
            yield ((str(event.id), event.snapshot) for event in self._told(first, subscription))
        finally:
            if subscription is not None:
                with suppress(ServerUnreachable):  # ended, and all subscriptions with it
                    self._core(lambda core: _close(subscription))

    def _told(self, first: Event | None, subscription: Subscription | None) -> Iterator[Event]:
        if first is not None:
            yield first
        while subscription is not None:
            try:
                event = self._core(lambda core: _next(subscription), SILENCE_S)
            except ServerUnreachable as error:
                raise StreamLost("The event stream broke off.") from error
            if event is None:
                return
            yield event

    def _core(self, work: Callable[[Core], Coroutine[Any, Any, T]], within_s: float = ANSWER_WITHIN_S) -> T:
        try:
            return self._server.ask(work, within_s)
        except ServerUnreachable:
            raise
        except TimeoutError as error:
            raise ServerUnreachable(f"The server inside this command has been silent for {within_s:.0f} s.") from error
        except MlxManagerError as error:
            raise Refused(error.detail, advice=error.advice, code=error.code, status=error.http_status) from error


async def _next(subscription: Subscription) -> Event | None:
    """None after the last one."""
    return await anext(aiter(subscription), None)


async def _close(subscription: Subscription) -> None:
    subscription.close()
