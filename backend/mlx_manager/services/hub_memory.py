"""What the Hub said, kept on the disk with its age: for the next question of the same, and for when it does not answer.

One small file for each answer, in the data folder. It is a convenience and never the truth: what cannot be read or
written is as if it had never been said.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlx_manager.services import drafts
from mlx_manager.services.ports import Kept

log = logging.getLogger(__name__)

MOST_FILES = 400
MOST_BYTES = 48 << 20
FORM = 1
"""Of the documents: files of another form are not read."""
_NAME = re.compile(r"[a-z]+-[0-9a-f]{40}\.json")


class HubMemory:
    """Implements `ports.Memory`; ``folder`` is made when it is needed."""

    def __init__(
        self,
        folder: Path,
        *,
        most_files: int = MOST_FILES,
        most_bytes: int = MOST_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._clock = clock
        self._lock = threading.Lock()

    def get(self, kind: str, key: str) -> Kept | None:
        """What was said last to the question ``key`` of this ``kind`` (a lower-case word)."""
        kept, asked = _read(self._file(kind, key))
        return kept if asked == key else None

    def put(self, kind: str, key: str, document: Any) -> Kept:
        """Keep it; the oldest go when there are too many."""
        kept = Kept(self._clock(), document)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            text = json.dumps({"form": FORM, "key": key, "at": kept.at, "document": document})
            drafts.replace_whole(self._file(kind, key), text.encode())
            self._make_room()
        except OSError as error:
            log.warning("The Hub's answer cannot be kept in %s: %s", self._folder, error.strerror)
        return kept

    def all(self, kind: str) -> Iterator[Kept]:
        """Everything of a kind, newest first."""
        for _, file, _ in sorted(self._files(), reverse=True):
            if file.name.startswith(f"{kind}-"):
                kept, _ = _read(file)
                if kept is not None:
                    yield kept

    def clear(self) -> None:
        """Forget everything: what one account was told is not for the next."""
        for _, file, _ in self._files():
            _remove(file)

    def _file(self, kind: str, key: str) -> Path:
        return self._folder / f"{kind}-{hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()}.json"

    def _files(self) -> list[tuple[float, Path, int]]:
        """Time, path and size of all that is kept."""
        found = []
        try:
            with os.scandir(self._folder) as entries:
                for entry in entries:
                    if _NAME.fullmatch(entry.name):
                        stat = entry.stat(follow_symlinks=False)
                        found.append((stat.st_mtime, Path(entry.path), stat.st_size))
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("What the Hub has said cannot be read in %s: %s", self._folder, error.strerror)
        return found

    def _make_room(self) -> None:
        with self._lock:
            files = sorted(self._files())
            size = sum(one[2] for one in files)
            while files and (len(files) > self._most_files or size > self._most_bytes):
                _, oldest, bytes_ = files.pop(0)
                size -= bytes_
                _remove(oldest)


def _read(file: Path) -> tuple[Kept | None, str | None]:
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        if said["form"] == FORM:
            return Kept(float(said["at"]), said["document"]), str(said["key"])
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        log.debug("%s is no answer of the Hub: %s", file, error)
    return None, None


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s is left: %s", file, error.strerror)
