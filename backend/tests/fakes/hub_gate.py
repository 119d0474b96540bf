"""A gate that threads can wait at together with a socket."""

from __future__ import annotations

import os
import threading


class Gate:
    """Closed until `open()`; its file descriptor polls as ready from then on.

    A pipe, not an Event: a thread that holds a connection must wait for the gate and for the peer's leaving at once.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._lock = threading.Lock()
        self._open = False
        self._closed = False

    def fileno(self) -> int:
        """Return what to poll."""
        return self._read

    @property
    def is_open(self) -> bool:
        """Whether it was opened."""
        return self._open

    def open(self) -> None:
        """Let everybody through, for good."""
        with self._lock:
            if not self._open:
                self._open = True
                os.close(self._write)

    def close(self) -> None:
        """Open it and give the descriptors back. Nobody may wait at it any more."""
        self.open()
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._read)
