"""Other hands on the files: volumes without symlinks, other programs, journals that lie."""

from __future__ import annotations

import json
import shutil
import subprocess
import zlib
from pathlib import Path

from faults.machine import Need, exfat_disk, hf, small_disk
from faults.scene import Scene
from faults.table import row

MIB = 1 << 20


@row("The cache is on another volume than everything else", needs=[Need.MOUNTS])
def other_volume(scene: Scene) -> None:
    scene.model(4 * MIB)
    scene.cache = scene.enter(small_disk(scene.root / "disk", 128 * MIB)) / "hub"
    scene.serve(HF_HUB_CACHE=str(scene.cache))
    scene.ask()
    scene.completed()


@row("The cache is on a disk without symlinks (exFAT)", needs=[Need.EXFAT], lasts_s=10)
def no_symlinks(scene: Scene) -> None:
    scene.model(4 * MIB)
    scene.cache = scene.enter(exfat_disk(scene.root / "disk", scene.root / "disk.img", 160 * MIB)) / "hub"
    scene.serve(HF_HUB_CACHE=str(scene.cache))
    scene.ask()
    scene.completed()


@row("100,000 other models are in the cache", lasts_s=40)
def many_models(scene: Scene) -> None:
    scene.model(4 * MIB)
    commit = "0" * 40
    for number in range(100_000):
        folder = scene.cache / f"models--org-{number % 500}--model-{number}"
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(commit)
    scene.serve()
    scene.ask()
    scene.completed()
    silence = scene.watching.longest_silence_s
    assert silence < 5, f"no event for {silence:.1f} s"


@row("The journal is cut off in the middle of a line (power cut)", again=5 * MIB)
def journal_truncated(scene: Scene) -> None:
    _interrupted(scene, lambda journal: journal.write_bytes(journal.read_bytes()[:-9]))


@row("The journal is empty", again=None)
def journal_empty(scene: Scene) -> None:
    _interrupted(scene, lambda journal: journal.write_bytes(b""), kept=False)


@row("The journal was written by a newer version", again=None)
def journal_newer(scene: Scene) -> None:
    def newer(journal: Path) -> None:
        text = json.dumps({"format": 99, "chunks": "as the future has them"}, separators=(",", ":")).encode()
        journal.write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))

    _interrupted(scene, newer, kept=False)


@row("Another program edits the `.part` while it is paused", again=None)
def part_edited(scene: Scene) -> None:
    def edit(journal: Path) -> None:
        with journal.with_name(journal.name.removesuffix(".journal")).open("r+b") as part:
            part.seek(MIB)
            part.write(b"not yours")

    _interrupted(scene, edit, told="wrong bytes", kept=False)


@row("Another program shortens the `.part` while it is paused", again=None)
def part_shortened(scene: Scene) -> None:
    def shorten(journal: Path) -> None:
        with journal.with_name(journal.name.removesuffix(".journal")).open("r+b") as part:
            part.truncate(MIB)

    _interrupted(scene, shorten, kept=False)


def _interrupted(scene: Scene, spoil: object, *, kept: bool = True, told: str = "") -> None:
    """Half of it comes, the server is killed, something is done to the journal, and it goes on."""
    scene.model(8 * MIB)
    slow = scene.slow(3e6)
    scene.serve()
    scene.ask()
    scene.sent(4 * MIB)
    scene.until(text="Receiving")
    (journal,) = _wait_journal(scene)
    scene.kill()
    sent = scene.hub.bytes_sent()
    assert callable(spoil)
    spoil(journal)
    if not told:
        slow.clear()
    scene.then("The server is killed, and started again after that.")
    scene.knowable()
    scene.restart()
    if told:
        scene.until(text=told)
        scene.note(scene.watching.events[-1].data, None)
        slow.clear()
    event = scene.completed(again=0)
    scene.outcome.again = max(0, scene.hub.bytes_sent() - scene.size)
    assert not kept or int(event["reused_bytes"]) > MIB, event
    assert sent


def _wait_journal(scene: Scene) -> list[Path]:
    """The journal of the weights, once it says that something is durable."""
    while True:
        scene.until(text="Receiving", since=scene.watching.events[-1].at)
        # Two of them, for the last to be spoiled.
        found = [path for path in (scene.repo_dir / "blobs").glob("*.journal") if path.read_bytes().count(b"have") > 1]
        if found:
            return found


@row("`hf download` fetches the same model meanwhile", needs=[Need.HF], again=None, lasts_s=15)
def hf_besides(scene: Scene) -> None:
    scene.model(8 * MIB, shards=4)
    slow = scene.slow(3e6)
    scene.serve()
    scene.ask()
    scene.sent(MIB)
    other = scene.enter(_hf_download(scene))
    scene.sent(3 * MIB)
    slow.clear()
    assert other.wait(60) == 0, "hf failed"
    scene.completed()


@row("`hf download` has published some of the files before", needs=[Need.HF], lasts_s=12)
def hf_before(scene: Scene) -> None:
    scene.model(8 * MIB, shards=4)
    with _hf_download(scene, "--include", "model-00001*") as other:
        assert other.wait(60) == 0, "hf failed"
    scene.serve()
    scene.ask()
    event = scene.completed()
    assert event["reused_bytes"] >= 2 * MIB, event


def _hf_download(scene: Scene, *arguments: str) -> subprocess.Popen[bytes]:
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(scene.root / "other"),
        "HF_HUB_CACHE": str(scene.cache),
        "HF_ENDPOINT": scene.hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.Popen(
        [str(hf()), "download", scene.model_id, *arguments],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@row("The whole cache is deleted while it runs (`rm -rf`)", again=None)
def cache_deleted(scene: Scene) -> None:
    deleted(scene, scene.cache)


def deleted(scene: Scene, folder: Path) -> None:
    """A folder goes while files are fetched into it, and the person resumes."""
    scene.model(16 * MIB, shards=8)
    slow = scene.slow(5e6)
    scene.serve()
    scene.ask()
    scene.sent(6 * MIB)
    shutil.rmtree(folder)
    scene.knowable()
    scene.failed("cache_gone")
    slow.clear()
    scene.resume("The person resumes.")
    scene.completed()
