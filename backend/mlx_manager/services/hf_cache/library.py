"""What models the cache holds. Each answer is true for the disk as it is now, other tools' work included.

Reading a model costs a look at each of its files. So what was read is kept in memory, and in a file for the next
process, with the trace of each folder, listing, ref, weight file and content outside the model's folder that it came
from: as long as none of them changed, it is still true. A small file that somebody writes over where it lies, with no
folder changed, is not noticed. Never kept: a model that is being fetched, and one that changed a moment ago, when a
second change might leave the same time behind.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_manager.domain.library import Library
from mlx_manager.services.hf_cache.layout import PREFIX
from mlx_manager.services.hf_cache.reading import ABSENT, ReadModel, read_model
from mlx_manager.services.hf_cache.remembering import recall, remember

log = logging.getLogger(__name__)

# `org--name`, or the name alone for models from the Hub's first years.
_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*", re.ASCII)
LONGEST_NAME = 255
SETTLED_AFTER_NS = 2_000_000_000
"""The coarsest clock of a file system that caches lie on (exFAT)."""
FEW = 50
"""Of so many models one is few."""


def folder_name(model_id: str) -> str | None:
    """The name of a model's folder in the cache; None for what cannot be a model's name."""
    parts = model_id.split("/")
    name = PREFIX + "--".join(parts)
    if len(parts) > 2 or len(name) > LONGEST_NAME or not all(_NAME.fullmatch(one) and "--" not in one for one in parts):
        return None
    return name


def model_id_of(name: str) -> str | None:
    """The model of a folder in the cache; None for what is no model's folder."""
    parts = name.removeprefix(PREFIX).split("--")
    if not name.startswith(PREFIX) or len(parts) > 2 or not all(_NAME.fullmatch(part) for part in parts):
        return None
    return "/".join(parts)


@dataclass(slots=True)
class _Known:
    read: ReadModel
    settled: bool


class LibraryReader:
    """Reads the cache at ``cache_dir``. From any thread; one reads at a time. ``memory``: the file for what was read;
    None to keep nothing beyond this process."""

    def __init__(self, cache_dir: Path, memory: Path | None = None) -> None:
        self._cache_dir = cache_dir
        self._memory = memory
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._kept: dict[str, ReadModel] | None = None
        """What the file holds; None until it was read."""

    def read(self) -> Library:
        """Every model, by name. Raises OSError when the cache cannot be read; none is an empty one."""
        with self._lock:
            at = time.time()
            found = self._read_all()
            own = sum(one.own_bytes for one in found)
            shared: dict[tuple[int, int], int] = {}
            for one in found:
                shared.update(one.shared)
            models = sorted((one.model for one in found), key=lambda model: model.model_id.casefold())
            return Library(tuple(models), own + sum(shared.values()), at)

    def shared_by_others(self, model_id: str) -> set[tuple[int, int]]:
        """The shared contents (device and inode) that models other than this one use. Raises OSError."""
        with self._lock:
            return {place for one in self._read_all() if one.model.model_id != model_id for place in one.shared}

    def _read_all(self) -> list[ReadModel]:
        try:
            with os.scandir(self._cache_dir) as entries:
                names = [entry.name for entry in entries if entry.name.startswith(PREFIX)]
        except FileNotFoundError:
            self._known.clear()
            return []
        if self._kept is None:
            self._kept = recall(self._memory, self._cache_dir) if self._memory else {}
            self._known = {name: _Known(read, True) for name, read in self._kept.items()}
        now_known: dict[str, _Known] = {}
        found: list[ReadModel] = []
        for name in names:
            known = self._known.get(name)
            if known is not None and known.settled and (same := _as_before(known.read)):
                now_known[name] = _Known(same, True)
                found.append(same)
                continue
            if known := self._read_one(name):
                now_known[name] = known
                found.append(known.read)
        self._known = now_known
        self._keep()
        return found

    def _keep(self) -> None:
        """Write the file anew once it is worth it: to read a few models again costs the next process less than all of
        them cost to write. That models were used since is no reason."""
        settled = {name: known.read for name, known in self._known.items() if known.settled}
        if self._memory is None or self._kept is None or _changes(self._kept, settled) <= len(settled) // FEW:
            return
        remember(self._memory, self._cache_dir, settled)
        self._kept = settled

    def _read_one(self, name: str) -> _Known | None:
        model_id = model_id_of(name)
        if model_id is None:
            log.debug("not the folder of a model: %r", name)
            return None
        begun = time.time_ns()
        try:
            read = read_model(os.path.join(self._cache_dir, name), model_id)
        except OSError as error:
            log.warning("%s in the cache cannot be read: %s", model_id, error.strerror)
            return None
        if read is None:
            return None
        newest = max((mtime_ns for _, mtime_ns, *_ in read.traces), default=0)
        return _Known(read, not read.is_moving and newest < begun - SETTLED_AFTER_NS)


def _changes(before: Mapping[str, ReadModel], now: Mapping[str, ReadModel]) -> int:
    """How many models came, went or changed."""
    same = sum(name in before and before[name].traces == read.traces for name, read in now.items())
    return max(len(before), len(now)) - same


def _as_before(read: ReadModel) -> ReadModel | None:
    """What was read, if all that it came from is as it was; with the time of the last use as it is now."""
    used = read.model.last_used_at or 0.0
    for path, mtime_ns, ctime_ns, inode, size in read.traces:
        try:
            stat = os.stat(path)
        except OSError:
            if mtime_ns == ABSENT:
                continue
            return None
        if stat.st_mtime_ns != mtime_ns or stat.st_ctime_ns != ctime_ns or stat.st_ino != inode:
            return None
        if size is not None:
            if stat.st_size != size:
                return None
            used = max(used, stat.st_atime)
    if used == (read.model.last_used_at or 0.0):
        return read
    return replace(read, model=replace(read.model, last_used_at=used))
