"""The process that hf_xet runs in, seen from outside; `xet_child` is what runs there.

hf_xet keeps a log and folders of its own. Each process has a folder for them in the ``scratch`` of whoever holds the
data directory. It goes with the process; but when all are killed, hf_xet may be making folders in it to the last, so
`sweep` makes sure of it at the holder's start and at its end.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("xet_child.py")
LAST_WORDS = 300
REPORT_S = 2.0

log = logging.getLogger(__name__)

_QUERY = re.compile(r"\?[^\s\"')]*")
_TOKEN = re.compile(r"(?i)\b(bearer\s+|hf_|xet_)\S+")


@dataclass(frozen=True, slots=True)
class XetEnd:
    """Why the process ended of itself. ``kind``: auth, not_found, disk (with ``errno``), source, died."""

    kind: str
    detail: str
    errno: int = 0


@dataclass(frozen=True, slots=True)
class XetOrder:
    """What is to be fetched: the content with ``hash`` into the file at ``path``, which is ``size`` bytes long already.
    ``headers`` go with the question for a token, which is asked at ``url``. ``scratch``: the folder that all processes
    of one holder have theirs in."""

    url: str
    headers: Mapping[str, str]
    hash: str
    size: int
    path: Path
    streams: int
    config: Mapping[str, Any]
    scratch: Path
    telemetry: bool = False


class XetProcess:
    """``on_have(start, end)`` and, once and last, ``on_end(why)`` are called on a thread of its own; after ``kill`` no
    end is told. Raises OSError when it cannot be started."""

    def __init__(self, order: XetOrder, on_have: Callable[[int, int], None], on_end: Callable[[XetEnd], None]) -> None:
        self._on_have = on_have
        self._on_end = on_end
        self._killed = False
        self._saying = threading.Lock()
        self._telemetry = order.telemetry
        order.scratch.mkdir(parents=True, exist_ok=True)
        self._folder = tempfile.TemporaryDirectory(dir=order.scratch)
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own file
                [sys.executable, "-P", str(CHILD), self._folder.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                # Ctrl-C is for us; we end it.
                start_new_session=True,
            )
        except OSError:
            self._folder.cleanup()
            raise
        self._reader = threading.Thread(target=self._read, name="xet", daemon=True)
        self._reader.start()
        # Over the pipe, so that no list of processes shows the token.
        env = {"HF_HUB_DISABLE_TELEMETRY": "0" if order.telemetry else "1"}
        said = {
            "url": order.url,
            "headers": dict(order.headers),
            "hash": order.hash,
            "size": order.size,
            "path": str(order.path),
            "streams": order.streams,
            "config": {**order.config, "telemetry.enabled": order.telemetry},
            "env": env,
            "report": order.telemetry,
        }
        self._say(json.dumps(said))

    def fetch(self, start: int, end: int) -> None:
        """Ask for the bytes from ``start`` up to ``end``."""
        self._say(f"{start} {end}")

    def finish(self) -> None:
        """Nothing more is wanted: end it, after its report where one is wished."""
        if self._telemetry and not self._killed:
            self._killed = True
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            self._reader.join(REPORT_S)
        self.kill()

    def kill(self) -> None:
        """End it at once. Bytes that were told are in the file. Twice is fine."""
        self._killed = True
        self._process.kill()
        self._reader.join()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        # When it has ended, the reader finds out and tells why; it may have closed this already.
        with self._saying, suppress(BrokenPipeError):
            if self._process.stdin.closed:
                return
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        end: XetEnd | None = None
        words = ""
        assert self._process.stdout is not None and self._process.stdin is not None
        for line in self._process.stdout:
            said = _parse(line)
            if "have" in said:
                self._on_have(*said["have"])
            elif "error" in said:
                end = XetEnd(said["error"], clean(said["detail"]), said["errno"])
            else:
                words = (words + line)[-LAST_WORDS:]
        status = self._process.wait()
        with self._saying, suppress(BrokenPipeError):  # an order that it did not live to read
            self._process.stdin.close()
        self._process.stdout.close()
        self._folder.cleanup()
        if not self._killed:
            self._on_end(end or XetEnd("died", f"its process ended with status {status}. {clean(words)}".rstrip()))


def sweep(scratch: Path) -> None:
    """Remove all of it. For the one who holds the data directory, while none of its processes run."""
    shutil.rmtree(scratch, ignore_errors=True)
    if scratch.exists():
        # A child of one that was killed is tidying up there at this moment, perhaps; the next sweep finds what is left.
        log.debug("%s could not be removed", scratch)


def _parse(line: str) -> dict[str, Any]:
    """What a line says; nothing for one that native code wrote on its own account."""
    try:
        said = json.loads(line)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def clean(text: str) -> str:
    """hf_xet's errors name addresses; what signs them, and any token, is no one's business."""
    one_line = " ".join(_TOKEN.sub(r"\1…", _QUERY.sub("?…", text)).split())
    return one_line[:LAST_WORDS]
