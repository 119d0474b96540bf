"""A disk without symbolic links, as exFAT: what a cancel removes there, and what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import pytest
from filelock import FileLock

from fakes.hub_server import Fault, HubServer
from hub_cache import FILES, REPO, everything, fetch, hf, only, plan_of, root_of
from mlx_manager.domain.download import Sample
from mlx_manager.domain.plan import Plan
from mlx_manager.errors import CacheFailed
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


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        files = {**FILES, LARGE: b"w" * SIZE}
        hub.add_model(REPO, files)
        hub.commit(REPO, {**files, "config.json": "{}", "new.json": "[]"}, branch="refs/pr/1")
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> HfCache:
    return HfCache(tmp_path / "cache", symlinks=False)


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


# --- cancelled amid the bytes


def test_a_cancel_after_a_kill_leaves_nothing(hub: HubServer, cache: HfCache) -> None:
    """Every file that was whole stayed in the snapshot for ever, large ones too."""
    plan = plan_of(hub)
    killed_with_one_file_owed(hub, cache, plan)
    whole = sum(file.size for file in plan.blobs if file.path != LARGE)
    assert restarted(cache).discard(plan) >= whole > 0
    assert everything(cache.cache_dir) == [".locks"]


def test_a_download_that_has_all_bytes_and_is_cancelled_leaves_nothing(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    assert cache.discard(plan) == plan.total_bytes
    assert everything(cache.cache_dir) == [".locks"]


def test_what_was_whole_before_stays(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    fetch(hub, cache, plan_of(hub, revision="refs/pr/1"))
    fetch(hub, cache, plan_of(hub, allow_patterns=SUBSET))
    before = contents(cache)
    killed_with_one_file_owed(hub, cache, plan)
    restarted(cache).discard(plan)
    assert contents(cache) == before
    assert in_snapshot(cache, plan).keys() == set(SUBSET)


def test_what_is_in_place_is_used_and_stays(hub: HubServer, cache: HfCache) -> None:
    """Nobody has finished it, and nobody knows who put it there: it may be somebody's."""
    plan = plan_of(hub)
    place = root_of(cache, REPO) / "snapshots" / plan.commit / LARGE
    place.parent.mkdir(parents=True)
    place.write_bytes(b"w" * SIZE)
    pulled(hub, cache, plan)
    assert hub.bytes_sent() < SIZE
    cache.discard(plan)
    assert in_snapshot(cache, plan) == {LARGE: b"w" * SIZE}


@pytest.mark.parametrize("named", [True, False])
def test_what_another_program_has_fetched_meanwhile_stays(hub: HubServer, cache: HfCache, named: bool) -> None:
    """Named by its commit alone it leaves no ref that would tell of it."""
    plan = plan_of(hub)
    killed_with_one_file_owed(hub, cache, plan)
    hf_takes(hub, cache, *SUBSET, *([] if named else ["--revision", plan.commit]))
    before = in_snapshot(cache, plan)
    assert before.keys() == set(SUBSET)
    restarted(cache).discard(plan)
    assert in_snapshot(cache, plan) == before
    assert not list((root_of(cache, REPO) / "blobs").glob("*"))


def test_what_another_download_is_going_to_use_stays_until_that_is_cancelled_too(
    hub: HubServer, cache: HfCache
) -> None:
    plan, subset = plan_of(hub), plan_of(hub, allow_patterns=SUBSET)
    pulled(hub, cache, plan)
    cache.discard(plan, keep={file.etag for file in subset.blobs})
    hub.clear_log()
    pulled(hub, cache, subset)
    assert hub.bytes_sent() == 0
    cache.discard(subset)
    cache.discard(plan)
    assert everything(cache.cache_dir) == [".locks"]


def test_what_others_work_on_stays(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    place = cache.places(plan)[0]
    with FileLock(place.lock):
        assert cache.discard(plan) == 0
    with FileLock(place.lock.with_name("e" * 64 + ".lock")):
        assert cache.discard(plan) == 0
    assert cache.discard(plan) == plan.total_bytes


# --- the same content in several places


def test_two_commits_do_not_take_each_other_s_contents(hub: HubServer, cache: HfCache) -> None:
    plan, newer = plan_of(hub), plan_of(hub, revision="refs/pr/1")
    pulled(hub, cache, plan)
    pulled(hub, cache, newer)
    for one in (plan, newer):
        cache.link(one)
        assert in_snapshot(cache, one) == on_the_hub(hub, one)
    cache.discard(plan)
    assert in_snapshot(cache, plan).keys() == {file.path for file in plan.files}


def test_what_came_for_one_commit_is_gone_on_with_for_another(hub: HubServer, cache: HfCache) -> None:
    """Each has a place of its own for what they share, and there is one part."""
    plan, newer = plan_of(hub), plan_of(hub, revision="refs/pr/1")
    killed_with_one_file_owed(hub, cache, plan)
    assert pulled(hub, cache, newer).reused_bytes >= LARGE_PIECES * FAST.piece_bytes


def test_a_second_download_of_the_commit_goes_on_when_the_first_has_taken_the_files(
    hub: HubServer, cache: HfCache
) -> None:
    """The twin of one of its files is all that is left of a content."""
    first, second = plan_of(hub, allow_patterns=("config.json",)), plan_of(hub, ignore_patterns=("config.json",))
    pulled(hub, cache, second)
    hub.clear_log()
    pulled(hub, cache, first)
    cache.link(first)
    cache.link(second)
    assert hub.bytes_sent() == 0
    assert in_snapshot(cache, first) == on_the_hub(hub, plan_of(hub))
    assert only(cache).complete
    assert not list((root_of(cache, REPO) / "blobs").glob("*"))


def test_what_is_moved_into_the_snapshot_is_still_known_to_be_right(hub: HubServer, tmp_path: Path) -> None:
    """Or a model of 200 GB would be hashed again when it is next asked for."""
    verified = Memory()
    cache, plan = HfCache(tmp_path / "cache", symlinks=False, verified=verified), plan_of(hub)
    pulled(hub, cache, plan, verified)
    verified.known.remove(next(place.blob for place in cache.places(plan) if place.file.path == "README.md"))
    snapshot = cache.link(plan)
    known = {path for path in FILES if verified.is_verified(snapshot / path)}
    assert known == {file.path for file in plan.blobs} - {"README.md"}


def test_a_content_that_vanished_is_missed(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    cache.places(plan)[0].blob.unlink()
    with pytest.raises(CacheFailed, match="missing or of a wrong size"):
        cache.link(plan)
    assert not (root_of(cache, REPO) / "refs").exists()


# --- killed while the files are moved


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_snapshot_that_was_half_made_goes(hub: HubServer, cache: HfCache, after: int) -> None:
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    killed_while_linking(cache, plan, after)
    assert len(in_snapshot(cache, plan)) == after
    assert restarted(cache).discard(plan) >= plan.total_bytes
    assert everything(cache.cache_dir) == [".locks"]


def test_a_snapshot_that_was_half_made_is_finished(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    for after in (2, 1, 1):
        killed_while_linking(cache, plan, after)
    hub.clear_log()
    pulled(hub, restarted(cache), plan)
    assert hub.bytes_sent() == 0
    cache.link(plan)
    cache.discard(plan)
    assert in_snapshot(cache, plan) == on_the_hub(hub, plan)
    assert {path.name for path in root_of(cache, REPO).iterdir()} == {"refs", "snapshots", "trees"}


def test_of_a_half_made_snapshot_what_was_there_before_stays(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    fetch(hub, cache, plan_of(hub, allow_patterns=SUBSET))
    # The branch has moved on since, so that nothing names the commit: else what was made stays too.
    (root_of(cache, REPO) / "refs" / "main").unlink()
    before = contents(cache)
    pulled(hub, cache, plan)
    killed_while_linking(cache, plan, 2)
    assert len(in_snapshot(cache, plan)) == len(SUBSET) + 2
    restarted(cache).discard(plan)
    assert contents(cache) == before


@pytest.mark.parametrize("same_time", [False, True])
def test_of_a_half_made_snapshot_what_another_program_has_put_there_since_stays(
    hub: HubServer, cache: HfCache, same_time: bool
) -> None:
    """It asked by the commit, and so left no ref that would tell of it; the times of some disks are coarse."""
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    (waiting,) = (place.blob for place in cache.places(plan) if place.file.path == LARGE)
    killed_while_linking(cache, plan, 2)
    assert LARGE not in in_snapshot(cache, plan)
    hf_takes(hub, cache, LARGE, "--revision", plan.commit)
    if same_time:
        alike = waiting.stat()
        os.utime(root_of(cache, REPO) / "snapshots" / plan.commit / LARGE, ns=(alike.st_atime_ns, alike.st_mtime_ns))
    restarted(cache).discard(plan)
    assert in_snapshot(cache, plan) == {LARGE: b"w" * SIZE}


def test_a_half_made_snapshot_that_another_program_has_named_since_stays(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    killed_while_linking(cache, plan, 2)
    hf_takes(hub, cache, "README.md")
    before = in_snapshot(cache, plan)
    restarted(cache).discard(plan)
    assert in_snapshot(cache, plan) == before


# --- what is told of it on the way


def test_what_waits_for_its_snapshot_is_told(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    revision = only(cache).revisions[0]
    assert (revision.files, revision.missing_files, revision.missing_bytes) == (len(FILES), 0, 0)
    assert not revision.complete
    assert only(cache).size_bytes == plan.total_bytes
    assert cache.held(plan, lambda part, etag, size: 0) == {file.etag: file.size for file in plan.blobs}


def test_what_nobody_waits_for_any_more_is_told_and_can_be_removed(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    wanted = {(REPO, file.etag) for file in plan.blobs}
    assert cache.leftovers(wanted) == []
    assert sum(one.size for one in cache.leftovers(set())) == plan.total_bytes
    assert cache.delete(REPO, leftovers=True).freed_bytes == plan.total_bytes
    assert not root_of(cache, REPO).exists()
