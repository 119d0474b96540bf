"""A process of its own in which hf_xet fetches ranges of one file; `xet_process` starts it and speaks with it.

Of its own, because a stream that waits for the network can neither be asked nor told anything, what hf_xet keeps and
reports is decided by the environment it was imported in, and a crash in native code would take the server with it. It
is run by its path and imports nothing of ours. Its argument is a folder for hf_xet's own use, which it removes.

Standard input: one line of JSON, the order (see `File`; ``env``: variables to set, ``report``: to send hf_xet's
telemetry at the end); then a line ``START END`` for each range to fetch, half-open. Its end means
that nobody waits any more. Standard output: a line of JSON for each range that was written, ``{"have": [START, END]}``,
or, as the last word, ``{"error": KIND, "detail": TEXT, "errno": NUMBER}``.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import sys
import threading
from typing import Any, NoReturn


def main() -> None:
    """Serve until the input ends, and leave nothing."""
    folder = sys.argv[1]
    # Cut off, or none at all: whoever was to send it was killed.
    if (line := sys.stdin.readline()).endswith("\n"):
        serve(json.loads(line), folder)
    leave(folder, 0)


def serve(order: dict[str, Any], folder: str) -> None:
    """Fetch what the input asks for. hf_xet keeps its log and its folders in ``folder``."""
    os.putenv("HF_XET_CACHE", folder)
    for name, value in order["env"].items():
        os.putenv(name, value)
    # It reads the environment, and begins a log, when it is imported.
    import hf_xet

    file = File(hf_xet, order, folder)
    for number in range(order["streams"]):
        threading.Thread(target=file.work, name=f"stream-{number}", daemon=True).start()
    for line in sys.stdin:
        start, end = line.split()
        file.ranges.put((int(start), int(end)))
    if order["report"]:
        file.report()


def leave(folder: str, status: int) -> NoReturn:
    """Not an orderly end, which would wait for the network. Whoever started us would remove the folder, but may have
    been killed; hf_xet may be making others in it at this moment."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):  # noqa: PTH110 - nothing is imported here that can be done without
            break
    os._exit(status)


class File:
    """``order``: ``url`` and ``headers`` of the question for a token, the file's ``hash``, ``size`` and ``path``, and
    ``config`` for hf_xet, which is ``library``."""

    def __init__(self, library: Any, order: dict[str, Any], folder: str) -> None:
        self._library = library
        self._folder = folder
        self.ranges: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._order = order
        self._fd = os.open(order["path"], os.O_WRONLY | os.O_CLOEXEC)
        self._info = library.XetFileInfo(order["hash"], order["size"])
        self._group: Any = None
        self._lock = threading.Lock()

    def work(self) -> None:
        """One thread's life: a range at a time."""
        while True:
            start, end = self.ranges.get()
            try:
                self._fetch(start, end)
            except self._library.XetAuthenticationError as error:
                self._fail("auth", error)
            except self._library.XetObjectNotFoundError as error:
                self._fail("not_found", error)
            except OSError as error:
                # hf_xet's own errors of the network are some of these too, but without a number.
                self._fail("disk" if error.errno else "source", error, error.errno or 0)
            except BaseException as error:  # noqa: BLE001 - a panic in native code is no Exception; it must be told
                self._fail("source", error)
            try:
                self._say({"have": [start, end]})
            except OSError:
                # Whoever asked for it was killed.
                leave(self._folder, 1)

    def _fetch(self, start: int, end: int) -> None:
        at = start
        for data in self._open().download_stream(self._info, start, end):
            view = memoryview(data)[: end - at]
            while view:
                done = os.pwrite(self._fd, view, at)
                at, view = at + done, view[done:]
        if at < end:
            raise ConnectionError(f"the stream ended {end - at} bytes early")

    def _open(self) -> Any:
        """The session with the store, opened by the first who needs it."""
        with self._lock:
            if self._group is None:
                config = self._library.XetConfig().with_config(self._order["config"])
                session = self._library.XetSession(config)
                self._group = session.new_download_stream_group(
                    token_refresh_url=self._order["url"], token_refresh_headers=self._order["headers"]
                )
            return self._group

    def report(self) -> None:
        """Have it tell the store how it went. Who waits for us does so for a moment only."""
        if self._group is not None:
            self._group.finish()

    def _fail(self, kind: str, error: BaseException, number: int = 0) -> None:
        try:
            self._say({"error": kind, "detail": f"{error}", "errno": number})
        finally:
            # Also when nobody is there to hear it.
            leave(self._folder, 1)

    def _say(self, what: dict[str, Any]) -> None:
        with self._lock:
            sys.stdout.write(json.dumps(what) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
