"""What was read of the cache is remembered, in the process and beyond it, and never believed against the disk."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import HubServer
from hub_cache import FILES, REPO, SHARDS, everything, fetch, nobody_special, only, open_folder, plan_of, root_of
from mlx_manager.domain.library import LocalModel
from mlx_manager.services.hf_cache import HfCache


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, FILES)
        hub.add_model("org/Shards", SHARDS)
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> HfCache:
    return HfCache(tmp_path / "cache")


def settle(cache: HfCache) -> None:
    """As if all was written long ago, so that what is read once is remembered."""
    before = time.time() - 3600
    for path in [cache.cache_dir, *cache.cache_dir.rglob("*")]:
        os.utime(path, (before, before), follow_symlinks=False)


def test_what_settled_is_not_read_again(hub: HubServer, cache: HfCache) -> None:
    fetch(hub, cache, plan_of(hub, "org/Shards"))
    assert cache.local()[0] is not cache.local()[0], "a second change might leave the same time behind"
    settle(cache)
    first = cache.local()
    assert cache.local()[0] is first[0]


@pytest.mark.parametrize("is_new", [False, True], ids=["in this process", "by the next process"])
def test_what_is_remembered_is_what_is_there(hub: HubServer, tmp_path: Path, *, is_new: bool) -> None:
    """Each change that another program may make is seen at the next look."""
    cache = HfCache(tmp_path / "cache", memory=tmp_path / "home" / "library.json")
    plan = plan_of(hub, "org/Shards")
    snapshot = fetch(hub, cache, plan)
    root = root_of(cache)

    def look() -> LocalModel:
        return only(after(cache, tmp_path) if is_new else cache)

    def seen() -> LocalModel:
        model = look()
        settle(cache)
        assert look() == replace(model, modified_at=look().modified_at, last_used_at=look().last_used_at)
        return look()

    assert seen().complete

    (root / "refs" / "main").write_text("f" * 40)
    assert seen().revisions[0].refs == ()
    (root / "refs" / "v1").write_text(plan.commit)
    assert seen().revisions[0].refs == ("v1",)
    weights = (snapshot / "model-00001-of-00002.safetensors").resolve()
    whole = weights.read_bytes()
    before = weights.stat()
    weights.write_bytes(b"short")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not seen().complete
    weights.write_bytes(whole)
    assert seen().complete
    (snapshot / "config.json").unlink()
    assert seen().revisions[0].missing == ("config.json",)
    cache.link(plan)
    assert seen().complete
    (root / "trees" / f"{plan.commit}.json").write_text("[]")
    assert seen().revisions[0].files_total is None
    (root / "blobs" / ("e" * 64)).write_bytes(b"x" * 10)
    assert seen().size_bytes == plan.total_bytes + 10
    os.utime(weights, (time.time() + 60, weights.stat().st_mtime))
    assert (look().last_used_at or 0) > time.time() + 50
    (root / "snapshots").rename(root / "elsewhere")
    assert not seen().complete
    (root / "elsewhere").rename(root / "snapshots")
    assert seen().complete
    # A copy of an older time, put in its place with all its times, as a backup does.
    shutil.copytree(root, tmp_path / "copy", symlinks=True)
    before = weights.stat()
    (tmp_path / "copy" / "blobs" / weights.name).write_bytes(b"w" * len(whole))
    (tmp_path / "copy" / "snapshots" / plan.commit / "config.json").unlink()
    for path in [tmp_path / "copy", *(tmp_path / "copy").rglob("*")]:
        stat = (root / path.relative_to(tmp_path / "copy")).lstat()
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns), follow_symlinks=False)
    root.rename(tmp_path / "older")
    (tmp_path / "copy").rename(root)
    assert (root / "blobs" / weights.name).stat().st_mtime_ns == before.st_mtime_ns
    assert (seen().revisions[0].files, look().revisions[0].files) == (4, 4)
    cache.delete("org/Shards")
    assert cache.local() == after(cache, tmp_path).local() == []


@pytest.mark.parametrize("is_new", [False, True], ids=["in this process", "by the next process"])
@pytest.mark.parametrize("path", ["model-00001-of-00002.safetensors", "config.json"])
@pytest.mark.parametrize("link", ["blob", "snapshot"])
def test_a_content_elsewhere_that_goes_and_comes_back(
    hub: HubServer, tmp_path: Path, *, path: str, link: str, is_new: bool
) -> None:
    """Contents in the store that models share, or on another disk: nothing changes in the model's own folders."""
    cache = HfCache(tmp_path / "cache", memory=tmp_path / "home" / "library.json")
    entry = fetch(hub, cache, plan_of(hub, "org/Shards")) / path
    place = entry.resolve() if link == "blob" else entry
    content = cache.cache_dir / "blobs" / "ab" / ("ab" + "0" * 62)
    content.parent.mkdir(parents=True)
    entry.resolve().rename(content)
    place.unlink(missing_ok=True)
    place.symlink_to(content)
    settle(cache)

    def missing() -> tuple[str, ...]:
        seen = {only(after(cache, tmp_path) if is_new else cache).revisions[0].missing for _ in range(2)}
        [told] = seen
        return told

    for _ in range(2):
        assert missing() == ()
        content.rename(tmp_path / "away")
        assert missing() == (path,)
        (tmp_path / "away").rename(content)
    assert missing() == ()


def after(cache: HfCache, home: Path) -> HfCache:
    """As the next process sees it, which finds what this one has kept."""
    return HfCache(cache.cache_dir, memory=home / "home" / "library.json")


def remembered(hub: HubServer, cache: HfCache, home: Path) -> Path:
    """Let a process read a cache of two models that settled, and then write over a small file where it lies: who reads
    sees its new size, and who remembers does not. The memory."""
    for repo in (REPO, "org/Shards"):
        fetch(hub, cache, plan_of(hub, repo))
    settle(cache)
    after(cache, home).library()
    [card] = root_of(cache).glob("snapshots/*/README.md")
    card.resolve().write_bytes(b"x" * 1000)
    return home / "home" / "library.json"


def test_the_next_process_need_not_read_all_again(hub: HubServer, cache: HfCache, tmp_path: Path) -> None:
    memory = remembered(hub, cache, tmp_path)
    kept, read = after(cache, tmp_path).library(), HfCache(cache.cache_dir).library()
    assert read.size_bytes - kept.size_bytes == 1000 - len(SHARDS["README.md"])
    written = memory.stat().st_ino
    # One model is read again when it changed, and the others are not; the next process knows both.
    (root_of(cache, REPO) / "refs" / "v1").write_text(plan_of(hub).commit)
    os.utime(root_of(cache, REPO) / "refs", (time.time() - 60,) * 2)
    os.utime(root_of(cache, REPO) / "refs" / "v1", (time.time() - 60,) * 2)
    for _ in range(2):
        tiny, shards = after(cache, tmp_path).local()
        assert tiny.revisions[0].refs == ("main", "v1")
        assert shards == kept.models[1]
    assert memory.stat().st_ino != written
    # Nothing new, nothing written.
    written = memory.stat().st_ino
    after(cache, tmp_path).library()
    assert memory.stat().st_ino == written


def test_few_changes_of_many_models_are_not_worth_writing(cache: HfCache, tmp_path: Path) -> None:
    for at in range(60):
        blob = root_of(cache, f"org/Model-{at}") / "blobs" / ("0" * 40)
        blob.parent.mkdir(parents=True)
        blob.write_bytes(b"x")
    settle(cache)
    after(cache, tmp_path).library()
    memory = tmp_path / "home" / "library.json"
    written = memory.stat().st_ino
    for at, is_worth_it in ((0, False), (1, True)):
        root = root_of(cache, f"org/Model-{at}")
        (root / "blobs" / ("1" * 40)).write_bytes(b"xx")
        os.utime(root / "blobs", (time.time() - 60,) * 2)
        for _ in range(2):
            assert after(cache, tmp_path).library().size_bytes == 60 + 2 * (at + 1)
        assert (memory.stat().st_ino != written) is is_worth_it


def test_a_broken_memory_is_none(hub: HubServer, cache: HfCache, tmp_path: Path) -> None:
    memory = remembered(hub, cache, tmp_path)
    good, truth = memory.read_bytes(), HfCache(cache.cache_dir).library()
    kept = after(cache, tmp_path).library()
    assert replace(kept, read_at=0) != replace(truth, read_at=0)
    flipped = good.replace(b'"org/Shards"', b'"org/Shirts"')
    other_form = good.replace(b"[2,", b"[1,", 1)
    for broken in (b"", good[:-7], good[: len(good) // 2], flipped, other_form, b"\xff" * 99, b"[" * 100_000):
        memory.write_bytes(broken)
        assert replace(after(cache, tmp_path).library(), read_at=0) == replace(truth, read_at=0)
    # It is right again for the next.
    assert replace(after(cache, tmp_path).library(), read_at=0) == replace(truth, read_at=0)
    # A folder where the file should be, and a cache that was moved.
    memory.unlink()
    memory.mkdir()
    assert replace(after(cache, tmp_path).library(), read_at=0) == replace(truth, read_at=0)
    memory.rmdir()
    memory.write_bytes(good)
    moved = cache.cache_dir.rename(tmp_path / "moved")
    library = HfCache(moved, memory=memory).library()
    assert [model.path for model in library.models] == [str(moved / Path(one.path).name) for one in truth.models]
    assert library.size_bytes == truth.size_bytes


def test_a_home_that_cannot_be_written_costs_no_more_than_time(hub: HubServer) -> None:
    with open_folder() as folder:
        cache = HfCache(folder / "cache", memory=folder / "home" / "library.json")
        fetch(hub, cache, plan_of(hub))
        settle(cache)
        (folder / "home").mkdir(mode=0o555)
        with nobody_special():
            assert only(cache).complete and only(cache).complete
        assert everything(folder / "home") == []
