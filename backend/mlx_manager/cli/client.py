"""The HTTP API as the command line uses it."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx2

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.errors import MlxManagerError, ServerUnreachable
from mlx_manager.services.access import make_pass

Snapshot = dict[str, Any]
"""A download as `domain.snapshot` writes it."""

ANSWER_WITHIN_S = 15.0
"""A pause answers only when the bytes have stopped; anything else answers at once."""
HEALTH_WITHIN_S = 5.0
PASS_S = 60.0
HUB_WITHIN_S = 75.0
"""The server itself gives the Hub less."""
SILENCE_S = 5.0
"""An active download speaks once a second; a stream that is silent for so long is looked after."""


class Refused(MlxManagerError):
    """The server said no, with a reason (problem+json). ``told_code`` is the server's word for it."""

    def __init__(self, detail: str, *, advice: str | None, code: str, status: int) -> None:
        super().__init__(detail, advice=advice)
        self.told_code = code
        self.status = status


class ServerSilent(ServerUnreachable):
    """Somebody listens there and says nothing."""


class StreamLost(MlxManagerError):
    """The event stream broke, fell silent or was never one; the download itself may be well."""

    code = "stream_lost"
    transient = True


@dataclass(frozen=True, slots=True)
class Accepted:
    """``created`` is False when the same thing was in flight already."""

    task_id: str
    created: bool


class _Pass(httpx2.Auth):
    """Shows that this user may read the access token, without sending it: where our server was killed, somebody else
    may listen by now. Of a pass such a one has a minute."""

    def __init__(self, token: Callable[[], str | None]) -> None:
        self._token = token

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        # Read for each request: it may be renewed while we watch a long download.
        if (token := self._token()) is not None:
            request.headers["Authorization"] = f"Bearer {make_pass(token, PASS_S)}"
        yield request


class ApiClient:
    """Calls of one server; from any thread. Raises Refused, and ServerUnreachable when no answer comes
    (ServerSilent: not in time)."""

    def __init__(self, url: str, token: Callable[[], str | None] = lambda: None) -> None:
        """``token``: gives the access token of the server's data folder, where there is one."""
        self.url = url.rstrip("/")
        # The server is on this machine: a proxy of the environment has no business here, nor have certificates, which
        # take longer to load than the server to answer.
        self._http = httpx2.Client(
            base_url=self.url,
            trust_env=False,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            timeout=httpx2.Timeout(ANSWER_WITHIN_S, connect=3.0),
            auth=_Pass(token),
        )

    def close(self) -> None:
        self._http.close()

    def health(self) -> dict[str, Any]:
        """Answered at once by any server that is well; by a `pull` that nobody joined so far when it has imported what
        it takes, which is seconds on a busy machine."""
        return self._call("GET", "/health", timeout=HEALTH_WITHIN_S)

    def system(self) -> dict[str, Any]:
        """Who answers there: version, pid, data_dir, cache and more."""
        return self._call("GET", "/api/system", timeout=5.0)

    def request(self, wanted: ModelRequest, priority: int = 0) -> Accepted:
        """Ask for a model; what is in flight already is not begun twice, what is paused goes on."""
        body: dict[str, Any] = {"model_id": wanted.model_id, "revision": wanted.revision, "priority": priority}
        if wanted.allow_patterns:
            body["allow_patterns"] = list(wanted.allow_patterns)
        if wanted.ignore_patterns:
            body["ignore_patterns"] = list(wanted.ignore_patterns)
        answer = self._ask("POST", "/api/models/download", json=body)
        return Accepted(str(_object(answer)["task_id"]), answer.status_code == httpx2.codes.ACCEPTED)

    def status(self, task_id: str, *, files: bool = False) -> Snapshot:
        return self._call("GET", f"/api/models/download/{task_id}/status", params={"files": "true"} if files else None)

    def move(self, task_id: str, verb: str) -> Snapshot:
        """``verb``: pause, resume or cancel. Returns when it is so."""
        return self._call("POST", f"/api/models/download/{task_id}/{verb}")

    def downloads(self, states: Sequence[str] = ()) -> Iterator[Snapshot]:
        """Newest first; ``states`` empty: all."""
        cursor: str | None = None
        while True:
            params: dict[str, Any] = {"state": list(states)} if states else {}
            if cursor is not None:
                params["cursor"] = cursor
            page = self._call("GET", "/api/models/downloads", params=params)
            yield from page["downloads"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def search(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """A page of /api/models/search. The Hub is asked, so it may take its time."""
        return self._call("GET", "/api/models/search", params=dict(params), timeout=HUB_WITHIN_S)

    def info(self, wanted: ModelRequest, context: int | None) -> dict[str, Any]:
        """/api/models/info of a model."""
        params: dict[str, Any] = {"revision": wanted.revision} | ({"context": context} if context else {})
        return self._call("GET", f"/api/models/info/{wanted.model_id}", params=params, timeout=HUB_WITHIN_S)

    def deletion(self, model_id: str, params: dict[str, str]) -> dict[str, Any]:
        """What `delete` with the same ``params`` (revision, leftovers) would remove."""
        return self._call("GET", f"/api/models/local/{quote(model_id)}/delete", params=params)

    def delete(self, model_id: str, params: dict[str, str]) -> dict[str, Any]:
        """What was removed. Removing may take a while: the disk has to give hundreds of gigabytes back."""
        return self._call("DELETE", f"/api/models/local/{quote(model_id)}", params=params, timeout=600.0)

    @contextmanager
    def stream(self, task_id: str, after: str | None) -> Iterator[Iterator[tuple[str, Snapshot]]]:
        """The download's events as (id, snapshot), from those newer than ``after`` on, until the server ends it.

        Raises StreamLost when it breaks or is silent for 5 s.
        """
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if after is not None:
            headers["Last-Event-ID"] = after
        path = f"/api/models/download/{task_id}/progress"
        try:
            with self._http.stream("GET", path, headers=headers, timeout=httpx2.Timeout(SILENCE_S)) as answer:
                if answer.status_code == httpx2.codes.NO_CONTENT:
                    yield iter(())
                    return
                if answer.status_code != httpx2.codes.OK:
                    raise StreamLost(f"The event stream was answered with {answer.status_code}.")
                yield self._events(answer)
        except httpx2.TransportError as error:
            raise StreamLost(f"The event stream broke off ({type(error).__name__}).") from error

    @staticmethod
    def _events(answer: httpx2.Response) -> Iterator[tuple[str, Snapshot]]:
        for event in httpx2.EventSource(answer):
            if not event.data:
                continue
            try:
                snapshot = json.loads(event.data)
            except ValueError as error:
                raise StreamLost("The event stream carried something that is no event.") from error
            yield event.id, snapshot

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return _object(self._ask(method, path, **options))

    def _ask(self, method: str, path: str, **options: Any) -> httpx2.Response:
        try:
            answer = self._http.request(method, path, **options)
        except httpx2.TransportError as error:
            reason = str(error) or type(error).__name__
            kind = ServerSilent if isinstance(error, httpx2.TimeoutException) else ServerUnreachable
            raise kind(f"The server at {self.url} does not answer: {reason}.") from error
        if answer.is_error:
            refusal = _refusal(answer)
            if refusal.told_code == ServerUnreachable.code:
                # It is just ending: as good as gone.
                raise ServerUnreachable(refusal.detail)
            raise refusal
        return answer


def _object(answer: httpx2.Response) -> dict[str, Any]:
    try:
        said = answer.json()
    except ValueError:
        said = None
    if not isinstance(said, dict):
        url = answer.request.url
        raise ServerUnreachable(f"What answers at {url.scheme}://{url.host}:{url.port} is not MLX Manager.")
    return said


def _refusal(answer: httpx2.Response) -> Refused:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if not isinstance(problem, dict):
        problem = {}
    return Refused(
        str(problem.get("detail") or f"The server answered {answer.status_code} {answer.reason_phrase}."),
        advice=problem.get("advice"),
        code=str(problem.get("code") or "internal_error"),
        status=answer.status_code,
    )
