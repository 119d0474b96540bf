"""A network that goes away in the middle of a transfer and comes back by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable

from fakes.hub_log import RequestLog


class Outages:
    """Cuts the network when it is time to. All of it may be called from any thread."""

    def __init__(self, log: RequestLog, down: Callable[[], None], up: Callable[[], None]) -> None:
        self._log = log
        self._down = down
        self._up = up
        self.cuts = 0
        """How often the network has gone since orders were last called off."""
        self._threads: list[threading.Thread] = []
        # One for each round of orders, so that what is called off stays so.
        self._called_off = threading.Event()

    def order(self, seconds: float, after: int = 0) -> None:
        """Once `after` more bytes of files have gone out, cut the network for so long. Returns at once."""
        called_off = self._called_off
        until = self._sent() + after

        def run() -> None:
            with self._log.changed:
                self._log.changed.wait_for(lambda: called_off.is_set() or self._sent() >= until)
            if called_off.is_set():
                return
            self.cuts += 1
            self._down()
            self._tell()
            called_off.wait(seconds)
            self._up()
            self._tell()

        thread = threading.Thread(target=run, name="outage", daemon=True)
        self._threads.append(thread)
        thread.start()

    def call_off(self) -> None:
        """Have no more of what was ordered; a network that is down comes back in a moment."""
        with self._log.changed:
            self._called_off.set()
            self._called_off = threading.Event()
            self.cuts = 0
            self._log.changed.notify_all()

    def close(self) -> None:
        """Call off what was ordered and return when the network is up and no thread is left."""
        self.call_off()
        while self._threads:
            self._threads.pop().join()

    def _tell(self) -> None:
        with self._log.changed:
            self._log.changed.notify_all()

    def _sent(self) -> int:
        return sum(record.sent for record in self._log.find("content"))
