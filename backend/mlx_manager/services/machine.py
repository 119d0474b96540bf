"""The machine we run on, as far as it decides what fits: asked once, since none of it changes while we run."""

from __future__ import annotations

import logging
import platform
import subprocess
from pathlib import Path

import psutil

from mlx_manager.domain.machine import Machine

log = logging.getLogger(__name__)

ANSWER_WITHIN_S = 2.0
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_SYSCTL = "/usr/sbin/sysctl"


def this_machine() -> Machine:
    """Never raises: what cannot be found out is left out."""
    memory = psutil.virtual_memory().total
    if platform.system() == "Darwin":
        chip = _sysctl("machdep.cpu.brand_string") or platform.processor() or platform.machine()
        limit = _sysctl("iogpu.wired_limit_mb")
        return Machine(
            name=_sysctl("hw.model") or "Mac",
            chip=chip,
            memory_bytes=memory,
            is_apple_silicon=platform.machine() == "arm64",
            wired_limit_bytes=int(limit) << 20 if limit.isdecimal() and int(limit) > 0 else None,
        )
    for file in _CGROUP_LIMITS:
        if limit := _first_line(file):
            # In a container: what it may take, not what the machine has.
            memory = min(memory, int(limit)) if limit.isdecimal() else memory
    return Machine(platform.node() or "this machine", _linux_chip(), memory, is_apple_silicon=False)


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  a fixed program, and names of ours
            [_SYSCTL, "-n", name], capture_output=True, text=True, timeout=ANSWER_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        log.debug("sysctl %s: %s", name, error)
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _linux_chip() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "Hardware"):
                return value.strip()
    except OSError as error:
        log.debug("no /proc/cpuinfo: %s", error)
    return platform.machine()


def _first_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
