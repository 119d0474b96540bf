"""A disk without symbolic links, as exFAT: downloads to it by the real engine, stopped wherever a test wants."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import quote

from fakes.hub_server import Fault, HubServer
from hub_cache import FILES, REPO, hf, root_of
from mlx_manager.domain.download import Sample
from mlx_manager.domain.plan import Plan
from mlx_manager.services.hf_cache import HfCache
from mlx_manager.services.ports import FileJob
from mlx_manager.services.transfer import CurlTransfer
from mlx_manager.services.transfer.journal import Journal
from transferring import FAST, PATIENT, WIRE, Memory, finish, in_a_process, until

SUBSET = ("README.md", "config.json", "empty.txt")
LARGE = "model.safetensors"
SIZE = 1 << 20
LARGE_PIECES = 4
"""Of the large file, when its fetcher is killed."""
LINKER = """
    import json, os, signal, sys
    from pathlib import Path
    from mlx_manager.domain.plan import Plan
    from mlx_manager.services.hf_cache import HfCache
    plan, left = Plan.from_json(json.loads(sys.argv[1])), int(sys.argv[3])
    cache = HfCache(Path(sys.argv[2]), symlinks=False)
    def die(event, arguments):
        global left
        if event == "os.rename" and f"snapshots/{plan.commit}" in str(arguments[1]):
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(die)
    cache.link(plan)
"""
"""Killed in the act: the interpreter tells of each file before it gets its place in the snapshot."""


@contextmanager
def two_commits() -> Iterator[HubServer]:
    """A hub with a model and a newer commit of it, which have all but one file in common."""
    with HubServer() as hub:
        files = {**FILES, LARGE: b"w" * SIZE}
        hub.add_model(REPO, files)
        hub.commit(REPO, {**files, "config.json": "{}", "new.json": "[]"}, branch="refs/pr/1")
        yield hub


def jobs_of(hub: HubServer, cache: HfCache, plan: Plan) -> list[FileJob]:
    return [
        FileJob(
            path=place.file.path,
            url=f"{hub.url}/{plan.model_id}/resolve/{plan.commit}/{quote(place.file.path)}",
            size=place.file.size,
            digest=place.file.digest,
            target=place.blob,
            part=place.part,
            lock=place.lock,
            elsewhere=place.elsewhere,
        )
        for place in cache.prepare(plan)
    ]


def pulled(hub: HubServer, cache: HfCache, plan: Plan, verified: Memory | None = None) -> Sample:
    """All bytes by the real engine, and no link yet."""
    transfer = CurlTransfer(
        "test",
        jobs_of(hub, cache, plan),
        limits=FAST,
        wire=WIRE,
        token_for=lambda url: None,
        verified=verified or Memory(),
    )
    transfer.start()
    try:
        return finish(transfer)
    finally:
        transfer.stop()


def killed_with_one_file_owed(hub: HubServer, cache: HfCache, plan: Plan) -> None:
    """By a process that gets no chance to tidy up."""
    jobs = jobs_of(hub, cache, plan)
    (large,) = (job for job in jobs if job.path == LARGE)
    stall = hub.fault(Fault.stall(after=1000), where="cdn", path=LARGE, nth=range(LARGE_PIECES + 1, 999))
    with in_a_process(jobs, PATIENT) as process:
        until(lambda: all(job.target.exists() for job in jobs if job is not large))
        stall.wait_hit()
        journal = Journal(large.part, large.digest.hex, large.size)
        until(lambda: journal.load().total >= LARGE_PIECES * FAST.piece_bytes)
        process.kill()
    stall.clear()


def killed_while_linking(cache: HfCache, plan: Plan, after: int) -> None:
    """With so many files in their place."""
    command = [sys.executable, "-c", textwrap.dedent(LINKER), json.dumps(plan.to_json()), str(cache.cache_dir)]
    done = subprocess.run([*command, str(after)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    # A draft may be somebody's for a moment, and the next server does not come within it.
    for draft in root_of(cache, REPO).glob(".*.tmp"):
        os.utime(draft, (0, 0))


def restarted(cache: HfCache) -> HfCache:
    return HfCache(cache.cache_dir, symlinks=False)


def contents(cache: HfCache) -> dict[str, bytes]:
    """All files of the model but the listings, which say what there is to have."""
    root = root_of(cache, REPO)
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith("trees/")}


def in_snapshot(cache: HfCache, plan: Plan) -> Mapping[str, bytes]:
    start = f"snapshots/{plan.commit}/"
    return {name.removeprefix(start): data for name, data in contents(cache).items() if name.startswith(start)}


def on_the_hub(hub: HubServer, plan: Plan) -> dict[str, bytes]:
    files = hub.repo(plan.model_id).commits[plan.commit].files
    return {file.path: files[file.path].content.read(0, file.size) for file in plan.files}


def hf_takes(hub: HubServer, cache: HfCache, *arguments: str) -> None:
    hf(hub, cache.cache_dir, "download", REPO, *arguments, "--quiet", HF_HUB_DISABLE_SYMLINKS="1")
