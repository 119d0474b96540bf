"""Which requests a fault strikes, and the handle with which a test watches and ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fakes.hub_faults import Fault
from fakes.hub_gate import Gate
from fakes.hub_log import Record, RequestLog
from fakes.hub_message import Exchange, Request


@dataclass(frozen=True)
class Rule:
    """All that is given must hold. `nth` counts the requests for which the rest holds, from 1."""

    where: str | None = None
    path: str | None = None
    repo: str | None = None
    method: str | None = None
    connection: int | None = None
    times: int | None = None
    nth: Collection[int] | None = None
    when: Callable[[Request], bool] | None = None

    def holds(self, exchange: Exchange) -> bool:
        """Tell whether the rule is about this exchange."""
        request = exchange.request
        return (
            (self.where is None or self.where in exchange.labels)
            and (self.path is None or fnmatchcase(exchange.name, self.path))
            and (self.repo is None or self.repo == exchange.repo)
            and (self.method is None or self.method == request.method)
            and (self.connection is None or self.connection == request.connection)
            and (self.when is None or self.when(request))
        )


class FaultHandle:
    """A fault that was switched on. `records` are the requests that it struck, `hits` how many they are."""

    def __init__(self, fault: Fault, rule: Rule, log: RequestLog) -> None:
        self.fault = fault
        self.rule = rule
        self.records: list[Record] = []
        self._log = log
        self._seen = 0
        self._struck = 0
        self._active = True
        self._gates: list[Gate] = []
        self._lock = threading.Lock()

    @property
    def hits(self) -> int:
        """How many requests it struck."""
        return len(self.records)

    def release(self) -> None:
        """Let go what it holds now; what comes later is held again."""
        with self._lock:
            if self._gates:
                self._gates[-1].open()

    def clear(self) -> None:
        """Strike no more, and let go what it holds."""
        with self._lock:
            self._active = False
        self.release()

    def wait_hit(self, hits: int = 1, timeout: float = 10) -> Record:
        """Wait until it has struck so many requests; returns the last of them."""
        self._log.wait(lambda: self.hits >= hits, timeout, f"{hits} hits of {self.fault.name} ({self.hits} so far)")
        return self.records[hits - 1]

    def close(self) -> None:
        """Give its gates back; no connection may be left."""
        self.clear()
        for gate in self._gates:
            gate.close()

    def strike(self, exchange: Exchange) -> bool:
        """Change the exchange if the rule and the fault say so, and tell whether that happened."""
        with self._lock:
            if not self._active or not self.rule.holds(exchange) or not self.fault.applies(exchange):
                return False
            self._seen += 1
            if self.rule.nth is not None and self._seen not in self.rule.nth:
                return False
            if self.rule.times is not None and self._struck >= self.rule.times:
                return False
            self._struck += 1
            if not self._gates or self._gates[-1].is_open:
                self._gates.append(Gate())
            self.fault.strike(exchange, self._gates[-1])
            return True


class FaultBook:
    """The faults that are on, in the order in which they were switched on."""

    def __init__(self, log: RequestLog) -> None:
        self._log = log
        self._handles: list[FaultHandle] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault, rule: Rule) -> FaultHandle:
        """Switch a fault on."""
        handle = FaultHandle(fault, rule, self._log)
        with self._lock:
            self._handles.append(handle)
        return handle

    def strike(self, exchange: Exchange) -> list[FaultHandle]:
        """Let every fault have its turn at the exchange; returns those that took it."""
        with self._lock:
            handles = list(self._handles)
        return [handle for handle in handles if handle.strike(exchange)]

    def noted(self, struck: list[FaultHandle], record: Record) -> None:
        """Put a request down to the faults that struck it."""
        if struck:
            with self._log.changed:
                for handle in struck:
                    handle.records.append(record)
                    record.faults.append(handle.fault.name)
                self._log.changed.notify_all()

    def clear(self) -> None:
        """Switch all faults off."""
        with self._lock:
            handles = list(self._handles)
        for handle in handles:
            handle.clear()

    def close(self) -> None:
        """Switch all faults off and give everything back; no connection may be left."""
        with self._lock:
            handles, self._handles = self._handles, []
        for handle in handles:
            handle.close()
