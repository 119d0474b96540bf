"""A hub in another process, ordered about over its own port: `/_control/…`, JSON both ways.

    POST   /_control/faults   {"fault": "stall", "args": {"after": 1048576}, "where": "cdn", "times": 1} → {"id": 0}
    GET    /_control/faults   → [{"id", "fault", "hits"}]
    POST   /_control/release  {"id": 0}: let go what it holds
    DELETE /_control/faults   switch all off, or with {"id": 0} that one
    POST   /_control/outage   {"seconds": 5, "after": 1048576}: no network for so long, once so many bytes have gone out
    GET    /_control/outage   → {"cuts": 1}: how often it went
    DELETE /_control/outage   call it off; a network that is down comes back
    POST   /_control/expire   make the signed URLs that were given out expire
    GET    /_control/log      → the requests
    DELETE /_control/log      forget them

Nothing here is logged as a request or struck by a fault.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fakes.hub_faults import Fault
from fakes.hub_log import RequestLog
from fakes.hub_message import Reply, Request
from fakes.hub_outage import Outages
from fakes.hub_rules import FaultHandle

PREFIX = "/_control/"


class Control:
    """Turns control requests into calls of the hub's."""

    def __init__(
        self, order: Callable[..., FaultHandle], expire: Callable[[], None], log: RequestLog, outages: Outages
    ) -> None:
        self._order = order
        self._expire = expire
        self._log = log
        self._outages = outages
        self._handles: list[FaultHandle] = []

    def answer(self, request: Request) -> Reply:
        """Do what the request says."""
        try:
            what = json.loads(request.body or b"{}")
            return Reply(200, document=self._do(request.method, request.raw_path.removeprefix(PREFIX), what))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            return Reply(400, document={"error": f"{type(error).__name__}: {error}"})

    def _do(self, method: str, path: str, what: dict[str, Any]) -> Any:
        chosen = self._handles if "id" not in what else [self._handles[what["id"]]]
        match (method, path):
            case ("POST", "faults"):
                fault = getattr(Fault, what.pop("fault"))(**what.pop("args", {}))
                self._handles.append(self._order(fault, **what))
                return {"id": len(self._handles) - 1}
            case ("GET", "faults"):
                return [{"id": n, "fault": one.fault.name, "hits": one.hits} for n, one in enumerate(self._handles)]
            case ("DELETE", "faults"):
                for handle in chosen:
                    handle.clear()
            case ("POST", "release"):
                for handle in chosen:
                    handle.release()
            case ("POST", "outage"):
                self._outages.order(**what)
            case ("GET", "outage"):
                return {"cuts": self._outages.cuts}
            case ("DELETE", "outage"):
                self._outages.call_off()
            case ("POST", "expire"):
                self._expire()
            case ("GET", "log"):
                return [{**asdict(record), "labels": sorted(record.labels)} for record in self._log.find()]
            case ("DELETE", "log"):
                self._log.clear()
            case _:
                raise ValueError(f"no such order: {method} {path}")
        return {}
