"""The judge of `make torture` sees what is wrong: a torture that could only end well would prove nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from fakes.hub_server import HubServer
from hub_cache import FILES, REPO, fetch, plan_of
from mlx_manager.services.hf_cache import HfCache
from torture.again import Lived, came_twice, losses, spans
from torture.lives import Moment, lives
from torture.verdict import Truth, ask_truth, left_by_server, orphans, wrong_bytes

WEIGHTS = "model.safetensors"
MB = 1_000_000


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
    (data / "library.json.4711-1.draft").touch()
    (temporary / "mlx-manager-xet-1").mkdir()
    assert list(left_by_server(data, temporary)) == [
        "left in the data folder: library.json.4711-1.draft",
        "left in the data folder: server.json",
        "left in the temporary folder: mlx-manager-xet-1",
    ]


def test_a_seed_gives_the_same_lives_again_and_all_kinds_of_them() -> None:
    assert list(islice(lives(1), 50)) == list(islice(lives(1), 50)) != list(islice(lives(2), 50))
    some = list(islice(lives(1), 200))
    assert {life.moment for life in some} == set(Moment)
    assert {life.move for life in some} == {None, "pause", "resume", "request", "cancel"}


def _record(at: float, start: int, sent: int, ended_at: float, file: str = "a") -> dict[str, Any]:
    return {
        "at": at,
        "ended_at": ended_at,
        "status": 206,
        "range": f"bytes={start}-{10 * MB - 1}",
        "size": 10 * MB,
        "sent": sent,
        "outcome": "sent",
        "repo": "torture/Model",
        "file": file,
        "path": f"/{file}",
        "labels": ["cdn", "content"],
    }


def test_what_was_under_way_at_a_blow_may_come_again_and_is_counted_to_the_byte() -> None:
    life = Lived(1, born_at=0.0, died_at=10.0)
    before = [_record(1.0, 0, 4 * MB, 10.1), _record(2.0, 6 * MB, MB, 9.0), _record(2.0, 0, 10 * MB, 5.0, file="b")]
    after = [_record(11.0, 3 * MB, 7 * MB, 12.0)]
    (loss,) = losses(before + after, [life])
    assert (loss.pieces, loss.brought, loss.lost, loss.settled) == (2, 5 * MB, 2 * MB, 0)
    assert loss.beyond(line_bps=MB) == []


def test_more_than_could_be_under_way_is_wrong() -> None:
    life = Lived(7, born_at=0.0, died_at=10.0)
    records = [_record(1.0, 0, 9 * MB, 10.1), _record(11.0, 0, 10 * MB, 12.0)]
    (loss,) = losses(records, [life])
    assert loss.beyond(line_bps=MB) == ["life 7: 9000000 bytes came again, and 6194304 had been on their way"]


def test_what_was_here_long_before_the_blow_may_not_come_again() -> None:
    lives = [Lived(1, 0.0, 10.0), Lived(2, 11.0, 20.0)]
    records = [_record(1.0, 0, MB, 3.0), _record(2.0, MB, 9 * MB, 10.0), _record(21.0, 0, MB, 22.0)]
    first, second = losses(records, lives)
    assert (first.lost, first.settled, second.lost, second.settled) == (0, MB, 0, 0)
    said = "life 1: 1000000 bytes came again that had been here for long (torture/Model a: 1000000)"
    assert first.beyond(line_bps=MB) == [said]


def test_what_a_connection_that_was_let_go_had_in_its_buffers_never_was_here() -> None:
    """The end of its range was given to another one, which had not got so far at the blow."""
    life = Lived(1, 0.0, 10.0)
    let_go = _record(1.0, 0, MB, 3.0) | {"outcome": "gone"}
    (loss,) = losses([let_go, _record(11.0, MB - 100_000, MB, 12.0)], [life])
    assert (loss.lost, loss.settled) == (0, 0)
    (loss,) = losses([let_go, _record(11.0, 0, MB, 12.0)], [life])
    assert loss.settled == MB - (512 << 10)


def test_what_comes_twice_within_a_life_is_seen_whether_or_not_a_blow_ended_it() -> None:
    hurt, unhurt = Lived(1, 0.0, 10.0), Lived(0, 11.0, 20.0, killed=False)
    records = [
        *(_record(1.0, 0, 2 * MB, 3.0), _record(4.0, MB, 2 * MB, 6.0)),
        *(_record(12.0, 0, MB, 13.0), _record(14.0, 0, MB, 15.0), _record(15.0, 2 * MB, MB, 16.0)),
    ]
    assert came_twice(records, [hurt]) == MB
    assert came_twice(records, [unhurt]) == MB
    assert came_twice(records, [hurt, unhurt]) == 2 * MB
    assert [loss.life for loss in losses(records, [hurt, unhurt])] == [hurt], "nothing is lost where nothing fell"


def test_xorbs_are_under_way_until_their_piece_is_there() -> None:
    records = [_record(at, 0, MB, at + 1) | {"repo": "", "labels": ["xorb"]} for at in (1.0, 21.0)]
    (loss,) = losses(records, [Lived(1, 0.0, 10.0)])
    assert (loss.lost, loss.settled) == (MB, 0)


def test_an_answer_without_a_range_begins_at_the_first_byte_and_a_xorb_is_known_by_its_address() -> None:
    whole = _record(1.0, 5, 100, 2.0) | {"status": 200}
    xorb = _record(1.0, 0, 30, 2.0) | {"repo": "", "path": "/xorbs/0a"}
    nothing = _record(1.0, 0, 0, 2.0, file="b")
    assert spans([whole, xorb, nothing]) == {"torture/Model a": [(0, 100)], "/xorbs/0a": [(0, 30)]}
