"""The judge of `make torture` sees what is wrong: a torture that could only end well would prove nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
from filelock import FileLock

from fakes.hub_server import HubServer
from hub_cache import FILES, REPO, fetch, plan_of
from mlx_manager.services.hf_cache import HfCache
from torture.lives import Moment, lives
from torture.verdict import Truth, ask_truth, left_by_server, orphans, wrong_bytes

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, FILES)
        yield hub


@pytest.fixture
def truth(hub: HubServer) -> Truth:
    return ask_truth(hub.url, REPO)


@pytest.fixture
def cache(hub: HubServer, tmp_path: Path) -> Path:
    fetch(hub, HfCache(tmp_path / "cache"), plan_of(hub))
    return tmp_path / "cache"


def test_a_right_cache_is_right(hub: HubServer, cache: Path, truth: Truth) -> None:
    assert list(wrong_bytes(hub.url, cache, truth)) == []
    assert list(orphans(cache, [truth])) == []
    # Two of the files have the same content, which is fetched once.
    assert truth.size == sum(dict(truth.files.values()).values())
    assert truth.size < sum(size for _, size in truth.files.values())


def test_one_wrong_byte_is_seen(hub: HubServer, cache: Path, truth: Truth) -> None:
    blob = cache / truth.folder / "blobs" / truth.files[WEIGHTS][0]
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    assert list(wrong_bytes(hub.url, cache, truth)) == [f"{REPO}: {WEIGHTS} has other bytes than the hub"]


def test_a_missing_file_and_a_wrong_ref_are_seen(hub: HubServer, cache: Path, truth: Truth) -> None:
    (cache / truth.folder / "snapshots" / truth.commit / WEIGHTS).unlink()
    (cache / truth.folder / "refs" / "main").write_text("0" * 40)
    said = list(wrong_bytes(hub.url, cache, truth))
    assert said == [f"{REPO}: {WEIGHTS} is not in the snapshot", f"{REPO}: refs/main does not name its commit"]


@pytest.mark.parametrize(
    "left",
    [
        "models--mlx-community--Tiny-4bit/blobs/0a.part",
        "models--mlx-community--Tiny-4bit/.0a.tmp",
        "models--torture--Withdrawn/trees/0a.json",
        ".locks/models--torture--Withdrawn/0a.lock",
    ],
)
def test_what_is_left_over_is_seen(cache: Path, truth: Truth, left: str) -> None:
    (cache / left).parent.mkdir(parents=True, exist_ok=True)
    (cache / left).touch()
    assert f"left in the cache: {left}" in list(orphans(cache, [truth]))


def test_an_empty_folder_is_left_over_too(cache: Path, truth: Truth) -> None:
    (cache / "models--torture--Withdrawn").mkdir()
    assert list(orphans(cache, [truth])) == ["left in the cache: models--torture--Withdrawn"]


def test_a_lock_that_is_held_is_seen_and_one_that_lies_there_is_not(cache: Path, truth: Truth) -> None:
    lock = cache / ".locks" / truth.folder / f"{truth.files[WEIGHTS][0]}.lock"
    with FileLock(lock):
        assert list(orphans(cache, [truth])) == [f"still locked: {lock.relative_to(cache)}"]
    lock.touch()
    assert list(orphans(cache, [truth])) == []


def test_what_the_server_leaves_is_seen(tmp_path: Path) -> None:
    data, temporary = tmp_path / "data", tmp_path / "tmp"
    data.mkdir()
    temporary.mkdir()
    with closing(sqlite3.connect(data / "mlx-manager.db")) as database:
        database.execute("CREATE TABLE kept (it)")
    assert list(left_by_server(data, temporary)) == []
    (data / "server.json").touch()
    (temporary / "mlx-manager-xet-1").mkdir()
    assert list(left_by_server(data, temporary)) == [
        "left in the data folder: server.json",
        "left in the temporary folder: mlx-manager-xet-1",
    ]


def test_a_seed_gives_the_same_lives_again_and_all_kinds_of_them() -> None:
    assert list(islice(lives(1), 50)) == list(islice(lives(1), 50)) != list(islice(lives(2), 50))
    some = list(islice(lives(1), 200))
    assert {life.moment for life in some} == set(Moment)
    assert {life.move for life in some} == {None, "pause", "resume", "request", "cancel"}
