"""Our models in the standard cache, as the library's own tools see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import _tree_cache
from huggingface_hub.utils._fixes import WeakFileLock

from fakes.hub_server import HubServer
from hub_cache import FILES, REPO, environment, everything, fetch, hf, nobody_special, open_folder, plan_of, run
from mlx_manager.domain.plan import Plan, PlanFile
from mlx_manager.errors import CacheFailed, CacheNotWritable, DiskFull, UnsafeFileName
from mlx_manager.services.hf_cache import HfCache


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, FILES)
        hub.commit(REPO, {"config.json": "{}", "new.json": "[]"}, branch="refs/pr/1")
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> HfCache:
    return HfCache(tmp_path / "cache")


def root_of(cache: HfCache) -> Path:
    return cache.cache_dir / "models--mlx-community--Tiny-4bit"


# -- the real thing agrees


def test_the_library_and_its_tools_agree(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    snapshot = fetch(hub, cache, plan)
    offline = """
        import json, sys
        from huggingface_hub import scan_cache_dir, snapshot_download, try_to_load_from_cache
        repo, loader = sys.argv[1], ["*.json", "model*.safetensors", "*.txt"]
        scan = scan_cache_dir()
        [found] = scan.repos
        print(json.dumps({
            "snapshots": [snapshot_download(repo), snapshot_download(repo, allow_patterns=loader)],
            "file": try_to_load_from_cache(repo, "sub dir/ünïcode #1.txt"),
            "warnings": [str(w) for w in scan.warnings],
            "incomplete": [str(f) for f in scan.incomplete_files],
            "refs": sorted(found.refs), "files": found.nb_files, "size": found.size_on_disk,
        }))
    """
    env = environment(hub, cache.cache_dir, HF_HUB_OFFLINE="1")
    seen = json.loads(run([sys.executable, "-c", textwrap.dedent(offline), REPO], env))
    assert seen == {
        "snapshots": [str(snapshot)] * 2,
        "file": str(snapshot / "sub dir/ünïcode #1.txt"),
        "warnings": [],
        "incomplete": [],
        "refs": ["main"],
        "files": len(plan.blobs),
        "size": plan.total_bytes,
    }
    assert f"model/{REPO}" in hf(hub, cache.cache_dir, "cache", "ls")
    verified = hf(hub, cache.cache_dir, "cache", "verify", REPO, "--fail-on-missing-files", "--fail-on-extra-files")
    assert str(len(FILES)) in verified


def test_hf_download_finds_all_here(hub: HubServer, cache: HfCache) -> None:
    snapshot = fetch(hub, cache, plan_of(hub))
    before = everything(root_of(cache))
    hub.clear_log()
    assert hf(hub, cache.cache_dir, "download", REPO, "--quiet").strip() == str(snapshot)
    # Not one of the questions that it asks for each file it is not sure of.
    assert [record.route for record in hub.requests() if record.repo == REPO] == ["info"]
    assert everything(root_of(cache)) == before


def test_the_listing_is_the_library_s_own(hub: HubServer, cache: HfCache, tmp_path: Path) -> None:
    """The canary for its format: written by its private writer and by ours, one and the same."""
    plan = plan_of(hub)
    xet = replace(plan.tree[2], xet_hash="ab" * 32)
    plan = replace(plan, tree=(*plan.tree[:2], xet, *plan.tree[3:]))
    cache.prepare(plan)
    entries = {
        file.path: _tree_cache.TreeCacheEntry(
            size=file.size,
            blob_id=file.blob_id,
            lfs_sha256=file.sha256,
            lfs_size=file.size if file.sha256 else None,
            xet_hash=file.xet_hash,
        )
        for file in plan.tree
    }
    _tree_cache.write_tree_cache(str(tmp_path / "theirs"), plan.commit, entries)
    theirs = tmp_path / "theirs" / "trees" / f"{plan.commit}.json"
    ours = root_of(cache) / "trees" / f"{plan.commit}.json"
    assert ours.read_text() == theirs.read_text()
    assert ours.stat().st_mode & 0o777 == 0o666 & ~_umask()


def test_an_interrupted_model_is_none_to_the_library(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    snapshot = fetch(hub, cache, plan)
    (snapshot / "config.json").unlink()
    program = "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], local_files_only=True)"
    env = environment(hub, cache.cache_dir)
    done = subprocess.run([sys.executable, "-c", program, REPO], env=env, capture_output=True, text=True, check=False)
    assert "IncompleteSnapshotError" in done.stderr


def test_places_are_those_of_the_library(hub: HubServer, cache: HfCache) -> None:
    places = cache.prepare(plan_of(hub))
    assert [place.file.etag for place in places] == [file.etag for file in plan_of(hub).blobs]
    for place in places:
        etag = place.file.etag
        assert place.blob == root_of(cache) / "blobs" / etag
        assert place.part == root_of(cache) / "blobs" / f"{etag}.part"
        assert place.lock == cache.cache_dir / ".locks" / root_of(cache).name / f"{etag}.lock"
        # The library's lock and ours exclude each other.
        with WeakFileLock(place.lock), pytest.raises(TimeoutError):
            FileLock(place.lock).acquire(timeout=0)
    # What is only prepared is no model yet, and `hf cache ls` does not complain of it.
    assert "warning" not in hf(hub, cache.cache_dir, "cache", "ls").lower()
    assert not (root_of(cache) / "refs").exists()


# -- links


def test_links_are_relative_and_a_second_time_changes_nothing(hub: HubServer, cache: HfCache, tmp_path: Path) -> None:
    plan = plan_of(hub)
    snapshot = fetch(hub, cache, plan)
    assert (snapshot / "config.json").readlink() == Path("../../blobs", hub.file(REPO, "config.json").etag)
    assert (snapshot / "twin/config.json").readlink() == Path("../../../blobs", hub.file(REPO, "config.json").etag)
    before = {path: path.lstat().st_mtime_ns for path in cache.cache_dir.rglob("*")}
    assert cache.link(plan) == snapshot
    assert {path: path.lstat().st_mtime_ns for path in cache.cache_dir.rglob("*")} == before
    moved = tmp_path / "elsewhere"
    cache.cache_dir.rename(moved)
    assert (moved / snapshot.relative_to(cache.cache_dir) / "empty.txt").read_bytes() == b""


def test_what_is_wrong_in_a_snapshot_is_replaced_and_never_written_through(
    hub: HubServer, cache: HfCache, tmp_path: Path
) -> None:
    plan = plan_of(hub)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "config.json").write_text("somebody else's")
    snapshot = root_of(cache) / "snapshots" / plan.commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to(outside / "config.json")  # a link elsewhere
    (snapshot / "README.md").symlink_to("../../blobs/" + "0" * 40)  # a broken link
    (snapshot / "model.safetensors").write_text("an old copy")
    (snapshot / "twin").symlink_to(outside)  # a link where a folder belongs
    (snapshot / "sub dir").write_text("a file where a folder belongs")
    (snapshot / "empty.txt").mkdir()
    (root_of(cache) / "refs").mkdir()
    (root_of(cache) / "refs" / "main").symlink_to(outside / "config.json")

    assert fetch(hub, cache, plan) == snapshot
    for path in FILES:
        assert (snapshot / path).read_bytes() == hub.content(REPO, path)
    assert (root_of(cache) / "refs" / "main").read_text() == plan.commit
    assert everything(outside) == ["config.json"]
    assert (outside / "config.json").read_text() == "somebody else's"
    assert not list(root_of(cache).glob(".*"))


def test_refs_of_branches_pull_requests_and_commits(hub: HubServer, cache: HfCache) -> None:
    fetch(hub, cache, plan_of(hub))
    pull = plan_of(hub, revision="refs/pr/1")
    fetch(hub, cache, pull)
    assert (root_of(cache) / "refs/refs/pr/1").read_text() == pull.commit
    fetch(hub, cache, replace(pull, revision=pull.commit))
    files = [path for path in (root_of(cache) / "refs").rglob("*") if path.is_file()]
    assert len(files) == 2
    # A branch that moved on.
    fetch(hub, cache, replace(pull, revision="main"))
    assert (root_of(cache) / "refs/main").read_text() == pull.commit


def test_a_blob_that_is_not_there_is_not_linked(hub: HubServer, cache: HfCache) -> None:
    plan = plan_of(hub)
    for place in cache.prepare(plan):
        place.blob.write_bytes(b"x" * place.file.size)
    place.blob.write_bytes(b"x" * (place.file.size + 1))
    with pytest.raises(CacheFailed, match=r"wrong size"):
        cache.link(plan)
    assert not (root_of(cache) / "refs").exists()


def test_a_disk_without_symbolic_links(hub: HubServer, tmp_path: Path) -> None:
    cache = HfCache(tmp_path / "cache", symlinks=False)
    plan = plan_of(hub)
    places = cache.prepare(plan)
    snapshot = root_of(cache) / "snapshots" / plan.commit
    assert {place.blob.parent for place in places} == {root_of(cache) / "blobs"} and not snapshot.exists()
    assert fetch(hub, cache, plan) == snapshot == cache.link(plan)
    for path in FILES:
        assert (snapshot / path).read_bytes() == hub.content(REPO, path)
        assert not (snapshot / path).is_symlink()
    assert [model.complete for model in cache.local()] == [True]
    assert cache.local()[0].size_bytes == sum(file.size for file in plan.files)
    hub.clear_log()
    assert hf(hub, cache.cache_dir, "download", REPO, "--quiet", HF_HUB_DISABLE_SYMLINKS="1").strip() == str(snapshot)
    assert hub.bytes_sent() == 0


# -- a cache that cannot be written


def test_a_file_where_a_folder_should_be(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(CacheNotWritable, match=f"{tmp_path / 'cache'}"):
        HfCache(tmp_path / "cache").prepare(plan_of(hub))


@pytest.mark.parametrize("part", [".", "models--mlx-community--Tiny-4bit/blobs", ".locks", "refs", "snapshots"])
def test_folders_that_are_somebody_else_s_are_named_before_the_first_byte(hub: HubServer, part: str) -> None:
    with open_folder() as folder, nobody_special():
        cache, plan = HfCache(folder / "cache"), plan_of(hub)
        places = {"refs": root_of(cache) / "refs", "snapshots": root_of(cache) / "snapshots" / plan.commit}
        barred = places.get(part, cache.cache_dir / part)
        barred.mkdir(parents=True)
        barred.chmod(0o555)
        with pytest.raises(CacheNotWritable, match=f"{barred}") as caught:
            cache.prepare(plan)
        assert "HF_HUB_CACHE" in caught.value.advice
        barred.chmod(0o755)
        assert cache.prepare(plan)


def test_a_disk_that_is_read_only(hub: HubServer, cache: HfCache) -> None:
    cache.cache_dir.mkdir()
    try:
        subprocess.run(["chattr", "+i", cache.cache_dir], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("this file system or user cannot make a folder immutable")
    try:
        with pytest.raises(CacheNotWritable):
            cache.prepare(plan_of(hub))
    finally:
        subprocess.run(["chattr", "-i", cache.cache_dir], check=True)


def test_names_that_this_disk_cannot_tell_apart(hub: HubServer, tmp_path: Path) -> None:
    hub.add_model("org/Cases", {"config.json": "{}", "Config.json": "[]"})
    plan = plan_of(hub, "org/Cases")
    with pytest.raises(UnsafeFileName, match=r"config\.json"):
        HfCache(tmp_path / "mac", folds_case=True).prepare(plan)
    (tmp_path / "probe").touch()
    folds = (tmp_path / "PROBE").exists()
    try:
        HfCache(tmp_path / "here").prepare(plan)
    except UnsafeFileName:
        assert folds
    else:
        assert not folds


@pytest.mark.parametrize(
    "change",
    [
        {"commit": "../../x"},
        {"revision": "../../x"},
        {"revision": "/etc/x"},
        {"tree": (PlanFile("a", 1, "../" + "0" * 37),)},
        {"tree": (PlanFile("../a", 1, "0" * 40),)},
    ],
)
def test_a_plan_that_would_leave_the_cache(hub: HubServer, cache: HfCache, change: dict[str, object]) -> None:
    plan: Plan = replace(plan_of(hub), **change)  # type: ignore[arg-type]
    for call in (cache.prepare, cache.link, cache.discard):
        with pytest.raises(UnsafeFileName):
            call(plan)
    assert not cache.cache_dir.exists()


def test_free_bytes_of_a_cache_that_is_not_there_yet(cache: HfCache) -> None:
    stat = os.statvfs(cache.cache_dir.parent)
    assert abs(cache.free_bytes() - stat.f_bavail * stat.f_frsize) < 1 << 30


def test_a_file_in_the_place_of_the_cache_has_no_free_bytes(tmp_path: Path) -> None:
    """The server told the room of its disk, as if all were well."""
    (tmp_path / "hub").write_text("")
    for cache in (HfCache(tmp_path / "hub"), HfCache(tmp_path / "hub" / "below")):
        with pytest.raises(CacheNotWritable, match=str(tmp_path / "hub")):
            cache.free_bytes()


def test_a_full_disk_is_called_full(hub: HubServer, tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        with pytest.raises(OSError, match="No space"):
            (tmp_path / "full").write_bytes(bytes(1 << 20))
        cache = HfCache(tmp_path / "cache")
        with pytest.raises(DiskFull, match=str(tmp_path)):
            cache.prepare(plan_of(hub))
        assert cache.free_bytes() == 0
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
