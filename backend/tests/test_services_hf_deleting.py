"""Taking models out of the cache: what was planned goes, what others need stays, and nothing else is touched."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from fakes.hub_server import HubServer
from hub_cache import (
    FILES,
    REPO,
    environment,
    everything,
    fetch,
    hf,
    nobody_special,
    open_folder,
    plan_of,
    run,
    scanned,
)
from mlx_manager.domain.library import DeletePlan
from mlx_manager.errors import CacheFailed, CacheNotWritable, ModelInUse, NotInCache
from mlx_manager.services.hf_cache import HfCache

OTHER = "org/Other"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, FILES)
        hub.commit(REPO, {"README.md": "# Tiny, again"}, keep=True, branch="next")
        hub.add_model(OTHER, {"config.json": "{}", "model.safetensors": b"other" * 100})
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> HfCache:
    return HfCache(tmp_path / "cache")


def root_of(cache: HfCache, repo: str = REPO) -> Path:
    return cache.cache_dir / ("models--" + repo.replace("/", "--"))


def listed(hub: HubServer, cache: HfCache) -> dict[str, int]:
    """Model → size, as the real `hf` finds it."""
    return {name.removeprefix("model/"): one["size"] for name, one in scanned(hub, cache.cache_dir)["models"].items()}


def test_a_whole_model_goes_and_the_other_stays(hub: HubServer, cache: HfCache) -> None:
    hf(hub, cache.cache_dir, "download", REPO)
    hf(hub, cache.cache_dir, "download", OTHER)
    tiny = next(model for model in cache.local() if model.model_id == REPO)
    planned = cache.deletion(REPO)
    assert planned == DeletePlan(REPO, (tiny.revisions[0].commit,), tiny.size_bytes, 0, len(plan_of(hub).blobs), True)
    before = everything(root_of(cache, OTHER))
    assert cache.delete(REPO) == planned
    assert not root_of(cache).exists()
    assert everything(root_of(cache, OTHER)) == before
    assert [model.model_id for model in cache.local()] == [OTHER]
    assert list(listed(hub, cache)) == [OTHER]
    with pytest.raises(NotInCache):
        cache.delete(REPO)


def test_of_two_commits_one_goes_with_what_only_it_has(hub: HubServer, cache: HfCache) -> None:
    first, second = plan_of(hub), plan_of(hub, revision="next")
    for plan in (first, second):
        fetch(hub, cache, plan)
    readme = next(file for file in second.files if file.path == "README.md")
    shared = second.total_bytes - readme.size
    planned = cache.deletion(REPO, "next")
    assert (planned.revisions, planned.freed_bytes, planned.shared_bytes) == ((second.commit,), readme.size, shared)
    assert (planned.files, planned.whole_model, planned.blocked) == (1, False, None)
    assert cache.delete(REPO, second.commit) == planned
    (model,) = cache.local()
    assert [(r.commit, r.refs, r.complete) for r in model.revisions] == [(first.commit, ("main",), True)]
    assert model.size_bytes == first.total_bytes == listed(hub, cache)[REPO]
    hf(hub, cache.cache_dir, "cache", "verify", REPO)
    # The only one that is left is the whole model.
    assert "whole model" in (cache.deletion(REPO, "main").note or "")
    cache.delete(REPO, "main")
    assert everything(cache.cache_dir) == [".locks"]


def test_a_revision_that_is_not_here(hub: HubServer, cache: HfCache) -> None:
    fetch(hub, cache, plan_of(hub))
    for revision in ("next", "f" * 40, "..", ""):
        with pytest.raises(NotInCache, match="not at the revision"):
            cache.delete(REPO, revision)
    assert cache.local()[0].complete


@pytest.mark.parametrize(
    "name", ["", "..", "../outside", "org/../..", "a/b/c", "org/name\0", "ünï/code", "x" * 300, "org/.locks", "a--b/c"]
)
def test_a_name_that_can_be_no_model(cache: HfCache, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    cache.cache_dir.mkdir()
    with pytest.raises(NotInCache):
        cache.delete(name)
    assert (tmp_path / "outside").is_dir()


def test_leftovers_go_and_models_stay(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    fetch(hub, cache, plan)
    assert cache.deletion(REPO, leftovers=True).note
    assert cache.deletion(REPO, leftovers=True).files == 0
    before = everything(root_of(cache))
    blobs = root_of(cache) / "blobs"
    (blobs / f"{'a' * 64}.part").write_bytes(b"x" * 1000)
    (blobs / f"{'a' * 64}.part.journal").write_bytes(b"x" * 10)
    (blobs / f"{'b' * 64}.1234.incomplete").write_bytes(b"x" * 500)
    (blobs / ("c" * 64)).write_bytes(b"x" * 300)
    (root_of(cache) / "trees" / f"{'d' * 40}.json").write_text("{}")
    planned = cache.deletion(REPO, leftovers=True)
    assert (planned.freed_bytes, planned.files, planned.revisions) == (1810, 4, ())
    assert cache.delete(REPO, leftovers=True) == planned
    assert everything(root_of(cache)) == before
    assert cache.local()[0].complete


def test_leftovers_alone_are_the_whole_model(hub: HubServer, cache: HfCache) -> None:
    places = cache.prepare(plan_of(hub))
    places[0].part.write_bytes(b"x" * 100)
    places[1].blob.write_bytes(b"x" * 50)
    assert cache.delete(REPO, leftovers=True).freed_bytes == 150
    assert cache.local() == []
    assert not root_of(cache).exists()


def test_what_another_program_works_on_is_not_deleted(hub: HubServer, cache: HfCache) -> None:
    places = cache.prepare(plan_of(hub))
    fetch(hub, cache, plan_of(hub))
    before = everything(root_of(cache))
    with FileLock(places[0].lock):
        assert "by another program" in (cache.deletion(REPO).blocked or "")
        for leftovers in (False, True):
            with pytest.raises(ModelInUse):
                cache.delete(REPO, leftovers=leftovers)
    assert everything(root_of(cache)) == before
    cache.delete(REPO)
    assert everything(cache.cache_dir) == [".locks"]


def test_links_lead_nobody_out_of_the_cache(hub: HubServer, cache: HfCache, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("somebody's")
    fetch(hub, cache, plan_of(hub))
    snapshot = next((root_of(cache) / "snapshots").iterdir())
    (snapshot / "folder").symlink_to(outside)
    (snapshot / "file").symlink_to(outside / "precious")
    (root_of(cache) / "blobs" / ("e" * 40)).symlink_to(outside / "precious")
    (snapshot / "up").symlink_to("../../../..")
    cache.delete(REPO)
    assert not root_of(cache).exists()
    root_of(cache).symlink_to(outside)
    with pytest.raises(CacheFailed, match="link to another place"):
        cache.delete(REPO)
    root_of(cache).unlink()
    root_of(cache).mkdir()
    (root_of(cache) / "blobs").symlink_to(outside)
    with pytest.raises(CacheFailed, match="link to another place"):
        cache.delete(REPO)
    assert everything(outside) == ["precious"]


def test_what_cannot_be_removed_is_left_whole(hub: HubServer) -> None:
    """A deletion that finds out half-way would leave a broken model."""
    with open_folder() as folder, nobody_special():
        cache = HfCache(folder / "cache")
        fetch(hub, cache, plan_of(hub))
        (root_of(cache) / "blobs").chmod(0o555)
        with pytest.raises(CacheNotWritable):
            cache.delete(REPO)
        assert cache.local()[0].complete
        (root_of(cache) / "blobs").chmod(0o755)
        cache.delete(REPO)
        assert cache.local() == []


def test_half_deleted_and_broken_models_can_be_deleted(hub: HubServer, cache: HfCache) -> None:
    fetch(hub, cache, plan_of(hub))
    snapshots = root_of(cache) / "snapshots"
    (next(snapshots.iterdir()) / "config.json").unlink()
    for blob in (root_of(cache) / "blobs").iterdir():
        blob.unlink()
    cache.delete(REPO)
    # As a deletion that was killed after its first step leaves it: the snapshots are gone, the contents are not.
    fetch(hub, cache, plan_of(hub))
    snapshots.rename(root_of(cache) / ".0123.tmp")
    (model,) = cache.local()
    assert not model.complete
    assert cache.delete(REPO, leftovers=True).freed_bytes == model.size_bytes
    assert not root_of(cache).exists()


def test_a_content_that_models_share_stays_for_the_other(hub: HubServer, cache: HfCache) -> None:
    """The library keeps Xet files in a store for all models; ours must not count or remove them twice."""
    content, store = b"shared" * 1000, cache.cache_dir / "blobs"
    script = """
        import sys
        from pathlib import Path
        from huggingface_hub.utils import _shared_blobs
        cache, blob, xet, content = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
        assert _shared_blobs.try_link_from_shared_store(
            blob_path=str(blob), xet_hash=xet, cache_dir=cache, expected_size=content.stat().st_size)
    """
    for repo in (REPO, OTHER):
        fetch(hub, cache, plan_of(hub, repo))
    xet = "ab" + "0" * 62
    (store / "ab").mkdir(parents=True)
    (store / ".huggingface-shared-blobs").write_text("1\n")
    (store / "ab" / xet).write_bytes(content)
    source = cache.cache_dir.parent / "content"
    source.write_bytes(content)
    for repo in (REPO, OTHER):
        blob = root_of(cache, repo) / "blobs" / ("9" * 64)
        run(
            [sys.executable, "-c", textwrap.dedent(script), str(cache.cache_dir), str(blob), xet, str(source)],
            environment(hub, cache.cache_dir),
        )
        snapshot = next((root_of(cache, repo) / "snapshots").iterdir())
        (snapshot / "extra.safetensors").symlink_to(f"../../blobs/{blob.name}")
    sizes = {model.model_id: model.size_bytes for model in cache.local()}
    assert sizes == listed(hub, cache)
    assert cache.library().size_bytes == sum(sizes.values()) - len(content)
    planned = cache.deletion(REPO)
    assert (planned.freed_bytes, planned.shared_bytes) == (sizes[REPO] - len(content), len(content))
    cache.delete(REPO)
    assert (store / "ab" / xet).read_bytes() == content
    assert cache.deletion(OTHER).shared_bytes == 0
    cache.delete(OTHER)
    assert not (store / "ab" / xet).exists()
    assert cache.library().size_bytes == 0


def test_names_of_all_kinds_are_deleted(hub: HubServer, cache: HfCache) -> None:
    root = root_of(cache, "gpt2")
    snapshot = root / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    for name in ("n" * 250, "‮evil.safetensors", "<script>alert(1)</script>", "a\nb"):
        (snapshot / name.replace("/", "_")).write_bytes(b"x")
    (root / "refs" / "pr").mkdir(parents=True)
    (root / "refs" / "pr" / "1").write_text("1" * 40)
    os.utime(root)
    assert cache.deletion("gpt2").revisions == ("1" * 40,)
    assert cache.delete("gpt2", "pr/1").whole_model
    assert not root.exists()
