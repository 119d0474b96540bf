"""The real server as a process that a test may start, watch over HTTP, kill and start again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2

PROJECT: Final = Path(__file__).resolve().parents[2]
Snapshot = dict[str, Any]

START_TIMEOUT: Final = 60.0
STOP_TIMEOUT: Final = 10.0
# A stream that says nothing for this long breaks the promise of an event a second by far, however busy the machine is.
SILENCE_TIMEOUT: Final = 15.0

_ADDRESS: Final = re.compile(r"http://127\.0\.0\.1:(\d+)")


def python_with_mlx() -> str:
    """The interpreter that has MLX: the environment that `make e2e` sets up, or, without it, the one that runs this."""
    own = PROJECT / ".venv-e2e" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def clean_environment(**changes: str) -> dict[str, str]:
    """The environment without whatever may steer the Hub library, our settings or a proxy, plus ``changes``."""
    meddlers = re.compile(r"(HF_|HUGGING_?FACE|MLX_|TRANSFORMERS_|XDG_CACHE)|.*_PROXY$", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not meddlers.match(name)}
    return kept | {"HF_HUB_DISABLE_TELEMETRY": "1", "NO_COLOR": "1"} | changes


class ServerProcess:
    """`mlx-manager serve` on a port of its own choice, with the environment that it is given.

    ``start`` may be called again once the process has ended. All output is appended to ``log_path``.
    """

    def __init__(self, environment: Mapping[str, str], log_path: Path) -> None:
        self._environment = dict(environment)
        self._log_path = log_path
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._url: str | None = None
        self._settled = threading.Event()

    def start(self) -> None:
        """Return as soon as the server has said where it listens; raise with its output if it never does."""
        assert self._process is None or self._process.poll() is not None, "the server is still running"
        self._url = None
        self._settled.clear()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlx_manager", "serve", "--host", "127.0.0.1", "--port", "0"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read_output, args=(self._process,), name="server-output")
        self._reader.start()
        if not self._settled.wait(START_TIMEOUT) or self._url is None:
            self.kill()
            raise AssertionError(f"the server did not come up:\n{self.log_tail()}")

    def kill(self) -> None:
        """End it with SIGKILL: no handler runs and nothing is flushed."""
        assert self._process is not None
        self._process.kill()
        self._wait(STOP_TIMEOUT)

    def stop(self) -> None:
        """End it as a service manager does; harmless when it has ended."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"SIGTERM did not end the server within {STOP_TIMEOUT} s") from None

    def get(self, path: str) -> dict[str, Any]:
        """What ``path`` answers."""
        with self._client() as client:
            response = client.get(path)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def post(self, path: str, body: Mapping[str, object]) -> httpx2.Response:
        """POST ``body`` as JSON."""
        with self._client() as client:
            return client.post(path, json=body)

    def status(self, task_id: str) -> Snapshot:
        """The snapshot of a download."""
        return self.get(f"/api/models/download/{task_id}/status")

    def watch(self, task_id: str) -> Iterator[Snapshot]:
        """Yield the snapshots of the download's event stream until the server closes it."""
        with self._client() as client, client.stream("GET", f"/api/models/download/{task_id}/progress") as response:
            assert response.status_code == 200, response.status_code
            for line in response.iter_lines():
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    def log_tail(self, lines: int = 40) -> str:
        """The last lines of what the server said, for the message of a failed assertion."""
        if not self._log_path.exists():
            return "(no output)"
        return "\n".join(self._log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    @contextmanager
    def _client(self) -> Iterator[httpx2.Client]:
        assert self._url is not None, "the server was never started"
        with httpx2.Client(base_url=self._url, timeout=SILENCE_TIMEOUT, trust_env=False) as client:
            yield client

    def _wait(self, timeout: float) -> None:
        assert self._process is not None
        assert self._reader is not None
        self._process.wait(timeout)
        self._reader.join(timeout)

    def _read_output(self, process: subprocess.Popen[str]) -> None:
        """Keep the pipe empty, keep what came out of it, and find the address in it."""
        assert process.stdout is not None
        with process.stdout, self._log_path.open("a", encoding="utf-8") as log:
            for line in process.stdout:
                log.write(line)
                log.flush()
                # The address of the Hub may be told as well: the server's own is never among the settings it was given.
                for match in _ADDRESS.finditer(line):
                    if self._url is None and match[0] not in self._environment.values():
                        self._url = match[0]
                        self._settled.set()
        self._settled.set()
