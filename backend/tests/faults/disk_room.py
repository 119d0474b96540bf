"""Room on the disk, and what may be written there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from faults.machine import NOBODY, Need, as_nobody, disk_fault, ext4_disk, remount, small_disk
from faults.scene import Scene
from faults.table import TOLD_S, row

MIB = 1 << 20
# The server keeps this much free, so a disk must be larger than it by the models it is to hold.
ROOM_TO_LEAVE = 64 * MIB


@row("The disk is too full before the first byte; the person frees some room", needs=[Need.MOUNTS])
def full_before(scene: Scene) -> None:
    scene.model(24 * MIB)
    disk = scene.enter(small_disk(scene.root / "disk", ROOM_TO_LEAVE + 40 * MIB))
    _on(scene, disk)
    scene.hub.wait_idle()
    hog = disk / "hog"
    hog.write_bytes(bytes(30 * MIB))
    scene.serve(HF_HUB_CACHE=str(scene.cache))
    scene.ask()
    scene.paused("disk_full")
    assert scene.hub.bytes_sent() == 0, "bytes came before the disk was looked at"
    hog.unlink()
    scene.resume("The person frees 30 MB and resumes.")
    scene.completed()


@row("Another program fills the disk in the middle; the person frees some room", needs=[Need.MOUNTS], again=8 * MIB)
def full_in_the_middle(scene: Scene) -> None:
    # Without room reserved beforehand: tmpfs gives it at once, so the second file is the one that finds none.
    scene.model(24 * MIB, shards=40)
    disk = scene.enter(small_disk(scene.root / "disk", ROOM_TO_LEAVE + 40 * MIB))
    _on(scene, disk)
    slow = scene.slow(6e6)
    scene.serve(HF_HUB_CACHE=str(scene.cache))
    scene.ask()
    scene.sent(6 * MIB)
    hog = disk / "hog"
    _fill(hog)
    scene.knowable()
    scene.paused("disk_full")
    hog.unlink()
    slow.clear()
    scene.resume("The person frees the room and resumes.")
    scene.completed()


# The list is written every five seconds; that it cannot be is known at the first try.
@row(
    "The disk of the list of downloads is full, not that of the cache: it goes on, and says so",
    needs=[Need.MOUNTS],
    promise_s=5 + TOLD_S,
    again=None,
    lasts_s=20,
)
def data_full(scene: Scene) -> None:
    scene.model(8 * MIB)
    disk = scene.enter(small_disk(scene.root / "own", 2 * MIB))
    slow = scene.slow(0.5e6)
    api = scene.serve(MLX_MANAGER_HOME=str(disk / "data"))
    assert api.get("/health").json["status"] == "ok"
    scene.ask()
    scene.sent(MIB)
    _fill(disk / "hog")
    scene.knowable()
    said = scene.told(text="list of downloads could not be written: .*full", held=False).data
    assert "data folder has room" in said["advice"], said
    health = api.get("/health").json
    assert (health["status"], health["problem"]["code"]) == ("degraded", "ledger_failed"), health
    found = {one["name"]: one for one in _doctor(scene)}
    assert "could not be written" in found["server"]["said"], found["server"]
    assert "Free some room" in found["data_folder"]["advice"], found["data_folder"]
    refused = api.post("/api/models/download", {"model_id": "mlx-community/Another-1B"})
    assert (refused.status, refused.json["code"]) == (507, "ledger_failed"), refused
    slow.clear()
    scene.completed()
    (disk / "hog").unlink()
    scene.then("The person frees some room: what happened meanwhile is written down.")
    while api.get("/health").json["status"] != "ok":
        time.sleep(0.1)
    scene.kill()
    scene.then("The server is killed and started again: the list knows it.")
    scene.restart()
    assert "could not be written" not in scene.until(status="completed").data["message"]


@row("The cache is on a disk that is mounted read-only", needs=[Need.MOUNTS])
def read_only(scene: Scene) -> None:
    scene.model(4 * MIB)
    disk = scene.enter(small_disk(scene.root / "disk", ROOM_TO_LEAVE + 40 * MIB))
    _on(scene, disk)
    remount(disk, "ro")
    scene.serve(HF_HUB_CACHE=str(scene.cache))
    scene.ask()
    assert "read-only" in scene.failed("cache_not_writable")["advice"]
    remount(disk, "rw")
    scene.resume("The person mounts it for writing and resumes.")
    scene.completed()


@row("The cache's disk turns read-only in the middle, after a fault of the disk", needs=[Need.EXT4], again=16 * MIB)
def read_only_in_the_middle(scene: Scene) -> None:
    scene.model(16 * MIB, shards=40)
    disk = scene.enter(ext4_disk(scene.root / "disk", scene.root / "disk.img", ROOM_TO_LEAVE + 64 * MIB))
    _on(scene, disk)
    slow = scene.slow(6e6)
    scene.serve(HF_HUB_CACHE=str(scene.cache))
    scene.ask()
    scene.sent(4 * MIB)
    disk_fault(disk)
    scene.knowable()
    assert "read-only" in scene.failed("cache_not_writable")["advice"]
    slow.clear()
    scene.outcome.end += ", until the disk is repaired"


@row("This user may not write into the cache", needs=[Need.OTHER_USER])
def no_permission(scene: Scene) -> None:
    scene.model(4 * MIB)
    _for_nobody(scene)
    scene.cache.mkdir(parents=True)
    scene.cache.chmod(0o555)
    scene.serve(prefix=as_nobody())
    scene.ask()
    scene.failed("cache_not_writable")
    scene.cache.chmod(0o777)
    scene.resume("The person gives write access and resumes.")
    scene.completed()


@row("Write access to the cache is lost in the middle", needs=[Need.OTHER_USER], again=8 * MIB)
def permission_lost(scene: Scene) -> None:
    scene.model(16 * MIB, shards=40)
    _for_nobody(scene)
    slow = scene.slow(6e6)
    scene.serve(prefix=as_nobody())
    scene.ask()
    scene.sent(4 * MIB)
    blobs = scene.repo_dir / "blobs"
    blobs.chmod(0o555)
    scene.knowable()
    scene.failed("cache_not_writable")
    blobs.chmod(0o755)
    slow.clear()
    scene.resume("The person gives write access again and resumes.")
    scene.completed()


def _doctor(scene: Scene) -> list[dict[str, Any]]:
    """What `mlx-manager doctor` finds."""
    command = [sys.executable, "-m", "mlx_manager", "doctor", "--json"]
    done = subprocess.run(command, env=scene.server.env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done
    found: list[dict[str, Any]] = json.loads(done.stdout)["checks"]
    return found


def _on(scene: Scene, disk: Path) -> None:
    """Have the cache on this disk."""
    scene.cache = disk / "hub"


def _fill(hog: Path) -> None:
    """Leave not a byte."""
    with hog.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(MIB))
        except OSError:
            pass
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass


def _for_nobody(scene: Scene) -> None:
    """Give the person's folder to somebody whom permissions bind."""
    for folder in (scene.root, scene.root / "hf"):
        folder.mkdir(exist_ok=True)
        os.chown(folder, NOBODY, NOBODY)
    assert subprocess.run([*as_nobody(), "test", "-w", str(scene.root)], check=False).returncode == 0
