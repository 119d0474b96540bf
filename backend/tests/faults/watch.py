"""A person who watches: every event of one download, with the moment at which it came."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from itertools import pairwise

from api_client import Api, Event


class Watch:
    """Reads the event stream in a thread of its own, and comes back to it when it breaks. Moments are of the monotonic
    clock."""

    def __init__(self, api: Callable[[], Api], task_id: str, last_id: int | None = None) -> None:
        self._api = api
        self._task_id = task_id
        self._last_id = last_id
        self._closed = threading.Event()
        self._news = threading.Condition()
        self.events: list[Event] = []
        self._thread = threading.Thread(target=self._read, name="watch", daemon=True)
        self._thread.start()

    def first(
        self, wanted: Callable[[Event], bool], timeout: float, since: float = 0.0, *, held: bool = False
    ) -> Event | None:
        """The first event from ``since`` on that is wanted, as soon as it comes; None when it does not. ``held``: what
        was told before ``since`` and still held then counts too."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                before = [event for event in self.events if event.at < since][-1:] if held else []
                for event in before + [event for event in self.events if event.at >= since]:
                    if wanted(event):
                        return event
                left = deadline - time.monotonic()
                if left <= 0 or not self._news.wait(left):
                    return None

    @property
    def longest_silence_s(self) -> float:
        """The longest time without an event between the first and the last."""
        with self._news:
            moments = [event.at for event in self.events]
        return max((b - a for a, b in pairwise(moments)), default=0.0)

    def close(self) -> None:
        """The server must have ended, so that nothing is read any more."""
        self._closed.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                with self._api().progress(self._task_id, self._last_id) as stream:
                    if stream.status != 200:
                        return
                    for event in stream:
                        self._last_id = event.id
                        with self._news:
                            self.events.append(event)
                            self._news.notify_all()
            except (OSError, http.client.HTTPException, AttributeError):
                # AttributeError: how http.client meets a connection that is closed while it reads.
                pass
            self._closed.wait(0.05)
