"""A disk without symbolic links, as exFAT: what a cancel removes there, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from fakes.hub_server import HubServer
from hub_cache import FILES, REPO, everything, fetch, only, plan_of, root_of
from mlx_manager.services.hf_cache import HfCache
from unlinked_cache import (
    LARGE,
    SIZE,
    SUBSET,
    contents,
    hf_takes,
    in_snapshot,
    killed_with_one_file_owed,
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
