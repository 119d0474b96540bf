"""A disk without symbolic links, as exFAT: whole contents are moved into the snapshot, by whoever comes first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub_server import HubServer
from hub_cache import FILES, REPO, everything, fetch, only, plan_of, root_of
from mlx_manager.errors import CacheFailed
from mlx_manager.services.hf_cache import HfCache
from mlx_manager.services.transfer import CurlTransfer
from transferring import FAST, WIRE, Memory, finish
from unlinked_cache import (
    LARGE,
    LARGE_PIECES,
    SIZE,
    SUBSET,
    contents,
    hf_takes,
    in_snapshot,
    jobs_of,
    killed_while_linking,
    killed_with_one_file_owed,
    on_the_hub,
    pulled,
    restarted,
    two_commits,
)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with two_commits() as hub:
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> HfCache:
    return HfCache(tmp_path / "cache", symlinks=False)


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


def test_what_another_download_has_put_into_the_snapshot_meanwhile_is_not_fetched_again(
    hub: HubServer, tmp_path: Path
) -> None:
    """The second had its places before the first linked, and waited for the lock of the large file."""
    verified = Memory()
    cache = HfCache(tmp_path / "cache", symlinks=False, verified=verified)
    plan, large = plan_of(hub), plan_of(hub, allow_patterns=(LARGE,))
    pulled(hub, cache, plan, verified)
    jobs = jobs_of(hub, cache, large)
    cache.link(plan)
    hub.clear_log()
    transfer = CurlTransfer("late", jobs, limits=FAST, wire=WIRE, token_for=lambda url: None, verified=verified)
    transfer.start()
    try:
        finish(transfer)
    finally:
        transfer.stop()
    cache.link(large)
    assert hub.bytes_sent() == 0
    assert in_snapshot(cache, plan) == on_the_hub(hub, plan)


def test_what_was_moved_before_linking_broke_off_is_still_known_to_be_right(hub: HubServer, tmp_path: Path) -> None:
    verified = Memory()
    cache, plan = HfCache(tmp_path / "cache", symlinks=False, verified=verified), plan_of(hub)
    pulled(hub, cache, plan, verified)
    last = plan.files[-1].path
    in_the_way = root_of(cache, REPO) / "snapshots" / plan.commit / last / "somebody's"
    in_the_way.mkdir(parents=True)
    with pytest.raises(CacheFailed):
        cache.link(plan)
    moved = [place.blob for place in cache.places(plan) if "snapshots" in place.blob.parts]
    assert len(moved) > 1
    assert all(map(verified.is_verified, moved))


def test_a_whole_model_is_known_to_be_here_when_no_blob_is_left(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    fetch(hub, cache, plan)
    cache.discard(plan)
    assert not (root_of(cache, REPO) / "blobs").exists()
    assert all(place.blob.exists() for place in restarted(cache).places(plan))


def test_a_content_that_vanished_is_missed(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    pulled(hub, cache, plan)
    cache.places(plan)[0].blob.unlink()
    with pytest.raises(CacheFailed, match="missing or of a wrong size"):
        cache.link(plan)
    assert not (root_of(cache, REPO) / "refs").exists()


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
