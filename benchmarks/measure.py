"""What a process and its descendants cost: wall time, CPU seconds, memory."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

FIRST_SAMPLE_S, SAMPLE_S = 0.002, 0.05
LANDING_POLL_S = 0.001


class Ending(StrEnum):
    """How a run ended, by its own account."""

    DONE = "done"
    FAILED = "failed"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class Cost:
    """One run. `peak_rss`: bytes, of all processes together. `said`: the last words, for people, not for the report."""

    ending: Ending
    wall_s: float
    cpu_s: float
    peak_rss: int
    said: str = ""


class MemoryWatch:
    """Samples the resident memory of a process and its descendants while its `with` block lasts.

    The peak is the largest sum of one sample, or the high-water mark of one process where the kernel keeps it: what
    happens between two samples is missed only in what several processes have together. The resource usage that `wait`
    returns is of no use here: on Linux its peak begins with the memory of the process that forked.

    ``young``: it has just been started and may be done in 20 ms, so it is looked at often at first. On two processors
    that takes time from whoever uses both, which would show in the wall time of a server.
    """

    def __init__(self, pid: int, *, young: bool = True) -> None:
        self._first_s = FIRST_SAMPLE_S if young else SAMPLE_S
        self.peak_rss = 0
        self._root = psutil.Process(pid)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while True:
            sizes = [_rss_and_peak(process) for process in (self._root, *descendants(self._root))]
            together = sum(rss for rss, _ in sizes)
            self.peak_rss = max(self.peak_rss, together, *(peak for _, peak in sizes))
            # Whoever takes longer must not notice being watched.
            pause_s = min(SAMPLE_S, max(self._first_s, (time.monotonic() - began) / 10))
            if self._ended.wait(pause_s):
                return


def descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        if (children := _children(process.pid)) is None:
            return process.children(recursive=True)
        found = [psutil.Process(pid) for pid in children]
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return []
    return [*found, *(below for child in found for below in descendants(child))]


def _children(pid: int) -> list[int] | None:
    """From the kernel's own list, where it keeps one: psutil reads all of /proc, which would show in the figures."""
    tasks = Path(f"/proc/{pid}/task")
    if not (tasks / str(pid) / "children").exists():
        return None
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a living process, its living descendants, and those that it has waited for."""
    total = 0.0
    for one in (process, *descendants(process)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def run_command(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    folder: Path,
    bound_s: float,
    landed: Callable[[], bool] | None = None,
) -> Cost:
    """Run a command in `folder` until it ends; past `bound_s` it is killed, and has hung.

    With `landed` it is ended as soon as that is true, and `wall_s` is the time until then. It gets a session of its
    own, and nothing of that outlives this call.
    """
    log = folder / "output.log"
    hung = threading.Event()

    def give_up() -> None:
        hung.set()
        _kill_group(process.pid)

    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command,
            env=dict(env),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timer = threading.Timer(bound_s, give_up)
        timer.start()
        landed_s: float | None = None
        try:
            with MemoryWatch(process.pid) as memory:
                if landed is not None and _wait_for(landed, process.pid):
                    landed_s = time.perf_counter() - began
                    _kill_group(process.pid)
                _, status, usage = os.wait4(process.pid, 0)
                wall_s = time.perf_counter() - began
                process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            timer.cancel()
            timer.join()
            _kill_group(process.pid)
            if process.returncode is None:
                process.wait()
    if landed_s is not None:
        ending = Ending.DONE
    elif hung.is_set():
        ending = Ending.HUNG
    else:
        ending = Ending.DONE if process.returncode == 0 and landed is None else Ending.FAILED
    cpu_s = usage.ru_utime + usage.ru_stime
    return Cost(ending, wall_s if landed_s is None else landed_s, cpu_s, memory.peak_rss, last_words(log))


def last_words(log: Path) -> str:
    """The last line that tells of an error, or else the last, without what is secret in a URL."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"error\b", line, re.IGNORECASE)]
    told = [*lines, *errors]
    return re.sub(r"\?\S*", "?…", told[-1])[:300] if told else ""


def _wait_for(landed: Callable[[], bool], pid: int) -> bool:
    """Whether it became true before the process ended, which stays there to be waited for."""
    while not landed():
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return landed()
        time.sleep(LANDING_POLL_S)
    return True


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # Nobody is left; macOS says that we may not when only zombies are.
        return


def _rss_and_peak(process: psutil.Process) -> tuple[int, int]:
    if platform.system() == "Linux":
        try:
            status = Path(f"/proc/{process.pid}/status").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return 0, 0
        found = dict(re.findall(rb"^(VmRSS|VmHWM):\s*(\d+) kB$", status, re.MULTILINE))
        return int(found.get(b"VmRSS", 0)) * 1024, int(found.get(b"VmHWM", 0)) * 1024
    try:
        rss: int = process.memory_info().rss
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0, 0
    return rss, rss
