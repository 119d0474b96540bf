"""The test hub speaks the Hub's protocol: the real clients say so, and plain HTTP shows the details."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx2
import pytest
from huggingface_hub import HfApi, close_session, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from fakes.hub_client import fetch, follow
from fakes.hub_server import TOKEN, Blob, Disk, HubServer, Source, mlx_model_files

REPO = "mlx-community/Tiny-4bit"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, mlx_model_files(300_000), tags=["mlx", "4-bit"], downloads=7)
        yield hub


@pytest.fixture
def api(hub: HubServer) -> Iterator[HfApi]:
    # Our own client sets another one for the whole process; here the library is to be as it comes.
    set_client_factory(lambda: httpx2.Client(follow_redirects=True, timeout=10))
    yield HfApi(endpoint=hub.url, token=False)
    close_session()


def resolve(hub: HubServer, path: str, *, repo: str = REPO, revision: str = "main") -> str:
    return f"{hub.url}/{repo}/resolve/{revision}/{quote(path)}"


def get_json(hub: HubServer, path: str, token: str | None = None) -> Any:
    return json.loads(fetch(hub.url + path, token=token).body)


# -- the real clients


def hf(hub: HubServer, home: Path, *arguments: str) -> str:
    """Run the real `hf` with a home of its own and nothing else of this machine's."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    command = [str(Path(sys.executable).with_name("hf")), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("resolve_cache", [False, True])
def test_the_real_hf_downloads_verifies_and_lists(hub: HubServer, tmp_path: Path, resolve_cache: bool) -> None:
    hub.resolve_cache = resolve_cache
    files = {**mlx_model_files(20 << 20, shards=2), "sub dir/ünïcode #1.txt": "text", "empty.txt": b""}
    commit = hub.add_model("org/Two-Shards", files)

    hf(hub, tmp_path, "download", "org/Two-Shards")

    snapshot = tmp_path / "hf" / "hub" / "models--org--Two-Shards" / "snapshots" / commit
    assert {path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()} == set(files)
    for path in files:
        assert (snapshot / path).read_bytes() == hub.content("org/Two-Shards", path)
        assert (snapshot / path).resolve().name == hub.file("org/Two-Shards", path).etag
    if not resolve_cache:
        hf(hub, tmp_path, "cache", "verify", "org/Two-Shards")
        assert "org/Two-Shards" in hf(hub, tmp_path, "cache", "ls")
    assert hub.requests("cdn")
    assert all(request.authorization is None for request in hub.requests("cdn"))


def test_the_real_client_reads_listings(hub: HubServer, api: HfApi) -> None:
    files: dict[str, Source] = {f"folder-{n % 3}/{n:03}.txt": f"{n}" for n in range(50)}
    commit = hub.add_model("org/many", {**files, "big.gguf": Blob(100, seed=3)}, pipeline_tag="text-generation")
    hub.page_size = 7

    info = api.model_info("org/many", files_metadata=True)
    assert (info.id, info.sha, info.gated, info.private) == ("org/many", commit, False, False)
    lfs = next(sibling for sibling in info.siblings or [] if sibling.rfilename == "big.gguf").lfs
    assert lfs is not None
    assert (lfs.size, lfs.sha256) == (100, hashlib.sha256(Blob(100, seed=3).slice(0, 100)).hexdigest())

    tree = list(api.list_repo_tree("org/many", recursive=True, revision=commit))
    assert {entry.path for entry in tree} == {*files, "big.gguf", "folder-0", "folder-1", "folder-2"}
    assert len(hub.requests("tree")) == 8
    one = next(entry for entry in tree if entry.path == "folder-1/001.txt")
    assert getattr(one, "blob_id", None) == hashlib.sha1(b"blob 1\x001").hexdigest()
    assert len(list(api.list_repo_tree("org/many", "folder-1", expand=True))) == 17
    assert [entry.path for entry in api.get_paths_info("org/many", ["big.gguf", "nothing"])] == ["big.gguf"]
    assert [ref.target_commit for ref in api.list_repo_refs("org/many").branches] == [commit]


def test_the_real_client_searches(hub: HubServer, api: HfApi) -> None:
    for n in range(5):
        hub.add_model(f"mlx-community/Qwen-{n}", {"config.json": "{}"}, downloads=n, likes=9 - n, tags=["mlx", f"t{n}"])
    hub.add_model("other/qwen", {"a": "b"}, downloads=100, tags=[])
    hub.add_model("mlx-community/qwen-hidden", {"a": "b"}, private=True)
    hub.page_size = 2

    def found(**query: Any) -> list[str]:
        return [model.id.rpartition("-")[2] for model in api.list_models(**query)]

    assert found(search="qwen", author="mlx-community", sort="downloads") == ["4", "3", "2", "1", "0"]
    assert found(search="QWEN", filter=["mlx"], sort="likes", limit=3) == ["0", "1", "2"]
    assert found(filter=["mlx", "t3"]) == ["3"]
    assert found(search="no such thing") == []
    assert [model.sha for model in api.list_models(author="other", full=True)] == [hub.repo("other/qwen").head.sha]


def test_the_real_client_sees_the_hubs_errors(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    hub.add_model("org/gated", {"config.json": "{}"}, gated=True)
    hub.add_model("org/private", {"config.json": "{}"}, private=True)

    def download(repo: str, path: str = "config.json", revision: str = "main", token: str | bool = False) -> str:
        return api.hf_hub_download(repo, path, revision=revision, token=token, cache_dir=tmp_path)

    # Whoever is not on its list can see what a gated repo holds, and not have it.
    assert api.model_info("org/gated").gated == "manual"
    for token, status in ((False, 401), (TOKEN, 403)):
        with pytest.raises(GatedRepoError) as gated:
            download("org/gated", token=token)
        assert gated.value.response.status_code == status
    hub.grant("org/gated")
    assert Path(download("org/gated", token=TOKEN)).read_text() == "{}"

    for repo, asked, status in (("org/none", False, 401), ("org/none", TOKEN, 404), ("org/private", False, 401)):
        with pytest.raises(RepositoryNotFoundError) as missing:
            api.model_info(repo, token=asked)
        assert missing.value.response.status_code == status
        assert not isinstance(missing.value, GatedRepoError)
    assert api.model_info("org/private", token=TOKEN).private is True

    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="no/such")
    with pytest.raises(RevisionNotFoundError):
        download(REPO, revision="nope")
    with pytest.raises(EntryNotFoundError):
        download(REPO, "no.such.file")
    with pytest.raises(HfHubHTTPError, match="Invalid credentials"):
        api.model_info(REPO, token="hf_wrong")
    assert api.whoami(token=TOKEN)["name"] == "tester"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami(token="hf_wrong")


def test_the_real_client_follows_a_renamed_repo(hub: HubServer, api: HfApi, tmp_path: Path) -> None:
    hub.rename(REPO, "mlx-community/Renamed")
    assert api.model_info(REPO).id == "mlx-community/Renamed"
    path = api.hf_hub_download(REPO, WEIGHTS, cache_dir=tmp_path)
    assert Path(path).read_bytes() == hub.content("mlx-community/Renamed", WEIGHTS)
    hub.delete("mlx-community/Renamed")
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(REPO)


# -- files


def test_resolve_answers_small_files_itself_and_sends_large_ones_to_the_cdn(hub: HubServer) -> None:
    commit, weights = hub.repo(REPO).head.sha, hub.file(REPO, WEIGHTS)
    small = fetch(resolve(hub, "config.json"))
    assert (small.status, small.header("ETag")) == (200, f'"{hub.file(REPO, "config.json").content.git_sha1}"')
    assert small.header("X-Repo-Commit") == commit
    assert small.header("X-Linked-ETag") is None
    assert json.loads(small.body)["quantization"]["bits"] == 4

    for large in (fetch(resolve(hub, WEIGHTS), method="HEAD"), fetch(resolve(hub, WEIGHTS))):
        location = large.header("Location") or ""
        assert (large.status, large.header("X-Repo-Commit")) == (302, commit)
        assert large.header("X-Linked-Size") == str(weights.content.size)
        assert large.header("X-Linked-ETag") == f'"{weights.content.sha256}"'
        assert urlsplit(location).netloc == urlsplit(hub.cdn_url).netloc
        assert {"Expires", "Signature"} <= set(parse_qs(urlsplit(location).query))
        assert fetch(location).body == hub.content(REPO, WEIGHTS)


@pytest.mark.parametrize(
    ("asked", "status", "start", "stop"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=100-199", 206, 100, 200),
        ("bytes=299000-", 206, 299_000, None),
        ("bytes=-50", 206, -50, None),
        ("bytes=299000-999999999", 206, 299_000, None),
        ("bytes=999999999-", 416, 0, 0),
        ("bytes=0-1,5-6", 200, 0, None),
        ("lines=1-2", 200, 0, None),
    ],
)
@pytest.mark.parametrize("path", [WEIGHTS, "notes.txt"])
def test_ranges(hub: HubServer, path: str, asked: str, status: int, start: int, stop: int | None) -> None:
    hub.commit(REPO, {"notes.txt": Blob(300_500, seed=9)}, keep=True)
    data = hub.content(REPO, path)
    answer = follow(resolve(hub, path), range=asked)
    assert answer.status == status
    if status == 416:
        assert answer.header("Content-Range") == f"bytes */{len(data)}"
        return
    assert answer.body == data[start:stop]
    first = len(data) + start if start < 0 else start
    expected = f"bytes {first}-{first + len(answer.body) - 1}/{len(data)}" if status == 206 else None
    assert answer.header("Content-Range") == expected


def test_if_range_asks_for_all_when_the_file_is_another(hub: HubServer) -> None:
    etag = fetch(resolve(hub, "config.json")).header("ETag")
    assert fetch(resolve(hub, "config.json"), range="bytes=1-2", headers={"If-Range": etag or ""}).status == 206
    assert fetch(resolve(hub, "config.json"), range="bytes=1-2", headers={"If-Range": '"other"'}).status == 200


def test_signed_urls_expire_and_do_not_bend(hub: HubServer) -> None:
    location = fetch(resolve(hub, WEIGHTS)).header("Location") or ""
    assert fetch(location.replace("Signature=", "Signature=0")).status == 403
    assert fetch(location.partition("?")[0]).status == 403
    hub.expire_urls()
    expired = fetch(location)
    assert (expired.status, b"expired" in expired.body) == (403, True)
    hub.url_lifetime = -1
    assert follow(resolve(hub, WEIGHTS)).status == 403
    hub.url_lifetime = 60
    assert follow(resolve(hub, WEIGHTS)).status == 200


def test_main_moves_and_old_commits_stay(hub: HubServer) -> None:
    old = hub.repo(REPO).head.sha
    hub.tag(REPO, "v1")
    new = hub.commit(REPO, {"config.json": '{"new": 1}'}, keep=True)
    branch = hub.commit(REPO, {"config.json": '{"pr": 1}'}, branch="refs/pr/1")
    expected = {"main": (new, '{"new": 1}'), "refs%2Fpr%2F1": (branch, '{"pr": 1}'), new: (new, '{"new": 1}')}
    for revision, (commit, text) in expected.items():
        answer = fetch(resolve(hub, "config.json", revision=revision))
        assert (answer.header("X-Repo-Commit"), answer.body.decode()) == (commit, text)
        assert get_json(hub, f"/api/models/{REPO}/revision/{revision}")["sha"] == commit
    for revision in (old, "v1"):
        assert fetch(resolve(hub, "config.json", revision=revision)).header("X-Repo-Commit") == old


def test_the_generated_model_is_what_it_says(hub: HubServer) -> None:
    weights = hub.content(REPO, WEIGHTS)
    length = int.from_bytes(weights[:8], "little")
    header = json.loads(weights[8 : 8 + length])
    ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    assert max(ends) == len(weights) - 8 - length
    index = json.loads(hub.content(REPO, "model.safetensors.index.json"))
    assert index["metadata"]["total_size"] == max(ends)
    assert set(index["weight_map"]) == set(header) - {"__metadata__"}


def test_generated_content_differs_at_every_offset_and_does_not_change() -> None:
    blob = Blob((5 << 20) + 17, seed=4)
    whole = blob.slice(0, blob.size)
    assert len({whole[at : at + 64] for at in range(0, blob.size - 64, 65536)}) == len(range(0, blob.size - 64, 65536))
    assert blob.slice(1_048_570, 1_048_590) == whole[1_048_570:1_048_590]
    with HubServer() as hub:
        hub.add_model("a/b", {"x.bin": blob})
        assert hub.content("a/b", "x.bin") == whole
        assert hub.file("a/b", "x.bin").etag == hashlib.sha256(whole).hexdigest()


def test_a_folder_is_served_from_where_it_is(hub: HubServer, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("a")
    (tmp_path / "b.safetensors").write_bytes(b"b" * 1000)
    hub.add_folder("org/folder", tmp_path)
    hub.add_model("org/disk", {"c.txt": Disk(tmp_path / "sub" / "a.txt")})
    assert follow(resolve(hub, "b.safetensors", repo="org/folder")).body == b"b" * 1000
    assert follow(resolve(hub, "sub/a.txt", repo="org/folder")).body == b"a"
    assert follow(resolve(hub, "c.txt", repo="org/disk")).body == b"a"


def test_hostile_names_are_served_as_they_are(hub: HubServer) -> None:
    names = ["../up", "/abs", "a\x01b", "Readme", "README", "con\\fig", "x" * 300]
    hub.add_model("org/hostile", {name: name for name in names})
    tree = get_json(hub, "/api/models/org/hostile/tree/main?recursive=true")
    assert {entry["path"] for entry in tree if entry["type"] == "file"} == set(names)
    for name in names:
        assert fetch(resolve(hub, name, repo="org/hostile")).body == name.encode()
