"""Many watchers of one server in one process: what each of them heard, and how late."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from urllib.parse import urlsplit

ENDS = (b'"status":"completed"', b'"status":"failed"', b'"status":"cancelled"')
AT_ONCE = 100
"""Who connect at the same moment: no more than a listening socket keeps waiting."""
LINE = 1 << 20


class Watchers:
    """``late_s``: of each end that somebody saw, the seconds from the moment the server wrote into the event, or from
    the beginning of the stream if that was later, to the moment it was read here; both are this machine's clock.
    ``missed``: ends that somebody did not see."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._slow: list[socket.socket] = []
        self.connected = 0
        self.late_s: list[float] = []
        self.missed: list[str] = []

    async def of_one(self, task_id: str) -> None:
        """Follow one download to its end. The server ends the stream."""
        await self._follow(f"/api/models/download/{task_id}/progress", {task_id})

    async def of_all(self, task_ids: Sequence[str]) -> None:
        """Follow everything until each of these has ended. That stream has no end; we leave."""
        await self._follow("/api/events", set(task_ids))

    def add_slow(self, path: str) -> None:
        """One who asks and then reads nothing."""
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((self._host, self._port))
        slow.sendall(self._head(path))
        self._slow.append(slow)

    def close_slow(self) -> None:
        for slow in self._slow:
            slow.close()
        self._slow.clear()

    def _head(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n\r\n".encode()

    async def _follow(self, path: str, waited_for: set[str]) -> None:
        async with self._gate:
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=LINE)
            writer.write(self._head(path))
            await reader.readline()
            self.connected += 1
            # What ended before is told as history, and is not late.
            here_since = time.time()
        try:
            while waited_for and (line := await reader.readline()):
                if line.startswith(b"data:") and any(end in line for end in ENDS):
                    now = time.time()
                    event = json.loads(line.removeprefix(b"data:"))
                    if event["task_id"] in waited_for:
                        waited_for.discard(event["task_id"])
                        ended_at = datetime.fromisoformat(event["finished_at"]).timestamp()
                        self.late_s.append(now - max(ended_at, here_since))
        finally:
            self.missed.extend(waited_for)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
