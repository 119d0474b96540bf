"""What may happen to a download: the table, the one function that makes the moves, and the snapshot of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import (
    Cancelled,
    Change,
    Completed,
    Download,
    Failed,
    InLine,
    Paused,
    Progressed,
    Requeued,
    Resumed,
    Sample,
    SizeEstimated,
    SizesKnown,
    Started,
    Verifying,
    Waiting,
    aged,
    apply,
)
from mlx_manager.domain.snapshot import moment, snapshot
from mlx_manager.domain.states import MOVES, Desire, Move, Phase, Status, after
from mlx_manager.errors import MoveNotAllowed

FRESH = Download("t1", ModelRequest("org/model"), created_at=100.0, since=100.0)
STARTED = Started(101.0, 1)
SIZES = SizesKnown(102.0, "c" * 40, 1000, 3)


def sample(done: int = 0, **fields: object) -> Sample:
    values: dict[str, object] = {
        "downloaded_bytes": done,
        "reused_bytes": 0,
        "received_bytes": done,
        "speed_bps": 10.0,
        "eta_s": 5.0,
        "last_byte_age_s": 0.5,
        "files_done": 0,
        "phase": Phase.TRANSFERRING,
        "message": "Receiving.",
        "since": 102.0,
        "deadline": None,
    }
    return Sample(**{**values, **fields})  # type: ignore[arg-type]


def after_all(*changes: Change) -> Download:
    download = FRESH
    for change in changes:
        download = apply(download, change)
    return download


HALF_WAY = (STARTED, SIZES, Progressed(103.0, sample(500)))

# Which statuses each kind of change may come in, from the contract.
ALLOWED: dict[type, set[Status]] = {
    Started: {Status.QUEUED},
    SizesKnown: {Status.STARTING, Status.VERIFYING},
    Verifying: {Status.DOWNLOADING},
    Completed: {Status.VERIFYING},
    Failed: {Status.QUEUED, Status.STARTING, Status.DOWNLOADING, Status.VERIFYING},
    Paused: {Status.QUEUED, Status.STARTING, Status.DOWNLOADING, Status.VERIFYING},
    Resumed: {Status.PAUSED, Status.FAILED},
    Requeued: {Status.STARTING, Status.DOWNLOADING, Status.VERIFYING},
    Cancelled: set(Status) - {Status.COMPLETED, Status.CANCELLED},
    InLine: {Status.QUEUED},
    Waiting: {Status.QUEUED, Status.STARTING, Status.DOWNLOADING, Status.VERIFYING},
    Progressed: {Status.STARTING, Status.DOWNLOADING, Status.VERIFYING},
    SizeEstimated: set(Status),
}
EXAMPLES: tuple[Change, ...] = (
    STARTED,
    SIZES,
    Verifying(1.0),
    Completed(1.0),
    Failed(1.0, "It broke.", "broken", "Mend it."),
    Paused(1.0),
    Resumed(1.0),
    Requeued(1.0),
    Cancelled(1.0),
    InLine(1.0, 2),
    Waiting(1.0, Phase.RETRYING, "Again.", 5.0),
    Progressed(1.0, sample(5)),
    SizeEstimated(1.0, 7),
)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("change", EXAMPLES, ids=lambda change: type(change).__name__)
def test_each_change_comes_where_it_may_and_nowhere_else(status: Status, change: Change) -> None:
    download = replace(FRESH, status=status)
    if status in ALLOWED[type(change)]:
        apply(download, change)
    else:
        with pytest.raises(MoveNotAllowed, match=str(status)):
            apply(download, change)


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("move", Move)
def test_the_table_is_total(status: Status, move: Move) -> None:
    if (status, move) in MOVES:
        assert after(status, move) is MOVES[status, move]
    else:
        with pytest.raises(MoveNotAllowed):
            after(status, move)


def test_nothing_comes_after_the_end() -> None:
    assert not [move for status, move in MOVES if status in (Status.COMPLETED, Status.CANCELLED)]
    assert {move for status, move in MOVES if status is Status.FAILED} == {Move.RESUME, Move.CANCEL}


_at = st.floats(0, 1e9)
_size = st.integers(0, 10**13)
_changes = st.lists(
    st.one_of(
        st.builds(Started, _at, st.integers(1, 99)),
        st.builds(SizeEstimated, _at, st.none() | _size),
        st.builds(SizesKnown, _at, st.just("c" * 40), _size, st.integers(0, 9)),
        st.builds(Waiting, _at, st.sampled_from(Phase), st.text(), st.none() | _at),
        st.builds(InLine, _at, st.integers(1, 9)),
        st.builds(Progressed, _at, st.builds(sample, _size, last_byte_age_s=st.none() | st.floats(0, 1e6))),
        st.builds(Verifying, _at),
        st.builds(Completed, _at),
        st.builds(Failed, _at, st.text(min_size=1), st.text(min_size=1), st.text(min_size=1)),
        st.builds(Paused, _at),
        st.builds(Resumed, _at),
        st.builds(Requeued, _at),
        st.builds(Cancelled, _at),
    ),
    max_size=30,
)


@given(_changes)
def test_no_sequence_of_changes_leaves_the_table_or_lies(changes: list[Change]) -> None:
    download = FRESH
    for change in changes:
        before = download
        try:
            download = apply(before, change)
        except MoveNotAllowed:
            assert before.status not in ALLOWED[type(change)]
            continue
        if download.status is not before.status:
            assert download.status in {to for (status, _), to in MOVES.items() if status is before.status}
        shown = snapshot(download, files=True)
        json.dumps(shown, allow_nan=False)
        assert (shown["progress"] == 100) == (download.status is Status.COMPLETED)
        assert shown["message"] is not None
        if not download.status.is_active:
            assert (shown["speed_bps"], shown["eta_s"], shown["last_byte_age_s"], shown["connections"]) == (
                0,
                None,
                None,
                0,
            )
        assert (shown["finished_at"] is not None) == download.status.is_terminal
        assert (download.error is not None) == (download.status is Status.FAILED)
        if shown["place"] is not None:
            assert download.status is Status.QUEUED


def test_the_first_word_of_a_fresh_download() -> None:
    shown = snapshot(after_all(STARTED))
    assert (shown["status"], shown["total_bytes"], shown["phase"]) == ("starting", 0, "waiting_for_hub")
    assert shown["attempt"] == 1
    assert shown["started_at"] == moment(101.0)


def test_an_estimate_is_replaced_by_the_truth() -> None:
    guessed = after_all(STARTED, SizeEstimated(131.0, 900))
    assert (guessed.status, guessed.total_bytes, guessed.total_is_estimate) == (Status.STARTING, 900, True)
    assert guessed.since == 101.0, "it still waits for the same since then"
    known = apply(guessed, SIZES)
    assert (known.total_bytes, known.total_is_estimate, known.status) == (1000, False, Status.DOWNLOADING)


def test_no_hint_is_no_estimate() -> None:
    shown = snapshot(after_all(STARTED, SizeEstimated(131.0, None)))
    assert (shown["total_bytes"], shown["total_is_estimate"], shown["progress"]) == (0, False, 0.0)


def test_an_estimate_that_comes_late_changes_nothing() -> None:
    download = after_all(STARTED, SIZES)
    assert apply(download, SizeEstimated(131.0, 5)) == download


def test_waiting_tells_since_when_and_until_when() -> None:
    first = after_all(STARTED, Waiting(110.0, Phase.RETRYING, "Again in 2 s.", 112.0))
    assert (first.phase, first.since, first.deadline) == (Phase.RETRYING, 110.0, 112.0)
    second = apply(first, Waiting(112.0, Phase.RETRYING, "Again in 4 s.", 116.0))
    assert (second.since, second.deadline, second.message) == (110.0, 116.0, "Again in 4 s.")
    other = apply(second, Waiting(117.0, Phase.LISTING, "Asking.", None))
    assert (other.since, other.deadline) == (117.0, None)


def test_the_place_in_line() -> None:
    third = apply(FRESH, InLine(104.0, 3))
    assert third.message == "Waiting for a free slot, 3rd in line."
    second = apply(third, InLine(109.0, 2))
    assert (second.place, second.since) == (2, 104.0)
    assert apply(second, STARTED).place is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # Twenty seconds in line, thirty until the Hub answered, ten of transfer.
        (
            (Started(120.0, 1), replace(SIZES, at=150.0), Progressed(151.0, sample(1000))),
            "1.0 kB received in 10 s, 100 B/s; every byte verified.",
        ),
        # A file came again because it was wrong: from the beginning on.
        (
            (Started(120.0, 1), replace(SIZES, at=150.0), Verifying(155.0), replace(SIZES, at=155.0)),
            "All 1.0 kB were here already; every byte verified.",
        ),
        (
            (
                Started(120.0, 1),
                replace(SIZES, at=150.0),
                Verifying(155.0),
                replace(SIZES, at=155.0),
                Progressed(159.0, sample(1000, received_bytes=1500)),
            ),
            "1.5 kB received in 10 s, 150 B/s; every byte verified.",
        ),
        # The run before was stopped half-way: only this one's bytes and time.
        (
            (
                *(STARTED, SIZES, Progressed(103.0, sample(600)), Paused(104.0), Resumed(110.0), Started(120.0, 2)),
                replace(SIZES, at=150.0),
                Progressed(151.0, sample(1000, reused_bytes=600, received_bytes=400)),
            ),
            "400 B received in 10 s, 40 B/s; 600 B more were here already; every byte verified.",
        ),
    ],
)
def test_how_it_came_is_told_without_what_it_waited_for(changes: tuple[Change, ...], said: str) -> None:
    """120 MB that queued for 20 s were told as 3.4 MB/s."""
    done = after_all(*changes, Verifying(160.0), Completed(160.0))
    assert done.message == said


def test_a_moment_is_no_time_to_take_a_rate_over() -> None:
    done = after_all(STARTED, SIZES, Progressed(102.1, sample(1000)), Verifying(102.2), Completed(102.3))
    assert done.message == "1.0 kB received in less than a second; every byte verified."


def test_verifying_is_told_with_what_the_worker_says_then() -> None:
    """ "Everything is here and its bytes are right." was followed by "Checking the last bytes."."""
    told = after_all(STARTED, SIZES, Verifying(104.0, sample(1000, message="All of it is right.", files_done=3)))
    assert (told.status, told.phase, told.message) == (Status.VERIFYING, Phase.HASHING, "All of it is right.")
    assert (told.downloaded_bytes, told.files_done, told.since, told.last_byte_age_s) == (1000, 3, 104.0, None)


def test_complete_is_all_of_it() -> None:
    done = after_all(*HALF_WAY, Verifying(104.0), Completed(105.0))
    shown = snapshot(done)
    assert (shown["status"], shown["progress"], shown["downloaded_bytes"], shown["files_done"]) == (
        "completed",
        100.0,
        1000,
        3,
    )
    assert shown["phase"] is None
    assert shown["finished_at"] == moment(105.0)


def test_what_turned_out_wrong_is_fetched_again() -> None:
    again = after_all(*HALF_WAY, Verifying(104.0), SIZES)
    assert again.status is Status.DOWNLOADING
    with pytest.raises(MoveNotAllowed):
        apply(again, Completed(106.0))


def test_a_pause_keeps_the_figures_and_a_resume_takes_them_up() -> None:
    paused = after_all(*HALF_WAY, Paused(104.0))
    assert (paused.downloaded_bytes, paused.total_bytes, paused.desire) == (500, 1000, Desire.PAUSED)
    again = apply(apply(paused, Resumed(200.0)), Started(201.0, 2))
    assert (again.desire, again.attempt, again.epoch, again.downloaded_bytes) == (Desire.RUN, 2, 2, 500)
    assert again.received_bytes == 0, "nothing came over the wire in this run"
    assert again.started_at == 101.0


def test_a_full_disk_says_so_until_it_is_resumed() -> None:
    full = after_all(*HALF_WAY, Paused(104.0, "2 GB are missing.", "disk_full", "Free some."))
    assert (full.phase, full.error, full.error_code, full.advice) == (
        Phase.DISK_FULL,
        "2 GB are missing.",
        "disk_full",
        "Free some.",
    )
    assert (full.message, full.status) == ("2 GB are missing.", Status.PAUSED)
    resumed = apply(full, Resumed(105.0))
    assert (resumed.error, resumed.error_code, resumed.advice) == (None, None, None)


def test_a_failed_one_can_be_tried_again() -> None:
    failed = after_all(*HALF_WAY, Failed(104.0, "Gone.", "file_gone", "Start again."))
    assert (failed.error, failed.error_code, failed.advice, failed.finished_at) == (
        "Gone.",
        "file_gone",
        "Start again.",
        104.0,
    )
    resumed = apply(failed, Resumed(105.0))
    assert (resumed.status, resumed.error, resumed.finished_at) == (Status.QUEUED, None, None)


def test_a_cancel_says_what_is_left() -> None:
    clean = after_all(*HALF_WAY, Cancelled(104.0))
    assert (clean.message, clean.downloaded_bytes) == ("Cancelled. Nothing partial was kept.", 0)
    dirty = after_all(*HALF_WAY, Cancelled(104.0, "One file is held by another program."))
    assert dirty.message == "Cancelled. One file is held by another program."


def test_an_interrupted_one_waits_in_line_with_all_it_has() -> None:
    requeued = after_all(*HALF_WAY, Requeued(104.0))
    assert (requeued.status, requeued.downloaded_bytes, requeued.desire) == (Status.QUEUED, 500, Desire.RUN)


def test_silence_ages() -> None:
    download = after_all(*HALF_WAY)
    later = aged(download, 3.0)
    assert (later.last_byte_age_s, later.speed_bps, later.eta_s) == (3.5, 10.0, 5.0)
    long = aged(download, 60.0)
    assert (long.last_byte_age_s, long.speed_bps, long.eta_s) == (60.5, 0.0, None)
    not_due = after_all(STARTED)
    assert aged(not_due, 60.0) is not_due


def test_a_snapshot_begins_with_the_seven_names() -> None:
    names = ["task_id", "model_id", "status", "progress", "downloaded_bytes", "total_bytes", "error"]
    assert list(snapshot(FRESH))[:7] == names


def test_moments_are_utc_with_milliseconds() -> None:
    assert moment(1_700_000_000.1239) == "2023-11-14T22:13:20.123Z"
    assert moment(None) is None
