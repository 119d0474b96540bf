"""What a transfer says of itself is true while it happens: phase, reason, deadline, figures."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import Fault
from mlx_manager.domain.states import Phase
from mlx_manager.errors import CacheGone
from transferring import FAST, KIB, MIB, PATIENT, Bench, bench, finish, told, until

SLACK_S = 1.5
"""What a busy machine may add to a time."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def test_silence_is_told_soon_with_what_comes_next(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": MIB})
    stall = desk.hub.fault(Fault.stall(after=1000), where="cdn", nth=range(3, 7))
    limits = replace(FAST, stall_s=2.0)
    transfer = desk.start([job], limits)
    stall.wait_hit(4)
    until(lambda: transfer.sample().last_byte_age_s is not None and transfer.sample().connections == 4)
    quiet_since = time.monotonic() - (transfer.sample().last_byte_age_s or 0.0)
    sample = told(transfer, Phase.STALLED)
    assert time.monotonic() - quiet_since < limits.told_after_s + SLACK_S
    assert sample.message.startswith("No byte for")
    assert sample.deadline is not None
    assert sample.deadline - time.time() <= limits.stall_s
    assert sample.last_byte_age_s is not None
    assert sample.last_byte_age_s >= limits.told_after_s
    assert abs(sample.since - time.time()) < SLACK_S
    # It does by itself what it said it would, by the time it said.
    until(lambda: transfer.sample().phase is not Phase.STALLED)
    assert time.time() < sample.deadline + SLACK_S
    finish(transfer)
    desk.check([job])


def test_the_age_of_the_last_byte_grows_through_replaced_connections(desk: Bench) -> None:
    """New connections that stay silent are no sign of life."""
    (job,) = desk.add({"a.bin": MIB})
    desk.hub.fault(Fault.stall(after=1000), where="cdn", nth=range(3, 7))
    hole = desk.hub.fault(Fault.black_hole(), nth=range(8, 500))
    transfer = desk.start([job], replace(FAST, stall_s=0.1, stall_max_s=0.2, told_after_s=0.05))
    hole.wait_hit(6)
    begun = time.monotonic()
    age = transfer.sample().last_byte_age_s
    hole.wait_hit(hole.hits + 6)
    later = transfer.sample()
    passed = time.monotonic() - begun
    assert age is not None
    assert later.last_byte_age_s is not None
    assert later.last_byte_age_s - age == pytest.approx(passed, abs=0.3)
    assert later.phase is Phase.STALLED


def test_before_the_first_byte_it_connects(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": MIB})
    hole = desk.hub.fault(Fault.black_hole(), where="hub")
    transfer = desk.start([job], replace(PATIENT, told_after_s=0.4))
    hole.wait_hit()
    sample = told(transfer, Phase.CONNECTING)
    assert (sample.downloaded_bytes, sample.received_bytes, sample.eta_s) == (0, 0, None)
    sample = told(transfer, Phase.STALLED)
    assert sample.last_byte_age_s is not None
    assert sample.last_byte_age_s >= 0.4


def test_a_retry_tells_its_reason_and_when(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": MIB})
    desk.hub.fault(Fault.status(503), where="cdn")
    transfer = desk.start([job], replace(FAST, backoff_first_s=0.4, backoff_max_s=0.8, told_after_s=60.0))
    sample = told(transfer, Phase.RETRYING)
    assert "answered 503" in sample.message
    assert sample.deadline is not None
    assert 0 < sample.deadline - time.time() <= 0.8
    assert sample.connections == 0
    until(lambda: "2nd try in a row" in transfer.sample().message)
    # Between the tries it never claims that bytes come, or that all is here.
    seen = []

    def look() -> bool:
        seen.append(transfer.sample())
        return "4th try" in seen[-1].message

    until(look)
    phases = {sample.phase for sample in seen}
    assert phases <= {Phase.RETRYING, Phase.CONNECTING}


def test_a_file_that_waits_does_not_hide_that_others_go_on_and_is_not_hidden_after_them(desk: Bench) -> None:
    bad, good = desk.add({"bad.bin": 100 * KIB, "good.bin": MIB})
    desk.hub.fault(Fault.status(500), where="cdn", path="bad.bin")
    line = desk.hub.fault(Fault.rate(256 * KIB, shared=True), where="cdn", path="good.bin")
    transfer = desk.start([bad, good], replace(PATIENT, backoff_first_s=5.0, backoff_max_s=5.0))
    sample = told(transfer, Phase.TRANSFERRING)
    assert "good.bin" in sample.message
    line.clear()
    sample = told(transfer, Phase.RETRYING)
    assert "answered 500" in sample.message
    assert sample.downloaded_bytes == MIB, "all that is not in trouble is here, published or about to be"


class _HeldUp(logging.Handler):
    """Holds the transfer's own thread up once, when it asks for its second range, as a disk or a sleep does."""

    def __init__(self, seconds: float) -> None:
        super().__init__(logging.DEBUG)
        self._seconds = seconds
        self._asked = 0
        self.over = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self._asked += record.getMessage().startswith("GET ")
        if self._asked == 2 and not self.over.is_set():
            time.sleep(self._seconds)
            self.over.set()


def test_while_nobody_here_looked_no_connection_was_silent(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": MIB})
    limits = replace(PATIENT, told_after_s=3.0)
    held_up = _HeldUp(limits.told_after_s + 0.5)
    log = logging.getLogger("mlx_manager.services.transfer.engine")
    level = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(held_up)
    try:
        transfer = desk.start([job], limits)
        phases = {transfer.sample().phase}
        while not held_up.over.is_set() or transfer.sample().received_bytes < MIB:
            phases.add(transfer.sample().phase)
        finish(transfer)
    finally:
        log.removeHandler(held_up)
        log.setLevel(level)
    assert Phase.STALLED not in phases


def test_a_rate_limit_is_told_with_its_end(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": MIB})
    limit = desk.hub.fault(Fault.rate_limited(reset=600), where="resolve")
    transfer = desk.start([job])
    limit.wait_hit()
    sample = told(transfer, Phase.RATE_LIMITED)
    assert sample.deadline is not None
    assert sample.deadline - time.time() == pytest.approx(600, abs=SLACK_S)
    assert "Goes on in" in sample.message


def test_a_crawl_is_told_as_what_it_is(desk: Bench) -> None:
    """A person read "Receiving a.bin over 4 connections" while the file would have taken weeks."""
    (job,) = desk.add({"a.bin": MIB})
    crawl = desk.hub.fault(Fault.rate(200), where="cdn")
    transfer = desk.start([job], replace(PATIENT, told_after_s=0.5, stall_s=2.0))
    crawl.wait_hit()
    sample = told(transfer, Phase.STALLED)
    assert "B/s over" in sample.message
    assert sample.deadline is not None
    assert sample.deadline > time.time()
    crawl.clear()
    told(transfer, Phase.TRANSFERRING)
    finish(transfer)
    desk.check([job])


def test_bytes_that_came_wrong_are_told_while_they_come_again(desk: Bench) -> None:
    """The bar fell back to nothing, and not a word said why."""
    (job,) = desk.add({"a.bin": MIB})
    flip = desk.hub.fault(Fault.flip(MIB - 1))
    desk.hub.fault(Fault.rate(2 * MIB, shared=True), where="cdn")
    transfer = desk.start([job])
    until(lambda: "wrong bytes" in (message := transfer.sample().message) and "2nd try of 3" in message)
    flip.clear()
    finish(transfer)
    desk.check([job])


def test_what_a_person_can_do_about_a_wait_is_told_with_it(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": MIB})
    desk.hub.network_down("cdn")
    transfer = desk.start([job], replace(FAST, backoff_first_s=1.0))
    sample = told(transfer, Phase.RETRYING)
    assert "the connection was refused" in sample.message
    assert sample.advice is not None
    assert "Check the network" in sample.advice
    desk.hub.network_up("cdn")
    finish(transfer)
    assert transfer.sample().advice is None


def test_a_model_that_is_deleted_meanwhile_is_called_that(desk: Bench) -> None:
    """It was told as a disk that fails."""
    (job,) = desk.add({"a.bin": MIB})
    stall = desk.hub.fault(Fault.stall(after=1000), where="cdn")
    transfer = desk.start([job], PATIENT)
    stall.wait_hit()
    until(lambda: transfer.sample().downloaded_bytes > 0)
    shutil.rmtree(job.part.parent)
    stall.clear()
    with pytest.raises(CacheGone, match="deleted"):
        finish(transfer)


def test_checking_what_is_here_is_told_as_hashing(desk: Bench) -> None:
    (job,) = desk.add({"a.bin": 48 * MIB})
    job.target.write_bytes(desk.hub.content("org/model", "a.bin"))
    transfer = desk.start([job])
    sample = told(transfer, Phase.HASHING)
    assert "a.bin" in sample.message
    assert sample.last_byte_age_s is None
    done = [0]

    def grows() -> bool:
        done.append(transfer.sample().downloaded_bytes)
        return done[-1] == job.size

    until(grows)
    finish(transfer)
    assert done == sorted(done)
    desk.check([job])


def test_downloaded_never_goes_back_while_all_is_well_and_the_figures_agree(desk: Bench) -> None:
    jobs = desk.add({f"{n}.bin": 300 * KIB for n in range(6)})
    desk.hub.fault(Fault.rate(4 * MIB, shared=True), where="cdn")
    transfer = desk.start(jobs)
    seen = []

    def look() -> bool:
        seen.append(transfer.sample())
        return seen[-1].files_done == len(jobs)

    until(look)
    finish(transfer)
    downloaded = [sample.downloaded_bytes for sample in seen]
    assert downloaded == sorted(downloaded)
    for sample in seen:
        assert sample.downloaded_bytes <= sample.received_bytes + sample.reused_bytes
        if sample.files:
            assert sum(file.done_bytes for file in sample.files) == sample.downloaded_bytes
        assert sample.connections <= FAST.connections
        assert (sample.last_byte_age_s is None) == (sample.downloaded_bytes == 6 * 300 * KIB or not sample.files)
    assert {sample.phase for sample in seen} <= {Phase.CONNECTING, Phase.TRANSFERRING, Phase.HASHING, Phase.STALLED}
    assert max(sample.speed_bps for sample in seen) < 20 * MIB


def test_the_words_of_a_wrong_hash_and_of_the_end(desk: Bench, caplog: pytest.LogCaptureFixture) -> None:
    (job,) = desk.add({"a.bin": 100 * KIB})
    desk.hub.fault(Fault.flip(7), times=1)
    desk.pull([job], replace(FAST, told_after_s=60.0))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("mlx_manager")]
    story = [line for line in lines if not line.startswith("GET")]
    assert story[0] == "a.bin: begun, 102.4 kB"
    assert story[1] == "a.bin: the bytes do not have the hash that the Hub names; read again to find which"
    assert story[2] == "a.bin: some bytes were not what had come before; hashed again"
    assert story[-1] == "a.bin: verified (sha256) and in place (1 of 1)"
    assert {getattr(record, "task_id", None) for record in caplog.records if "transfer" in record.name} == {"test-task"}
