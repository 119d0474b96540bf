"""The thread that waits for the disk, so that the one with the sockets does not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from mlx_manager.task_context import in_context

Job = Callable[[], object]


class DiskThread:
    """Runs jobs in order; each outcome, any error too, goes to ``on_done(key, error)`` on this thread."""

    def __init__(self, name: str, on_done: Callable[[Any, Exception | None], None]) -> None:
        self._on_done = on_done
        self._queue: queue.SimpleQueue[tuple[Any, Job] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=in_context(self._run), name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, key: Any, job: Job) -> None:
        self._queue.put((key, job))

    def stop(self) -> None:
        """After the jobs already handed in; joins."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            key, job = item
            try:
                job()
            except Exception as error:  # noqa: BLE001 - a thread that died of it would leave its file waiting for ever
                self._on_done(key, error)
            else:
                self._on_done(key, None)
