"""The engine against every passing fault of the hub: it ends well, byte for byte, and fetches little twice."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fakes.hub_server import Fault
from mlx_manager.domain.states import Phase
from mlx_manager.errors import HashMismatch, SourceRejected
from mlx_manager.services.ports import FileJob
from mlx_manager.services.transfer import CurlTransfer
from transferring import FAST, KIB, MIB, ONE, PATIENT, QUICK, Bench, bench, finish, told, until

SIZE = MIB + 777
PIECE = FAST.piece_bytes
SIX_FOUR = "f" * 64


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def add(desk: Bench) -> list[FileJob]:
    return desk.add({"model.safetensors": SIZE})


PASSING: list[tuple[str, Fault, dict[str, Any], int]] = [
    # name, fault, which requests, how many bytes may go out beyond the file's
    ("reset at once", Fault.drop(), {"where": "cdn", "nth": (1, 4, 5)}, 0),
    ("reset before the body", Fault.reset(0), {"where": "cdn", "nth": (1, 4, 5)}, 0),
    ("short body", Fault.short_body(1000), {"where": "cdn", "nth": range(1, 40, 3)}, 0),
    ("short to nothing", Fault.short_body(0), {"where": "cdn", "nth": (1, 2, 3)}, 0),
    ("too long a body", Fault.long_body(extra=5000), {"where": "cdn", "times": 5}, 5 * 5000),
    ("too long a body, announced", Fault.long_body(extra=5000, announced=True), {"where": "cdn", "times": 5}, 25_000),
    ("too small a Content-Length", Fault.content_length(-100), {"where": "cdn", "times": 5}, 500),
    ("too large a Content-Length", Fault.content_length(100), {"where": "cdn", "times": 5}, 0),
    ("500", Fault.status(500), {"where": "cdn", "times": 6}, 0),
    ("503", Fault.status(503), {"where": "cdn", "nth": (2, 3, 7, 8)}, 0),
    ("the Hub's 502", Fault.status(502), {"where": "resolve", "times": 3}, 0),
    ("429", Fault.rate_limited(), {"where": "cdn", "times": 3}, 0),
    ("expired, once", Fault.expired_url(), {"nth": 4}, 0),
    ("expired, first of all", Fault.expired_url(), {"nth": 1}, 0),
    ("416", Fault.unsatisfiable(), {"where": "cdn", "nth": (1, 5)}, 0),
    ("wrong range", Fault.wrong_range(), {"where": "cdn", "nth": (1, 5, 6)}, 4 * PIECE),
    ("wrong total", Fault.wrong_total(), {"where": "cdn", "nth": (1, 5, 6)}, 4 * PIECE),
    ("another ETag, in the middle", Fault.etag("changed"), {"where": "cdn", "nth": 5}, 4 * PIECE),
    ("another ETag, first", Fault.etag("changed"), {"where": "cdn", "nth": 1}, 5 * PIECE),
    ("no ETag", Fault.header("ETag", None), {"where": "cdn"}, 0),
    ("gzip", Fault.gzip(), {"where": "cdn", "nth": (1, 4)}, 3 * PIECE),
    ("a page to log in, once", Fault.html(), {"where": "cdn", "nth": (1, 4)}, 3 * PIECE),
    ("a page to log in, at the Hub", Fault.html(), {"where": "resolve", "times": 2}, 3 * PIECE),
    ("a circle, for a while", Fault.redirect_loop(), {"where": "resolve", "times": 2}, 0),
]


STALLS: list[tuple[str, Fault, dict[str, Any]]] = [
    ("stall before the head", Fault.black_hole(), {"where": "cdn", "nth": (1, 3, 6)}),
    ("stall before the body", Fault.stall(0), {"where": "cdn", "nth": (1, 3, 6)}),
    ("stall in the middle", Fault.stall(PIECE // 2), {"where": "cdn", "nth": (2, 5, 9)}),
    ("stall before the last byte", Fault.stall(PIECE - 1), {"where": "cdn", "nth": (1, 4, 8)}),
    ("the Hub stalls", Fault.black_hole(), {"where": "resolve", "times": 2}),
]


@pytest.mark.parametrize(("fault", "which"), [row[1:] for row in STALLS], ids=[row[0] for row in STALLS])
def test_a_stall_ends_well(desk: Bench, fault: Fault, which: dict[str, Any]) -> None:
    jobs = add(desk)
    struck = desk.hub.fault(fault, **which)
    desk.pull(jobs, QUICK)
    assert struck.hits
    # Every byte that came over a stalled connection was kept.
    assert desk.sent_beyond(jobs) < 4 * PIECE


@pytest.mark.parametrize(("fault", "which", "twice"), [row[1:] for row in PASSING], ids=[row[0] for row in PASSING])
def test_it_ends_well(desk: Bench, fault: Fault, which: dict[str, Any], twice: int) -> None:
    jobs = add(desk)
    struck = desk.hub.fault(fault, **which)
    sample = desk.pull(jobs)
    assert struck.hits
    assert sample.downloaded_bytes == SIZE
    assert desk.sent_beyond(jobs) <= twice


SMALL_FILE_FAULTS = [row for row in PASSING if "expired" not in row[0] and row[2].get("where") == "cdn"]


@pytest.mark.parametrize(
    ("fault", "which", "twice"), [row[1:] for row in SMALL_FILE_FAULTS], ids=[row[0] for row in SMALL_FILE_FAULTS]
)
def test_it_ends_well_from_the_hub_itself(desk: Bench, fault: Fault, which: dict[str, Any], twice: int) -> None:
    """Small files come from the Hub, without a redirect and a signature."""
    jobs = desk.add({"tokenizer.json": SIZE}, lfs=False)
    struck = desk.hub.fault(fault, **{**which, "where": "resolve"})
    desk.pull(jobs)
    assert struck.hits
    assert desk.sent_beyond(jobs) <= twice


def test_a_connection_that_breaks_again_and_again_gets_there(desk: Bench) -> None:
    jobs = add(desk)
    desk.hub.fault(Fault.reset(after=20 * KIB), where="cdn")
    desk.pull(jobs)
    assert desk.sent_beyond(jobs) < SIZE * 0.05


def test_connections_that_break_together_are_one_failure(desk: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The network was away for a moment: waiting must not double for each of the connections."""
    jobs = add(desk)
    held = desk.hub.fault(Fault.stall(after=100), where="cdn", times=FAST.connections)
    transfer = desk.start(jobs, PATIENT)
    held.wait_hit(FAST.connections)
    with caplog.at_level(logging.WARNING):
        desk.hub.network_down()
        desk.hub.network_up()
        finish(transfer)
    desk.check(jobs)
    retries = [record.getMessage() for record in caplog.records if "tried again in" in record.getMessage()]
    assert retries
    assert all("1 in a row" in line or "2 in a row" in line for line in retries)


def test_a_trickle_is_replaced(desk: Bench) -> None:
    jobs = add(desk)
    slow = desk.hub.fault(Fault.trickle(10, 0.05), where="cdn", nth=(2, 4))
    begun = time.monotonic()
    desk.pull(jobs, QUICK)
    assert slow.hits == 2
    assert time.monotonic() - begun < 10  # at this rate a piece takes five minutes


def test_where_all_connections_crawl_they_are_replaced_less_and_less_often(desk: Bench) -> None:
    """It is the line then, and time for new connections would be all there is."""
    jobs = desk.add({"model.safetensors": 40_000})
    slow = desk.hub.fault(Fault.trickle(400, 0.02), where="cdn")
    desk.pull(jobs, replace(ONE, stall_s=0.2, stall_max_s=5.0, min_rate_bps=1e6))
    assert 2 <= slow.hits <= 6  # after 0.2, 0.4, 0.8 s; ten and more if it were each 0.2 s


def test_a_first_byte_that_takes_longer_than_a_stall_is_waited_for_longer_and_longer(desk: Bench) -> None:
    jobs = desk.add({"model.safetensors": 3000})
    slow = desk.hub.fault(Fault.delay(0.7), where="cdn")
    desk.pull(jobs, replace(ONE, stall_s=0.2, stall_max_s=5.0))
    assert 1 < slow.hits < 5


def test_stalls_cost_no_tries(desk: Bench) -> None:
    jobs = add(desk)
    stall = desk.hub.fault(Fault.stall(after=5 * KIB), where="cdn", times=30)
    desk.pull(jobs, replace(FAST, stall_s=0.05, stall_max_s=0.05, refusals=1, hash_attempts=1))
    assert stall.hits == 30


# -- rate limits


def test_nobody_is_asked_before_the_time_that_a_429_names(desk: Bench) -> None:
    jobs = add(desk)
    limit = desk.hub.fault(Fault.rate_limited(retry_after=1), where="cdn", nth=6)
    transfer = desk.start(jobs)
    at = limit.wait_hit().at
    sample = told(transfer, Phase.RATE_LIMITED)
    assert sample.deadline is not None
    assert sample.deadline - time.time() == pytest.approx(at + 1 - time.monotonic(), abs=0.3)
    assert "429" in sample.message
    finish(transfer)
    desk.check(jobs)
    # Those that were under way at that moment had been asked before.
    later = [record.at - at for record in desk.hub.requests("cdn") if record.at > at + 0.1]
    assert later
    assert min(later) >= 1


def test_a_limit_is_the_hosts_and_holds_for_files_that_come_to_it_later(desk: Bench) -> None:
    jobs = desk.add({"a.bin": 10 * KIB, "b.bin": 10 * KIB, "c.bin": 10 * KIB})
    limit = desk.hub.fault(Fault.rate_limited(retry_after=1), where="cdn", path="a.bin", times=1)
    late = desk.hub.fault(Fault.delay(), where="resolve", path="[bc].bin")
    transfer = desk.start(jobs, PATIENT)
    at = limit.wait_hit().at
    told(transfer, Phase.STALLED)
    late.clear()
    finish(transfer)
    desk.check(jobs)
    assert min(record.at - at for record in desk.hub.requests("cdn")[1:]) >= 1


# -- ranges that are ignored


@pytest.mark.parametrize("nth", [1, 2, 6, None])
def test_an_ignored_range(desk: Bench, nth: int | None) -> None:
    """The whole file comes: what is here is passed over, what is missing is kept."""
    jobs = add(desk)
    ignoring = desk.hub.fault(Fault.ignore_range(), where="cdn", nth=nth)
    desk.pull(jobs)
    assert ignoring.hits
    assert desk.sent_beyond(jobs) <= ignoring.hits * SIZE


def test_a_source_that_always_ignores_ranges_is_asked_once(desk: Bench) -> None:
    jobs = add(desk)
    desk.hub.fault(Fault.ignore_range(), where="cdn")
    desk.pull(jobs)
    assert len(desk.hub.requests("cdn")) == 1


def test_a_source_that_ignores_ranges_and_breaks_goes_on(desk: Bench) -> None:
    jobs = add(desk)
    desk.hub.fault(Fault.ignore_range(), where="cdn")
    cut = desk.hub.fault(Fault.reset(after=SIZE // 2), where="cdn", times=1)
    desk.pull(jobs)
    assert cut.hits == 1


def test_a_source_that_ignores_ranges_and_always_breaks_at_the_same_place_is_asked_less_and_less(
    desk: Bench,
) -> None:
    """Bytes that are only passed over are no progress."""
    jobs = add(desk)
    desk.hub.fault(Fault.ignore_range(), where="cdn")
    desk.hub.fault(Fault.reset(after=SIZE // 2), where="cdn")
    transfer = desk.start(jobs, replace(FAST, backoff_first_s=0.05, backoff_max_s=60.0))
    # A wait may be over before it was seen; of the longer ones that follow none is missed.
    until(lambda: re.search(r"\((?:[4-9]|1\d)th try in a row", transfer.sample().message) is not None)


def test_the_whole_file_comes_over_bytes_that_are_here_and_does_not_touch_them(
    desk: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """They may have been hashed already: a wrong byte written over them would get into the cache unseen."""
    jobs = add(desk)
    desk.hub.fault(Fault.stall(after=10), where="cdn", when=lambda request: request.range == f"bytes=0-{PIECE - 1}")
    transfer = desk.start(jobs, PATIENT)
    until(lambda: transfer.sample().downloaded_bytes == SIZE - PIECE + 10)
    transfer.stop()
    desk.hub.clear_faults()
    desk.hub.fault(Fault.ignore_range(), where="cdn")
    flip = desk.hub.fault(Fault.flip(SIZE // 2), where="cdn")
    desk.pull(jobs)
    assert flip.hits == 1
    assert "do not have the hash" not in caplog.text


# -- wrong bytes


def test_a_flipped_bit_is_found_and_fetched_again(desk: Bench, caplog: pytest.LogCaptureFixture) -> None:
    jobs = add(desk)
    flip = desk.hub.fault(Fault.flip(SIZE // 2), times=1)
    with caplog.at_level(logging.WARNING):
        desk.pull(jobs)
    assert flip.hits == 1
    assert "do not have the hash" in caplog.text
    assert len(desk.hub.requests("resolve")) == 2  # from a fresh address


@pytest.mark.parametrize("offset", [0, PIECE, SIZE - 1])
def test_bytes_that_are_always_wrong_are_never_published(desk: Bench, offset: int) -> None:
    jobs = add(desk)
    flip = desk.hub.fault(Fault.flip(offset))
    with pytest.raises(HashMismatch, match="3 times"):
        finish(desk.start(jobs))
    assert flip.hits == FAST.hash_attempts
    desk.close()
    assert desk.left() == []


def test_a_small_file_with_wrong_bytes(desk: Bench) -> None:
    jobs = desk.add({"config.json": b'{"a": 1}'}, lfs=False)
    desk.hub.fault(Fault.flip(3))
    with pytest.raises(HashMismatch):
        finish(desk.start(jobs))
    desk.close()
    assert desk.left() == []


def test_a_wrong_file_does_not_harm_the_others(desk: Bench) -> None:
    bad, good = desk.add({"bad.bin": 100 * KIB, "good.bin": 400 * KIB})
    desk.hub.fault(Fault.flip(5), path="bad.bin")
    held = desk.hub.fault(Fault.stall(after=10), path="good.bin", nth=(4, 5, 6))
    with pytest.raises(HashMismatch):
        finish(desk.start([bad, good], PATIENT))
    desk.close()
    assert held.hits
    assert not bad.part.exists()
    desk.hub.clear_faults()
    desk.hub.wait_no_connections()
    desk.hub.clear_log()
    desk.pull([bad, good])
    assert desk.hub.bytes_sent("good.bin") < good.size


# -- what does not pass


@pytest.mark.parametrize(
    "fault",
    [
        Fault.gzip(),
        Fault.wrong_range(),
        Fault.wrong_total(),
        Fault.html(),
        Fault.expired_url(),
        Fault.unsatisfiable(),
        Fault.status(404),
    ],
    ids=lambda fault: fault.name,
)
def test_what_never_passes_ends_with_its_reason(desk: Bench, fault: Fault) -> None:
    jobs = add(desk)
    desk.hub.fault(fault, where="cdn")
    with pytest.raises(SourceRejected, match=r"asked \d times") as caught:
        finish(desk.start(jobs, replace(FAST, refusals=3)))
    assert len(desk.hub.requests("resolve")) == 4
    assert "MLX_MANAGER_MIRRORS" in caught.value.advice, "it spoke of the person's token"


def test_an_etag_that_changes_between_two_answers_is_asked_about_anew(desk: Bench) -> None:
    jobs = add(desk)
    changed = desk.hub.fault(Fault.etag(), where="cdn", nth=2)
    finish(desk.start(jobs, PATIENT))
    desk.check(jobs)
    assert changed.hits == 1
    assert len(desk.hub.requests("resolve")) == 2


def test_an_address_that_expired_under_many_connections_is_refused_once(desk: Bench) -> None:
    """All that are under way get the 403; they are one refusal, and none of them is the Hub's own."""
    jobs = add(desk)
    held = desk.hub.fault(Fault.delay(), where="cdn", nth=(2, 3, 4, 5))
    gone = desk.hub.fault(Fault.expired_url(), nth=(2, 3, 4, 5))
    transfer = desk.start(jobs, replace(PATIENT, refusals=1))
    gone.wait_hit(4)
    held.clear()
    finish(transfer)
    desk.check(jobs)
    assert len(desk.hub.requests("resolve")) == 2


def has(transfer: CurlTransfer, count: int) -> bool:
    return transfer.sample().downloaded_bytes >= count


def test_urls_that_live_shorter_than_the_download(desk: Bench) -> None:
    jobs = add(desk)
    transfer = desk.start(jobs)
    for n in range(1, 6):
        until(partial(has, transfer, n * 150 * KIB))
        desk.hub.expire_urls()
    finish(transfer)
    desk.check(jobs)


@pytest.mark.parametrize("connections", [1, 4, 16])
def test_everything_at_once(desk: Bench, connections: int) -> None:
    jobs = desk.add({"a.bin": MIB, "b.bin": 300 * KIB, "c.txt": 100 * KIB}, lfs={"a.bin": True, "b.bin": True})
    faults = [
        desk.hub.fault(Fault.status(500), nth=range(2, 200, 9), where="content"),
        desk.hub.fault(Fault.reset(after=5 * KIB), nth=range(3, 200, 8), where="content"),
        desk.hub.fault(Fault.stall(after=7 * KIB), nth=(5, 17, 30), where="content"),
        desk.hub.fault(Fault.ignore_range(), nth=(4, 21), where="content"),
        desk.hub.fault(Fault.short_body(after=3 * KIB), nth=range(6, 200, 11), where="content"),
        desk.hub.fault(Fault.expired_url(), nth=(9, 25)),
        desk.hub.fault(Fault.flip(1000), path="b.bin", times=1),
    ]
    desk.pull(jobs, replace(QUICK, connections=connections, piece_bytes=32 * KIB))
    assert sum(1 for fault in faults if fault.hits) >= 5
