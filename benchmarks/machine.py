"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import psutil

from benchmarks.job import ROOT


def describe(folder: Path) -> dict[str, str]:
    """Lines for the head of a report. `folder` lies on the disk that was written to."""
    memory = psutil.virtual_memory().total
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {memory / 2**30:.0f} GiB of memory",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}, files on {_file_system(folder)}",
        "load before": ", ".join(f"{load:.2f}" for load in os.getloadavg()),
        "code": _commit(),
    }


def _processor() -> str:
    if platform.system() == "Linux":
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return found[1].strip() if found else platform.machine()
    try:
        said = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        ).stdout
    except OSError:
        said = ""
    return said.strip() or platform.machine()


def _file_system(folder: Path) -> str:
    path = str(folder.resolve())
    mounts = [part for part in psutil.disk_partitions(all=True) if _contains(part.mountpoint, path)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "an unknown file system"


def _contains(mount: str, path: str) -> bool:
    return path == mount or path.startswith(mount.rstrip("/") + "/")


def _commit() -> str:
    """The commit, and whether there is more than that."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no commit"
    return f"{commit}{' with changes' if changed else ''}"
