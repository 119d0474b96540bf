"""What the cache holds, and what a cancelled download leaves in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fakes.hub_server import Blob, Fault, HubServer
from hub_cache import (
    FILES,
    REPO,
    SHARDS,
    environment,
    everything,
    fetch,
    hf,
    nobody_special,
    only,
    open_folder,
    plan_of,
    root_of,
    run,
    scanned,
)
from mlx_manager.errors import CacheNotWritable
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


# -- the library


def test_a_cache_of_the_real_hf_download(hub: HubServer, cache: HfCache) -> None:
    hf(hub, cache.cache_dir, "download", REPO)
    hf(hub, cache.cache_dir, "download", "org/Shards", "--include", "*.json", "--include", "*.safetensors")
    tiny, shards = cache.local()
    plan = plan_of(hub)
    assert (tiny.model_id, tiny.commit, tiny.complete) == (REPO, plan.commit, True)
    assert (tiny.size_bytes, tiny.partial_bytes) == (plan.total_bytes, 0)
    [revision] = tiny.revisions
    assert (revision.refs, revision.files, revision.files_total) == (("main",), len(FILES), len(FILES))
    assert revision.size_bytes == plan.total_bytes
    # mlx-lm leaves the README out too: a model all the same.
    assert (shards.model_id, shards.complete, shards.revisions[0].files) == ("org/Shards", True, 4)
    assert time.time() - tiny.modified_at < 600


def test_an_interrupted_hf_download_is_no_model(hub: HubServer, cache: HfCache) -> None:
    hf(hub, cache.cache_dir, "download", "org/Shards", "config.json", "model-00001-of-00002.safetensors")
    assert not only(cache).complete
    hf(hub, cache.cache_dir, "download", "org/Shards", "--exclude", "*2.safetensors")
    shards = only(cache)
    assert (shards.complete, shards.revisions[0].files, shards.revisions[0].files_total) == (False, 4, 5)
    hf(hub, cache.cache_dir, "download", "org/Shards")
    assert only(cache).complete


def test_a_model_while_it_is_fetched(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub, "org/Shards")
    places = cache.prepare(plan)
    assert cache.local() == []
    for place in places[:2]:
        place.blob.write_bytes(b"x" * place.file.size)
    done = sum(place.file.size for place in places[:2])
    places[2].part.write_bytes(b"y" * 4000)
    places[2].part.with_name(places[2].part.name + ".journal.new").write_bytes(b"y" * 96)
    model = only(cache)
    assert (model.complete, model.commit, model.partial_bytes) == (False, plan.commit, 4096)
    assert model.size_bytes == done + 4096
    assert (model.revisions[0].files, model.revisions[0].files_total) == (2, 5)


def test_a_preallocated_part_counts_what_it_takes(hub: HubServer, cache: HfCache) -> None:
    place = cache.prepare(plan_of(hub, "org/Shards"))[2]
    with place.part.open("wb") as file:
        file.truncate(1 << 40)
    assert only(cache).partial_bytes < 1 << 20


def test_what_two_commits_share_counts_once(hub: HubServer, cache: HfCache) -> None:
    first = plan_of(hub, "org/Shards")
    hub.commit("org/Shards", {"extra.json": "{ }"}, keep=True, branch="next")
    second = plan_of(hub, "org/Shards", "next")
    for plan, age in ((first, 100), (second, 0)):
        snapshot = fetch(hub, cache, plan)
        os.utime(snapshot, (time.time() - age,) * 2)
    model = only(cache)
    assert [revision.commit for revision in model.revisions] == [second.commit, first.commit]
    assert [revision.refs for revision in model.revisions] == [("next",), ("main",)]
    assert model.size_bytes == second.total_bytes
    assert [revision.size_bytes for revision in model.revisions] == [second.total_bytes, first.total_bytes]
    # The newest that is whole is the one to speak of.
    (root_of(cache) / "snapshots" / second.commit / "config.json").unlink()
    assert (only(cache).complete, only(cache).commit) == (True, first.commit)


def test_files_of_a_wrong_size_and_broken_links_are_missing(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub, "org/Shards")
    snapshot = fetch(hub, cache, plan)
    assert only(cache).complete
    blob = snapshot / "model-00001-of-00002.safetensors"
    blob.resolve().write_bytes(b"short")
    assert not only(cache).complete
    blob.resolve().unlink()
    assert not only(cache).complete
    assert only(cache).revisions[0].files == 4


def test_a_cache_of_older_tools_has_no_listing(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub, "org/Shards")
    snapshot = fetch(hub, cache, plan)
    tree = root_of(cache) / "trees" / f"{plan.commit}.json"
    for nonsense in ("", "[]", "[" * 100_000, '{"format_version": 1, "files": {"a": 3}}', '{"format_version": 2}'):
        tree.write_text(nonsense)
        revision = only(cache).revisions[0]
        assert (revision.complete, revision.files, revision.files_total) == (True, 5, None)
    # A shard that the index names is missing without a trace.
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    assert not only(cache).complete
    cache.link(plan)
    tree.unlink()
    # An orphan of a file that came in the end says nothing; one of a file that did not says all.
    blobs = root_of(cache) / "blobs"
    (blobs / f"{plan.files[0].etag}.4f2a.incomplete").write_bytes(b"x")
    assert only(cache).complete
    (blobs / f"{'a' * 64}.incomplete").write_bytes(b"x" * 100)
    assert (only(cache).complete, only(cache).partial_bytes) == (False, 101)


def test_a_lone_config_is_no_model(cache: HfCache) -> None:
    snapshot = root_of(cache, "org/Lone") / "snapshots" / ("1" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert not only(cache).complete
    (snapshot / "model.safetensors").write_bytes(b"x")
    assert only(cache).complete


def test_foreign_things_are_passed_over(hub: HubServer, cache: HfCache, caplog: pytest.LogCaptureFixture) -> None:
    assert cache.local() == []
    fetch(hub, cache, plan_of(hub, "org/Shards"))
    (root_of(cache, "gpt2") / "blobs").mkdir(parents=True)
    (root_of(cache, "gpt2") / "blobs" / ("0" * 40)).write_bytes(b"old")
    for name in ("models--", "models--a--b--c", "models--..--x", "models--evil\x1b[31m--x", "models--empty--x"):
        (cache.cache_dir / name / "snapshots").mkdir(parents=True)
    for name in ("datasets--org--Data", "blobs", "version.txt.d"):
        (cache.cache_dir / name).mkdir()
    (cache.cache_dir / "models--org--file").write_text("a file")
    (cache.cache_dir / "models--org--broken").symlink_to("nowhere")
    root = root_of(cache)
    (root / "refs" / "nonsense").write_bytes(b"\xff\xfe" * 40)
    (root / "refs" / "broken").symlink_to("nowhere")
    (root / "snapshots" / "not a commit").mkdir()
    (root / "snapshots" / ".DS_Store").write_text("")
    (root / "snapshots" / ("2" * 40)).mkdir()
    (root / "snapshots" / ("2" * 40) / "round").symlink_to(root)
    (root / "blobs" / "broken").symlink_to("nowhere")
    assert [model.model_id for model in cache.local()] == ["gpt2", "org/Shards"]
    shards = cache.local()[1]
    assert shards.complete and len(shards.revisions) == 2
    assert [revision.complete for revision in shards.revisions] == [False, True]
    assert "cannot be read" not in caplog.text


def test_what_cannot_be_read_is_told_and_passed_over(hub: HubServer, caplog: pytest.LogCaptureFixture) -> None:
    with open_folder() as folder, nobody_special():
        cache = HfCache(folder / "cache")
        fetch(hub, cache, plan_of(hub))
        fetch(hub, cache, plan_of(hub, "org/Shards"))
        root_of(cache).chmod(0)
        names = [model.model_id for model in cache.local()]
        root_of(cache).chmod(0o755)
        cache.cache_dir.chmod(0)
        with pytest.raises(CacheNotWritable, match="Permission denied"):
            cache.local()
        cache.cache_dir.chmod(0o755)
    assert names == [REPO]
    assert "org/Shards in the cache cannot be read: Permission denied" in caplog.text


def test_what_is_missing_is_named(hub: HubServer, cache: HfCache) -> None:
    hf(hub, cache.cache_dir, "download", "org/Shards", "--exclude", "*-00002-of-*", "--exclude", "README.md")
    revision = only(cache).revisions[0]
    assert revision.missing == ("README.md", "model-00002-of-00002.safetensors")
    assert (revision.missing_files, revision.missing_bytes) == (2, 7000 + len(SHARDS["README.md"]))


def counted(cache: HfCache) -> dict[str, Any]:
    """As `scanned` tells of it: all but what is not whole, of which `hf` does not speak."""
    library = cache.library()
    return {
        "total": library.size_bytes - sum(model.partial_bytes for model in library.models),
        "models": {
            model.repo_id: {
                "size": model.size_bytes - model.partial_bytes,
                "revisions": sorted([r.commit, r.size_bytes, r.files, list(r.refs)] for r in model.revisions),
                "used_at": model.last_used_at,
            }
            for model in library.models
        },
    }


def test_counts_and_sizes_are_those_of_hf_cache_ls(hub: HubServer, cache: HfCache) -> None:
    for repo in (REPO, "org/Shards"):
        hf(hub, cache.cache_dir, "download", repo)
    more = hub.commit("org/Shards", {"more.json": "{ }"}, keep=True, branch="more")
    hf(hub, cache.cache_dir, "download", "org/Shards", "--revision", "more")
    assert scanned(hub, cache.cache_dir) == counted(cache)
    # A commit that no branch stands for here, and a branch that stands for one that is here already.
    hub.commit("org/Shards", {"README.md": "# New"}, keep=True, branch="more")
    newest = hub.repo("org/Shards").commit("more").sha
    hf(hub, cache.cache_dir, "download", "org/Shards", "--revision", newest)
    (root_of(cache) / "refs" / "stable").write_text(more)
    # What else people keep in such a cache, and what their systems leave in it.
    for other in ("datasets--org--Data", "spaces--org--App"):
        shutil.copytree(root_of(cache), cache.cache_dir / other, symlinks=True)
    (cache.cache_dir / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    (root_of(cache) / "snapshots" / ".DS_Store").write_bytes(b"x" * 6148)
    told, ours = scanned(hub, cache.cache_dir), counted(cache)
    assert told["models"].pop("dataset/org/Data")["size"] == told["models"].pop("space/org/App")["size"]
    assert told["models"] == ours["models"]
    assert told["total"] == ours["total"] + 2 * ours["models"]["model/org/Shards"]["size"]
    assert [len(model["revisions"]) for model in ours["models"].values()] == [1, 3]


def test_a_cache_that_nobody_may_write_is_read_as_hf_reads_it(hub: HubServer) -> None:
    with open_folder() as folder:
        cache = HfCache(folder / "cache", memory=folder / "home" / "library.json")
        for repo in (REPO, "org/Shards"):
            hf(hub, cache.cache_dir, "download", repo)
        folders = [cache.cache_dir, *(path for path in cache.cache_dir.rglob("*") if path.is_dir())]
        before = everything(cache.cache_dir)
        for one in folders:
            one.chmod(0o555)
        try:
            told = scanned(hub, cache.cache_dir)
            with nobody_special():
                with pytest.raises(PermissionError):
                    (root_of(cache) / "new").touch()
                assert counted(cache) == told
                assert [model.complete for model in cache.local()] == [True, True]
        finally:
            for one in folders:
                one.chmod(0o755)
        assert everything(cache.cache_dir) == before


def test_a_cache_that_is_not_there_is_empty_and_is_not_made(hub: HubServer, cache: HfCache) -> None:
    """`hf` tells of none too, but as an error."""
    told = run([str(Path(sys.executable).with_name("hf")), "cache", "ls"], environment(hub, cache.cache_dir), status=1)
    assert told == ""
    assert counted(cache) == {"total": 0, "models": {}}
    assert not cache.cache_dir.exists()
    cache.cache_dir.mkdir()
    assert scanned(hub, cache.cache_dir) == counted(cache)


def until(seen: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 20
    while not seen():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


def test_what_hf_left_half_done_is_no_more_here_than_there(hub: HubServer, cache: HfCache) -> None:
    hub.add_model("org/Half", {"config.json": "{}", "model.safetensors": Blob(4 << 20)})
    held = hub.fault(Fault.stall(after=1 << 20), where="cdn", repo="org/Half", path="model.safetensors")
    command = [str(Path(sys.executable).with_name("hf")), "download", "org/Half"]
    with subprocess.Popen(command, env=environment(hub, cache.cache_dir), stderr=subprocess.DEVNULL) as child:
        try:
            until(lambda: held.hits > 0 and any((root_of(cache, "org/Half") / "blobs").glob("*.incomplete")))
            until(lambda: any((root_of(cache, "org/Half") / "snapshots").glob("*/config.json")))
        finally:
            child.kill()
    held.clear()
    model = only(cache)
    assert not model.complete
    assert scanned(hub, cache.cache_dir) == counted(cache)
    # The next one leaves the orphan of the first behind: the model is whole all the same.
    hf(hub, cache.cache_dir, "download", "org/Half")
    assert scanned(hub, cache.cache_dir) == counted(cache)
    assert only(cache).complete


# -- what is discarded


def test_a_cancelled_download_leaves_nothing(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub, "org/Shards")
    places = cache.prepare(plan)
    places[0].part.write_bytes(b"x" * 1000)
    places[0].part.with_name(places[0].part.name + ".journal").write_bytes(b"x" * 10)
    # A disk that ran full while the journal was written anew: it stayed for ever.
    places[0].part.with_name(places[0].part.name + ".journal.new").write_bytes(b"x" * 3)
    places[0].part.with_name(places[0].part.name + ".xet").write_bytes(b"x" * 20)
    places[0].part.with_name(places[0].part.name + ".xet.journal").write_bytes(b"x" * 5)
    places[1].blob.write_bytes(b"x" * places[1].file.size)
    with FileLock(places[1].lock):
        pass
    assert cache.discard(plan) == 1038 + places[1].file.size
    assert everything(cache.cache_dir) == [".locks"]
    assert cache.discard(plan) == 0
    assert cache.discard(plan_of(hub)) == 0


def test_what_a_snapshot_uses_is_kept(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub, "org/Shards")
    fetch(hub, cache, plan)
    before = everything(root_of(cache))
    assert cache.discard(plan) == 0
    assert everything(root_of(cache)) == before
    # A newer commit, cancelled half-way: what it shares with the older one stays.
    newer = replace(plan, commit="f" * 40, files=(*plan.files[:2], replace(plan.files[2], sha256="f" * 64)))
    places = cache.prepare(newer)
    places[2].part.write_bytes(b"x" * 500)
    assert cache.discard(newer) == 500
    assert everything(root_of(cache)) == before
    assert only(cache).complete


def test_what_others_want_or_work_on_is_kept(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub, "org/Shards")
    places = cache.prepare(plan)
    for place in places[:3]:
        place.part.write_bytes(b"x" * 100)
    places[3].blob.write_bytes(b"x" * places[3].file.size)
    with FileLock(places[0].lock):
        assert cache.discard(plan, keep={places[1].file.etag}) == 100
    assert places[0].part.exists() and places[1].part.exists() and not places[2].part.exists()
    assert places[3].blob.exists()
    # Somebody works on another commit of the same model, and may just have finished what they share.
    with FileLock(places[0].lock.with_name("e" * 64 + ".lock")):
        assert cache.discard(plan) == 200
    assert places[3].blob.exists()
    assert cache.discard(plan) == places[3].file.size
    assert not root_of(cache).exists()


def test_discarding_follows_no_link(hub: HubServer, cache: HfCache, tmp_path: Path) -> None:
    plan = plan_of(hub, "org/Shards")
    places = cache.prepare(plan)
    outside = tmp_path / "outside"
    outside.write_bytes(b"somebody else's")
    places[0].part.symlink_to(outside)
    places[1].blob.symlink_to(outside)
    cache.discard(plan)
    assert outside.read_bytes() == b"somebody else's"
    assert not root_of(cache).exists()
