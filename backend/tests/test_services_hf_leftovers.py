"""What a crash leaves in the cache: swept where it is ours for sure, told where it may be somebody's."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from fakes.hub_server import HubServer
from hub_cache import FILES, REPO, everything, fetch, plan_of
from mlx_manager.services.hf_cache import HfCache

ROOT = "models--mlx-community--Tiny-4bit"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, FILES)
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> HfCache:
    return HfCache(tmp_path / "cache")


def draft(folder: Path, age_s: float) -> Path:
    """As a server that was killed between writing and renaming has left it."""
    path = folder / f".{uuid.uuid4().hex}.tmp"
    path.write_text("half")
    at = time.time() - age_s
    os.utime(path, (at, at))
    return path


def test_drafts_of_a_crash_go_with_the_next_download_and_young_ones_are_somebody_s(
    hub: HubServer, cache: HfCache
) -> None:
    plan = plan_of(hub)
    fetch(hub, cache, plan)
    root = cache.cache_dir / ROOT
    old, older = draft(root, 120), draft(root / "blobs", 7200)
    young = draft(root, 5)
    stranger = root / ".mine.tmp"
    stranger.write_text("not ours")
    os.utime(stranger, (0, 0))
    cache.prepare(plan)
    assert not old.exists() and not older.exists()
    assert young.exists() and stranger.exists()


def test_a_link_that_was_only_tried_goes_too(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    cache.prepare(plan)
    link = cache.cache_dir / ROOT / "blobs" / f".{uuid.uuid4().hex}.tmp"
    link.symlink_to("nowhere")
    os.utime(link, (0, 0), follow_symlinks=False)
    cache.prepare(plan)
    assert not link.is_symlink()


def test_a_cancel_after_a_crash_leaves_nothing_either(hub: HubServer, cache: HfCache) -> None:
    """A draft would keep the model's folder, and `ls` would go on to name the model."""
    plan = plan_of(hub)
    cache.prepare(plan)
    draft(cache.cache_dir / ROOT, 2)
    cache.discard(plan)
    assert everything(cache.cache_dir) == [".locks"]


def test_what_a_killed_deletion_had_set_aside_goes_too(hub: HubServer, cache: HfCache) -> None:
    """It is a folder with links in it; taken for a file, it would have failed the next download."""
    plan = plan_of(hub)
    fetch(hub, cache, plan)
    aside = cache.cache_dir / ROOT / f".{uuid.uuid4().hex}.tmp"
    aside.mkdir()
    (cache.cache_dir / ROOT / "snapshots" / plan.commit).rename(aside / plan.commit)
    os.utime(aside, (0, 0))
    cache.prepare(plan)
    assert not aside.exists()
    assert (cache.link(plan) / "config.json").is_file()


# --- what a check-up tells of, and leaves where it is


def test_what_nobody_waits_for_is_told_and_what_somebody_waits_for_is_not(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    places = cache.prepare(plan)
    for place in places[:3]:
        place.part.write_bytes(b"half")
    journal = places[0].part.with_name(places[0].part.name + ".journal")
    journal.write_text("…")
    (cache.cache_dir / ".locks" / "models--gone--model").mkdir(parents=True)
    stale = draft(cache.cache_dir / ROOT, 3600)
    draft(cache.cache_dir / ROOT, 1)
    before = everything(cache.cache_dir)
    places[2].lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(places[2].lock):
        found = {Path(one.path).name: one.model_id for one in cache.leftovers(set())}
    assert found == {
        places[0].part.name: REPO,
        journal.name: REPO,
        places[1].part.name: REPO,
        stale.name: None,
        "models--gone--model": None,
    }, "the third is being written by somebody"
    assert set(everything(cache.cache_dir)) - set(before) <= {places[2].lock.relative_to(cache.cache_dir).as_posix()}


def test_a_model_that_something_is_wanted_of_is_not_to_be_tidied_as_a_whole(hub: HubServer, cache: HfCache) -> None:
    first, second, *_ = cache.prepare(plan_of(hub))
    first.part.write_bytes(b"half")
    second.part.write_bytes(b"half")
    found = cache.leftovers({(REPO, first.file.etag)})
    assert [(Path(one.path).name, one.model_id) for one in found] == [(second.part.name, None)]


def test_a_cache_that_is_not_there_has_no_leftovers(cache: HfCache) -> None:
    assert cache.leftovers(set()) == []
