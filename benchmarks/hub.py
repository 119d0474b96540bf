"""The hub in a process of its own, and the orders that it takes over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from benchmarks.workloads import Order

ROOT = Path(__file__).resolve().parent.parent
BACK_WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM. The certificate signs itself, so it is also what a client has to trust."""

    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Served:
    """What the hub did since it was last told to forget. `sent`: bytes of bodies handed to the kernel, of which a
    client that went away may have read fewer."""

    sent: int
    requests: int
    connections: int


class HubProcess:
    """`python -m fakes.hub_server` with these arguments. `trust`: what its certificate is checked against, where it
    speaks TLS. `commits`: of each model, its commit."""

    def __init__(self, *arguments: str, trust: ssl.SSLContext | None = None) -> None:
        self._command = [sys.executable, "-m", "fakes.hub_server", "--until-eof", *arguments]
        self._trust = trust
        self.url = ""
        self.commits: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env={**os.environ, "PYTHONPATH": str(ROOT / "backend" / "tests")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        hello = self._process.stdout.readline()
        if not hello:
            raise RuntimeError(f"the hub did not start; it ended with {self._process.wait()}")
        words = json.loads(hello)
        self.url, self.commits = words["endpoint"], words["models"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def calm(self) -> None:
        """No faults, no outage, an empty log. A network that is gone is waited for."""
        self._ask("DELETE", "outage")
        self._ask("DELETE", "faults")
        self._ask("DELETE", "log")

    def order(self, faults: Iterable[Order]) -> list[int]:
        """Switch faults on; their ids, for `struck`."""
        return [self._ask("POST", "faults", order)["id"] for order in faults]

    def cut_network(self, seconds: float, after: int) -> None:
        """Cut the network for so long once so many bytes of files have gone out."""
        self._ask("POST", "outage", {"seconds": seconds, "after": after})

    def struck(self, ids: Iterable[int]) -> int:
        """How many requests these faults have struck."""
        wanted = set(ids)
        return sum(fault["hits"] for fault in self._ask("GET", "faults") if fault["id"] in wanted)

    def cuts(self) -> int:
        """How often the network has gone since `calm`."""
        return int(self._ask("GET", "outage")["cuts"])

    def records(self) -> Sequence[Mapping[str, Any]]:
        """The requests since `calm`, as the hub logs them, once no answer is under way."""
        give_up_at = time.monotonic() + BACK_WITHIN_S
        while True:
            records: list[dict[str, Any]] = self._ask("GET", "log")
            if all(record["ended_at"] is not None for record in records) or time.monotonic() > give_up_at:
                return records
            time.sleep(0.02)

    def served(self) -> Served:
        """What went out, once no answer is under way."""
        records = self.records()
        return Served(
            sent=sum(record["sent"] for record in records),
            requests=len(records),
            connections=len({record["connection"] for record in records}),
        )

    def header(self, path: str, name: str) -> str | None:
        """A header of the answer to HEAD."""
        connection = self._connect()
        try:
            connection.request("HEAD", path)
            return connection.getresponse().getheader(name)
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        if self._trust is not None:
            return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=10, context=self._trust)
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)

    def _ask(self, method: str, what: str, body: Order | None = None) -> Any:
        give_up_at = time.monotonic() + BACK_WITHIN_S
        while True:
            connection = self._connect()
            try:
                connection.request(method, f"/_control/{what}", json.dumps(body or {}))
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (ConnectionError, http.client.HTTPException):
                # Its network may be gone by our own order.
                if time.monotonic() > give_up_at or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                if answer.status != 200:
                    raise RuntimeError(f"the hub refused {method} {what}: {said}")
                return said
            finally:
                connection.close()


class Hub(HubProcess):
    """A hub over a folder of models."""

    def __init__(self, models: Path, certificate: Certificate | None = None) -> None:
        # Kept beside the models: what goes out by Xet lies on the disk as what goes out by ranges does.
        xorbs = models.parent / "xorbs"
        xorbs.mkdir(exist_ok=True)
        arguments = ["--dir", str(models), "--xet", "--blob-dir", str(xorbs)]
        trust: ssl.SSLContext | None = None
        if certificate is not None:
            arguments += ["--tls", str(certificate.cert), str(certificate.key)]
            trust = ssl.create_default_context(cafile=str(certificate.cert))
        super().__init__(*arguments, trust=trust)
        self.certificate = certificate


def make_certificate(folder: Path) -> Certificate | None:
    """A certificate for 127.0.0.1, good for a few days; None where openssl is not installed."""
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(made.key), "-out", str(made.cert)]
    try:
        subprocess.run([*command.split(), *names], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return made
