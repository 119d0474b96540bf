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
    """``late_s``: of each end that somebody saw live, the seconds from the moment that the server wrote into the event
    to the moment it was read here; both are this machine's clock. ``told_later``: ends that were history when somebody
    came. ``missed``: ends that somebody did not see."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._slow: list[socket.socket] = []
        self.connected = 0
        self._all_here = asyncio.Event()
        self._expected = 0
        self.late_s: list[float] = []
        self.told_later = 0
        self.missed: list[str] = []

    async def of_one(self, task_id: str) -> None:
        """Follow one download to its end. The server ends the stream."""
        await self._follow(f"/api/models/download/{task_id}/progress", {task_id})

    async def of_all(self, task_ids: Sequence[str]) -> None:
        """Follow everything until each of these has ended. That stream has no end; we leave."""
        await self._follow("/api/events", set(task_ids))

    async def all_here(self, count: int) -> None:
        """Wait until so many watch."""
        self._expected = count
        if self.connected < count:
            await self._all_here.wait()

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
            if self.connected == self._expected:
                self._all_here.set()
            here_since = time.time()
        try:
            while waited_for and (line := await reader.readline()):
                if line.startswith(b"data:") and any(end in line for end in ENDS):
                    now = time.time()
                    event = json.loads(line.removeprefix(b"data:"))
                    if event["task_id"] in waited_for:
                        waited_for.discard(event["task_id"])
                        ended_at = datetime.fromisoformat(event["finished_at"]).timestamp()
                        if ended_at < here_since:
                            self.told_later += 1
                        else:
                            self.late_s.append(now - ended_at)
        finally:
            self.missed.extend(waited_for)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
