"""The ledger of downloads, on a real SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download, FileProgress
from mlx_manager.domain.plan import PlanFile, make_plan
from mlx_manager.domain.states import Desire, Phase, Status
from mlx_manager.errors import DownloadInFlight, DownloadNotFound, InvalidRequest, LedgerFailed
from mlx_manager.services.ports import DownloadStore
from mlx_manager.storage import SqlDownloadStore, open_database, sqlite_url


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    engine = open_database(sqlite_url(file))
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> DownloadStore:
    return SqlDownloadStore(engine)


def download(number: int, **fields: object) -> Download:
    made = Download(f"t{number}", ModelRequest(f"org/model-{number}"), created_at=100.0 + number)
    return replace(made, **fields)  # type: ignore[arg-type]


FULL = Download(
    task_id="full",
    request=ModelRequest("org/model", "v1", ("*.json", "*.safetensors"), ("x/*",)),
    created_at=1.5,
    priority=-3,
    status=Status.PAUSED,
    desire=Desire.PAUSED,
    epoch=4,
    attempt=5,
    commit="c" * 40,
    total_bytes=400_000_000_000,
    total_is_estimate=True,
    downloaded_bytes=399_999_999_999,
    reused_bytes=7,
    received_bytes=8,
    files_done=9,
    files_total=10,
    phase=Phase.DISK_FULL,
    message="2 GB are missing. ✓",
    since=2.25,
    error="2 GB are missing.",
    error_code="disk_full",
    advice="Free some.",
    started_at=3.125,
    finished_at=4.0,
)


@pytest.mark.parametrize("whole", [FULL, download(1)], ids=["all fields", "a fresh one"])
def test_a_row_comes_back_as_it_was(store: DownloadStore, whole: Download) -> None:
    store.insert(whole)
    assert store.get(whole.task_id) == (whole, 0)


def test_live_figures_are_not_kept(store: DownloadStore) -> None:
    live = replace(
        FULL, speed_bps=5.0, eta_s=3.0, last_byte_age_s=1.0, connections=8, files=(FileProgress("a", 1, 0, "waiting"),)
    )
    store.insert(live)
    assert store.get("full") == (FULL, 0)


def test_what_is_not_there(store: DownloadStore) -> None:
    assert store.get("none") is None
    assert store.plan("none") is None
    assert store.find_in_flight(ModelRequest("a/b")) is None
    assert store.unfinished() == []
    assert store.page(None, 10, None) == ([], None)
    assert store.last_event_id() == 0
    assert not store.save(download(1), 1)
    with pytest.raises(DownloadNotFound):
        store.claim("none", "here")


def test_save_writes_the_state_and_the_event_but_not_the_desire(store: DownloadStore) -> None:
    store.insert(download(1))
    store.set_desire("t1", Desire.PAUSED)
    assert store.save(download(1, status=Status.DOWNLOADING, downloaded_bytes=5), 77)
    found, event_id = store.get("t1") or pytest.fail("gone")
    assert (found.status, found.downloaded_bytes, found.desire, event_id) == (Status.DOWNLOADING, 5, Desire.PAUSED, 77)
    assert store.last_event_id() == 77


def test_each_claim_is_a_new_epoch_and_the_older_one_can_write_no_more(store: DownloadStore) -> None:
    store.insert(download(1))
    first = store.claim("t1", "here")
    second = store.claim("t1", "there")
    assert (first, second) == (1, 2)
    assert not store.save(download(1, epoch=first, status=Status.FAILED), 5)
    assert store.save(download(1, epoch=second, status=Status.STARTING), 6)
    found, event_id = store.get("t1") or pytest.fail("gone")
    assert (found.status, found.epoch, event_id) == (Status.STARTING, 2, 6)


def test_the_node_is_written_with_the_claim(store: DownloadStore, file: Path) -> None:
    store.insert(download(1), "one")
    store.insert(download(2))
    store.claim("t2", "two")
    connection = sqlite3.connect(file)
    assert connection.execute("SELECT node FROM downloads ORDER BY number").fetchall() == [("one",), ("two",)]
    connection.close()


def test_the_same_request_can_be_in_flight_once(store: DownloadStore) -> None:
    asked = ModelRequest("org/model", "main", ("*.json",))
    store.insert(download(1, request=asked))
    with pytest.raises(DownloadInFlight):
        store.insert(download(2, request=asked))
    assert store.get("t2") is None
    found = store.find_in_flight(asked)
    assert found is not None
    assert found.task_id == "t1"


@pytest.mark.parametrize(
    "other",
    [
        ModelRequest("org/other", "main", ("*.json",)),
        ModelRequest("org/model", "v1", ("*.json",)),
        ModelRequest("org/model", "main"),
        ModelRequest("org/model", "main", None, ("*.json",)),
    ],
)
def test_another_request_is_another_one(store: DownloadStore, other: ModelRequest) -> None:
    store.insert(download(1, request=ModelRequest("org/model", "main", ("*.json",))))
    assert store.find_in_flight(other) is None
    store.insert(download(2, request=other))


@pytest.mark.parametrize("end", [status for status in Status if status.is_terminal])
def test_after_the_end_it_can_be_asked_for_again(store: DownloadStore, end: Status) -> None:
    asked = ModelRequest("org/model")
    store.insert(download(1, request=asked))
    store.save(download(1, request=asked, status=end), 1)
    assert store.find_in_flight(asked) is None
    store.insert(download(2, request=asked))
    with pytest.raises(DownloadInFlight):
        store.save(download(1, request=asked, status=Status.QUEUED), 2)
    assert (store.get("t1") or pytest.fail("gone"))[0].status is end


def test_two_connections_that_insert_at_once_are_one_download(store: DownloadStore, file: Path) -> None:
    other_engine = open_database(sqlite_url(file))
    stores = [store, SqlDownloadStore(other_engine)]
    asked = [ModelRequest(f"org/m{n}") for n in range(30)]
    together = threading.Barrier(2)
    refused: list[int] = []

    def ask(which: int) -> None:
        for n, request in enumerate(asked):
            together.wait()
            try:
                stores[which].insert(download(100 * which + n, request=request))
            except DownloadInFlight:
                refused.append(n)

    threads = [threading.Thread(target=ask, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other_engine.dispose()
    assert sorted(refused) == list(range(30))
    assert len(store.unfinished()) == 30


def test_claims_from_many_threads_are_all_different(store: DownloadStore) -> None:
    store.insert(download(1))
    epochs: list[int] = []
    threads = [
        threading.Thread(target=lambda: epochs.extend(store.claim("t1", "here") for _ in range(10))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(epochs) == list(range(1, 41))


def test_unfinished_are_the_oldest_first(store: DownloadStore) -> None:
    # The clock may have been set back: what counts is the order of arrival.
    for number, created_at in ((1, 900.0), (2, 100.0), (3, 500.0)):
        store.insert(download(number, created_at=created_at))
    store.save(download(2, status=Status.COMPLETED), 1)
    assert [found.task_id for found, _ in store.unfinished()] == ["t1", "t3"]


def test_pages_are_newest_first_and_hold_each_once(store: DownloadStore) -> None:
    for number in range(7):
        store.insert(download(number))
    seen = []
    before: str | None = None
    pages = 0
    while True:
        page, before = store.page(None, 3, before)
        seen += [found.task_id for found, _ in page]
        pages += 1
        if pages == 1:
            store.insert(download(99))  # a new one does not shift the pages that follow
        if before is None:
            break
    assert (seen, pages) == ([f"t{number}" for number in range(6, -1, -1)], 3)


def test_a_page_that_is_just_full_has_no_next(store: DownloadStore) -> None:
    for number in range(3):
        store.insert(download(number))
    page, following = store.page(None, 3, None)
    assert (len(page), following) == (3, None)


def test_a_page_of_some_states(store: DownloadStore) -> None:
    for number, status in enumerate(Status):
        store.insert(download(number, status=status))
    page, _ = store.page([Status.FAILED, Status.PAUSED], 10, None)
    assert {found.status for found, _ in page} == {Status.FAILED, Status.PAUSED}
    assert store.page([], 10, None) == ([], None)


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "٣", "9" * 40, "1 OR 1=1"])
def test_a_cursor_that_is_none(store: DownloadStore, cursor: str) -> None:
    with pytest.raises(InvalidRequest):
        store.page(None, 3, cursor)


def test_a_plan_comes_back_and_is_replaced(store: DownloadStore) -> None:
    files = [PlanFile("a/config.json", 5, "a" * 40), PlanFile("w", 2**40, "b" * 40, "1" * 64, "2" * 64)]
    plan = make_plan("org/model-1", "main", "c" * 40, files, ("w",))
    store.insert(download(1))
    store.save_plan("t1", plan)
    assert store.plan("t1") == plan
    newer = replace(plan, commit="d" * 40)
    store.save_plan("t1", newer)
    assert store.plan("t1") == newer


def test_a_plan_needs_its_download(store: DownloadStore) -> None:
    plan = make_plan("org/model", "main", "c" * 40, [PlanFile("a", 5, "a" * 40)])
    with pytest.raises(LedgerFailed):
        store.save_plan("none", plan)


def test_the_rows_are_there_for_the_next_process(file: Path, store: DownloadStore, engine: Engine) -> None:
    store.insert(FULL)
    engine.dispose()
    again = open_database(sqlite_url(file))
    assert SqlDownloadStore(again).get("full") == (FULL, 0)
    again.dispose()


def test_what_was_asked_for_can_be_searched(store: DownloadStore, file: Path) -> None:
    store.insert(FULL)
    store.insert(download(1))
    connection = sqlite3.connect(file)
    sql = "SELECT task_id FROM downloads WHERE model_id = ? AND revision = ? AND allow_patterns IS NOT NULL"
    assert connection.execute(sql, ("org/model", "v1")).fetchall() == [("full",)]
    assert connection.execute("SELECT task_id FROM downloads WHERE allow_patterns IS NULL").fetchall() == [("t1",)]
    connection.close()


def test_a_ledger_that_is_locked_for_long_is_said_to_be(store: DownloadStore, file: Path, engine: Engine) -> None:
    store.insert(download(1))
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LedgerFailed, match="locked"):
        store.set_desire("t1", Desire.PAUSED)
    assert store.get("t1") is not None, "reading goes on"
    other.execute("ROLLBACK")
    other.close()
    store.set_desire("t1", Desire.PAUSED)
