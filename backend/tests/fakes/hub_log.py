"""What the hub was asked and what it sent, and ways to wait for it that are no sleeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from fakes.hub_message import Exchange


@dataclass
class Record:
    """One request. `sent` and what follows it grow while the answer is under way."""

    at: float
    port: str
    route: str
    method: str
    path: str
    target: str
    repo: str
    file: str
    range: str | None
    headers: dict[str, str]
    connection: int
    client_port: int
    status: int = 0
    """0 until the answer begins, and for ever when it never does."""
    sent: int = 0
    """Bytes of the body handed to the kernel; the peer may have read fewer."""
    answered_at: float | None = None
    """Before its first byte goes out: until then nobody can have had any of it. None when it never begins."""
    first_byte_at: float | None = None
    ended_at: float | None = None
    outcome: str = ""
    """`sent`, or why not all was: `gone` (the peer left), `reset`, `closed` (by a fault), `stopped` (by the hub)."""
    faults: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    size: int = 0
    """The size of the file that was asked for; 0 when there is none."""

    @property
    def authorization(self) -> str | None:
        """The Authorization header."""
        return self.headers.get("authorization")

    @property
    def in_flight(self) -> bool:
        """Whether the answer is still under way."""
        return self.ended_at is None


class RequestLog:
    """Records in the order of arrival. All of it may be used from any thread; times are `time.monotonic()`."""

    def __init__(self) -> None:
        # Re-entrant, so that a predicate may use the log that it is called under.
        self.changed = threading.Condition(threading.RLock())
        self._records: list[Record] = []
        self._in_flight = 0
        self.connections_open = 0
        self.connections_made = 0

    def begin(self, exchange: Exchange) -> Record:
        """Note that a request was read; it is in flight until `end`."""
        request = exchange.request
        record = Record(
            at=time.monotonic(),
            port=request.port,
            route=exchange.route,
            method=request.method,
            path="/" + "/".join(request.segments),
            target=request.target,
            repo=exchange.repo,
            file=exchange.file,
            range=request.range,
            headers=dict(request.headers),
            connection=request.connection,
            client_port=request.client_port,
            labels=exchange.labels,
            size=exchange.reply.body.content.size if exchange.file and exchange.reply.body else 0,
        )
        with self.changed:
            self._records.append(record)
            self._in_flight += 1
            self.changed.notify_all()
        return record

    def add_sent(self, record: Record, nbytes: int) -> None:
        """Count bytes of a body."""
        with self.changed:
            record.sent += nbytes
            if record.first_byte_at is None:
                record.first_byte_at = time.monotonic()
            self.changed.notify_all()

    def end(self, record: Record, outcome: str) -> None:
        """Note that nothing more comes of a request."""
        with self.changed:
            record.outcome = outcome
            record.ended_at = time.monotonic()
            self._in_flight -= 1
            self.changed.notify_all()

    @contextmanager
    def connection(self) -> Iterator[None]:
        """Count a connection as open for as long as this lasts."""
        with self.changed:
            self.connections_made += 1
            self.connections_open += 1
            self.changed.notify_all()
        try:
            yield
        finally:
            with self.changed:
                self.connections_open -= 1
                self.changed.notify_all()

    @property
    def in_flight(self) -> int:
        """How many answers are under way."""
        return self._in_flight

    def find(
        self,
        where: str | None = None,
        path: str | None = None,
        *,
        method: str | None = None,
        status: int | None = None,
        repo: str | None = None,
    ) -> list[Record]:
        """Return the records that match all that is given; `path` is a pattern for the file or the URL's path."""
        with self.changed:
            return [
                record
                for record in self._records
                if (where is None or where in record.labels)
                and (path is None or fnmatchcase(record.file or record.path, path))
                and (method is None or record.method == method)
                and (status is None or record.status == status)
                and (repo is None or record.repo == repo)
            ]

    def clear(self) -> None:
        """Forget the records of finished requests."""
        with self.changed:
            self._records = [record for record in self._records if record.in_flight]

    def wait(self, true: Callable[[], object], timeout: float, what: str) -> None:
        """Wait until `true()`, which is asked again at each change. Raises TimeoutError with the last requests."""
        with self.changed:
            if not self.changed.wait_for(lambda: bool(true()), timeout):
                tail = "\n".join(f"  {summary(record)}" for record in self._records[-15:])
                raise TimeoutError(f"not within {timeout} s: {what}; the last requests were\n{tail}")


def summary(record: Record) -> str:
    """Return a record as one line."""
    name = f"{record.method} {record.target}"
    span = f" {record.range}" if record.range else ""
    state = record.outcome or "in flight"
    faults = f" [{', '.join(record.faults)}]" if record.faults else ""
    return f"#{record.connection} {record.port} {name}{span}: {record.status}, {record.sent} bytes, {state}{faults}"
