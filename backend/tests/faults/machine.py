"""What a row needs of the machine, and whether this one has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from functools import cache
from pathlib import Path

NOBODY = 65534
OWN_MOUNTS = "FAULTS_OWN_MOUNTS"
"""Set in the environment of a process that has a mount namespace of its own."""
_LIBFAKETIME = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib*/faketime/libfaketime.so.1")


class Need(Enum):
    """Each with the sentence for a machine that has it not."""

    LINUX = "needs Linux"
    MOUNTS = "needs root on Linux, and util-linux' unshare: it mounts a file system of its own"
    EXFAT = "needs root on Linux with Debian's exfat-fuse and exfatprogs"
    EXT4 = "needs root on Linux, and an ext4 whose faults can be had to order (/sys/fs/ext4)"
    OTHER_USER = "needs root on Linux, and another user who may read this folder: root is let in anywhere"
    FAKETIME = "needs libfaketime (Debian's package of that name)"
    HF = "needs the `hf` command of huggingface_hub"
    OPENSSL = "needs openssl, to make certificates"

    @property
    def met(self) -> bool:
        return _met(self)


@cache
def _met(need: Need) -> bool:
    linux = sys.platform == "linux"
    match need:
        case Need.LINUX:
            return linux
        case Need.MOUNTS:
            return linux and OWN_MOUNTS in os.environ
        case Need.EXFAT:
            return _met(Need.MOUNTS) and all(map(shutil.which, ("mkfs.exfat", "mount.exfat-fuse")))
        case Need.EXT4:
            return _met(Need.MOUNTS) and Path("/sys/fs/ext4").is_dir() and shutil.which("mkfs.ext4") is not None
        case Need.OTHER_USER:
            return linux and os.geteuid() == 0 and shutil.which("setpriv") is not None and _nobody_can_run_us()
        case Need.FAKETIME:
            return linux and libfaketime() is not None
        case Need.HF:
            return hf().exists()
        case Need.OPENSSL:
            return shutil.which("openssl") is not None


def libfaketime() -> Path | None:
    """The library to be loaded before all others."""
    found = (path for pattern in _LIBFAKETIME for path in sorted(Path("/").glob(pattern[1:])))
    return next(found, None)


def hf() -> Path:
    """The real `hf`, beside this interpreter."""
    return Path(sys.executable).with_name("hf")


def as_nobody() -> list[str]:
    """What to put before a command for it to run as a user whom permissions bind."""
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]


def unshare_command(arguments: list[str]) -> list[str] | None:
    """How to run ourselves again with mounts of our own, which go when we go; None where that cannot be."""
    if sys.platform != "linux" or os.geteuid() != 0 or OWN_MOUNTS in os.environ:
        return None
    command = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        return None
    return [*command, sys.executable, *arguments]


@contextmanager
def mounted(what: str, where: Path, *options: str) -> Iterator[Path]:
    """A file system for as long as this lasts; ``options`` go to mount."""
    where.mkdir(parents=True, exist_ok=True)
    _run("mount", *options, what, str(where))
    try:
        yield where
    finally:
        _run("umount", "--lazy", str(where))


@contextmanager
def small_disk(where: Path, size: int) -> Iterator[Path]:
    """A disk of so many bytes."""
    with mounted("tmpfs", where, "-t", "tmpfs", "-o", f"size={size}") as folder:
        yield folder


@contextmanager
def exfat_disk(where: Path, image: Path, size: int) -> Iterator[Path]:
    """A disk as cameras and sticks have it: no symlinks, no owners, names without colons."""
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.exfat", str(image))
    where.mkdir()
    device = _run("losetup", "--find", "--show", str(image))
    try:
        _run("mount.exfat-fuse", device, str(where))
        try:
            yield where
        finally:
            _run("umount", "--lazy", str(where))
    finally:
        _run("losetup", "--detach", device)


@contextmanager
def ext4_disk(where: Path, image: Path, size: int) -> Iterator[Path]:
    """A disk that turns read-only at the first fault, as most installations have it; see `disk_fault`."""
    with image.open("wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", "-F", str(image))
    with mounted(str(image), where, "-o", "loop,errors=remount-ro") as folder:
        yield folder


def disk_fault(where: Path) -> None:
    """Have the kernel find a fault in a file system of `ext4_disk`."""
    device = next(
        line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == str(where)
    )
    Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error").write_text("1")


@contextmanager
def private_names(folder: Path) -> Iterator[Path]:
    """A hosts file that only we see, and no other way to look up a name: no question leaves the machine."""
    hosts, switch = folder / "hosts", folder / "nsswitch.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    switch.write_text("hosts: files\npasswd: files\ngroup: files\n")
    with ExitStack() as stack:
        for ours, theirs in ((hosts, "/etc/hosts"), (switch, "/etc/nsswitch.conf")):
            _run("mount", "--bind", str(ours), theirs)
            stack.callback(_run, "umount", "--lazy", theirs)
        yield hosts


def remount(where: Path, how: str) -> None:
    """Change a mount: `ro`, `rw`, `size=…`."""
    _run("mount", "-o", f"remount,{how}", str(where))


def _run(*command: str) -> str:
    """What it says."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _nobody_can_run_us() -> bool:
    command = [*as_nobody(), sys.executable, "-c", "import mlx_manager.errors"]
    env = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.run(command, env=env, capture_output=True, check=False).returncode == 0
