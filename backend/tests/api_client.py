"""The product's API over real sockets: calls, and event streams read as they come."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import mlx_manager
from mlx_manager.domain.states import Status
from mlx_manager.embedded import EmbeddedServer
from mlx_manager.services.data_dir import running_server
from mlx_manager.settings import Settings

PATIENCE_S = 20.0
MODELS = "/api/models"


@dataclass(frozen=True)
class Answer:
    """What a call got. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Event:
    """One event of a stream. ``at``: when it was read, on the monotonic clock."""

    id: int
    data: dict[str, Any]
    at: float = field(compare=False)

    @property
    def status(self) -> str:
        return str(self.data["status"])


class Stream:
    """An open event stream. Iterating ends when the server ends it; silence of PATIENCE_S is an error."""

    def __init__(self, url: str, path: str, headers: Mapping[str, str]) -> None:
        self._connection = _connect(url)
        self._connection.request("GET", path, headers=dict(headers))
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}
        self.comments: list[str] = []
        self.retry: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Event]:
        fields: dict[str, str] = {}
        while line := self._response.readline():
            text = line.decode().rstrip("\n")
            if text.startswith(":"):
                self.comments.append(text)
            elif text:
                name, _, value = text.partition(": ")
                fields[name] = value
            else:
                if "retry" in fields:
                    self.retry = int(fields["retry"])
                if "data" in fields:
                    yield Event(int(fields["id"]), json.loads(fields["data"]), time.monotonic())
                fields = {}

    def next(self) -> Event:
        return next(iter(self))

    def until(self, wanted: Callable[[Event], bool]) -> list[Event]:
        """Events up to the first that is wanted, which is the last of them."""
        events = []
        for event in self:
            events.append(event)
            if wanted(event):
                return events
        raise AssertionError(f"the stream ended before it came; the last was {events[-1:]}")


class Api:
    """Calls of one server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def call(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        connection = _connect(self.url)
        sent = dict(headers)
        if body is not None:
            raw = json.dumps(body).encode()
        if raw is not None:
            sent = {"Content-Type": "application/json"} | sent
        try:
            connection.request(method, path, raw, sent)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", path, headers=headers)

    def post(self, path: str, body: object = None) -> Answer:
        return self.call("POST", path, body)

    def download(self, model_id: str, **more: object) -> str:
        """Ask for a model; its task_id."""
        answer = self.post(f"{MODELS}/download", {"model_id": model_id, **more})
        assert answer.status in (200, 202), answer
        return str(answer.json["task_id"])

    def move(self, task_id: str, verb: str) -> Answer:
        return self.post(f"{MODELS}/download/{task_id}/{verb}")

    def status(self, task_id: str) -> dict[str, Any]:
        answer = self.get(f"{MODELS}/download/{task_id}/status")
        assert answer.status == 200, answer
        return dict(answer.json)

    def progress(self, task_id: str, last_event_id: object = None) -> Stream:
        return self.stream(f"{MODELS}/download/{task_id}/progress", last_event_id)

    def events(self, last_event_id: object = None) -> Stream:
        return self.stream("/api/events", last_event_id)

    def stream(self, path: str, last_event_id: object = None) -> Stream:
        return Stream(self.url, path, {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)})

    def wait(self, task_id: str, *states: Status) -> dict[str, Any]:
        """Poll until the download is in one of the states."""
        give_up_at = time.monotonic() + PATIENCE_S
        while (now := self.status(task_id))["status"] not in states:
            assert not Status(now["status"]).is_terminal, now
            assert time.monotonic() < give_up_at, now
            time.sleep(0.02)
        return now


def _connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)


DEAD_HUB = "http://127.0.0.1:9"
"""Nothing listens there: for tests that need no Hub."""


def environment(home: Path, hub_url: str, **more: str) -> dict[str, str]:
    """Variables for a product of its own in ``home``, with the cache in ``home``/hf/hub."""
    return {
        "MLX_MANAGER_HOME": str(home / "data"),
        "MLX_MANAGER_PORT": "0",
        "MLX_MANAGER_LOG_LEVEL": "DEBUG",
        "HF_ENDPOINT": hub_url,
        "HF_HOME": str(home / "hf"),
        **more,
    }


@contextmanager
def serving(home: Path, hub_url: str, **more: str) -> Iterator[Api]:
    """A server in a thread of this process; ``more``: variables of the environment."""
    server = EmbeddedServer(Settings.load(environment(home, hub_url, **more)))
    try:
        yield Api(server.start())
    finally:
        server.stop()


_SERVE = "from mlx_manager.server import serve; from mlx_manager.settings import Settings; serve(Settings.load())"


class ServerProcess:
    """A server in a process of its own. ``prefix``: a command to start it with, such as `setpriv`."""

    def __init__(
        self,
        home: Path,
        hub_url: str,
        *,
        prefix: Sequence[str] = (),
        command: Sequence[str] = (sys.executable, "-c", _SERVE),
        **more: str,
    ) -> None:
        own = environment(home, hub_url, **more)
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        python_path = str(Path(mlx_manager.__file__).parents[1])
        self._home = Path(own["MLX_MANAGER_HOME"])
        self.env = {**inherited, "PYTHONPATH": python_path, **own}
        # A file, not a pipe: a pipe that nobody reads would hold the server up when it is full.
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self.process = subprocess.Popen(
            [*prefix, *command],
            env=self.env,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._said.close()

    def api(self) -> Api:
        """Waits until it answers."""
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            server = running_server(self._home)
            if server is not None and server.pid == self.process.pid:
                return Api(server.url)
            assert self.process.poll() is None, self.ended()[1]
            assert time.monotonic() < give_up_at, "the server does not start"
            time.sleep(0.02)

    def ended(self) -> tuple[int, str]:
        """Waits for its end: exit code, and what it said on stderr."""
        code = self.process.wait(PATIENCE_S)
        self._said.seek(0)
        return code, self._said.read()

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
