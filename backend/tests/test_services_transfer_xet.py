"""The Xet engine, with the real hf_xet, against a hub that speaks Xet: whole, stopped, stalled, lied to."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import psutil
import pytest

from api_client import ServerProcess
from fakes.hub_server import TOKEN, Fault, HubServer, Record, mlx_model_files
from mlx_manager.domain.states import Phase
from mlx_manager.errors import HashMismatch, SourceStalled, SourceTrouble, TransferError
from mlx_manager.services.transfer.journal import Journal
from mlx_manager.services.transfer.part import xet_part
from mlx_manager.services.transfer.sharing import Throttle
from mlx_manager.services.transfer.xet_process import CHILD, XetEnd, XetOrder, XetProcess, clean
from transferring import KIB, MIB, REPO, until
from xet_bench import HASTY, OPTIONS, XetBench, finish, parts, xet_bench

SIZE = 2 * MIB + 7


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[XetBench]:
    with xet_bench(tmp_path) as made:
        yield made


def test_files_come_by_xet_and_are_verified(desk: XetBench) -> None:
    jobs = desk.add({"a.safetensors": SIZE, "b.safetensors": b"small" * 100, "c.safetensors": SIZE + 1})
    transfer = desk.xet(jobs)
    transfer.start()
    sample = finish(transfer)
    desk.desk.check(jobs)
    total = sum(job.size for job in jobs)
    assert (sample.downloaded_bytes, sample.received_bytes, sample.reused_bytes) == (total, total, 0)
    assert [(file.path, file.done_bytes, file.state) for file in sample.files] == [
        (job.path, job.size, "done") for job in jobs
    ]
    assert sample.files_done == 3
    assert desk.hub.requests("cdn") == []
    assert len(desk.hub.requests("xet-token")) == 3, "one session for each file, however many ranges it comes in"
    assert all(desk.desk.verified.is_verified(job.target) for job in jobs)


def test_the_token_goes_to_the_hub_alone_and_nothing_is_reported(
    desk: XetBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")  # it is our own doing
    jobs = desk.add({"a.safetensors": SIZE})
    transfer = desk.xet(jobs)
    transfer.start()
    finish(transfer)
    assert desk.hub.requests("xet-token")[0].authorization == f"Bearer {TOKEN}"
    assert desk.hub.requests("cas")
    for record in desk.hub.requests("cas"):
        assert TOKEN not in f"{record.target} {record.headers}"
    assert desk.hub.requests("telemetry") == []


def test_nothing_is_left_beside_the_cache(desk: XetBench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """hf_xet would keep a log there, and a folder for each address of a store."""
    home = tmp_path / "home"
    for name in ("HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(home))
    transfer = desk.xet(desk.add({"a.safetensors": SIZE}))
    transfer.start()
    finish(transfer)
    assert not home.exists()
    assert list(desk.scratch.iterdir()) == []


def test_what_a_killed_server_left_is_swept(tmp_path: Path) -> None:
    """Where its child, too, is killed before it could tidy up; and what such a child makes a little later."""
    scratch = tmp_path / "data" / "xet"
    with HubServer(xet=True, xorb_size=64 * KIB) as hub:
        hub.add_model(REPO, mlx_model_files(SIZE))
        silence = hub.fault(Fault.stall(), "xorb")
        with ServerProcess(tmp_path, hub.url, MLX_MANAGER_ENGINE="xet") as server:
            server.api().download(REPO)
            silence.wait_hit()
            (child,) = psutil.Process(server.process.pid).children()
            child.suspend()
            server.send(signal.SIGKILL)
            server.ended()
            child.kill()
        (left,) = scratch.iterdir()
        with ServerProcess(tmp_path, hub.url, MLX_MANAGER_ENGINE="xet") as server:
            server.api()
            assert not left.exists()
            (scratch / "late").mkdir(parents=True, exist_ok=True)
            server.send(signal.SIGTERM)
            assert server.ended()[0] == 0
        assert not scratch.exists()


def test_a_redirect_does_not_take_the_token_along(desk: XetBench) -> None:
    jobs = desk.add({"a.safetensors": SIZE})
    away = {"Location": f"{desk.hub.cas_url}/v1/elsewhere"}
    desk.hub.fault(Fault.status(307, headers=away), "xet-token")
    transfer = desk.xet(jobs, HASTY)
    transfer.start()
    with pytest.raises(TransferError):
        finish(transfer)
    for record in desk.hub.requests("cas"):
        assert TOKEN not in f"{record.target} {record.headers}"


def test_telemetry_is_posted_when_it_is_wished(desk: XetBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so the test above would see it."""
    monkeypatch.delenv("HF_HUB_DISABLE_TELEMETRY")
    jobs = desk.add({"a.safetensors": SIZE})
    transfer = desk.xet(jobs, replace(OPTIONS, telemetry=True))
    transfer.start()
    finish(transfer)
    assert desk.hub.requests("telemetry", method="POST")


def test_a_stop_ends_it_at_once_and_what_came_is_kept(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    desk.hub.fault(Fault.stall(), "xorb", nth=range(4, 1000))
    transfer = desk.xet([job])
    transfer.start()
    until(lambda: transfer.sample().downloaded_bytes > 0)
    transfer.stop()
    desk.hub.wait_idle()
    kept = transfer.sample().downloaded_bytes
    assert 0 < kept < job.size
    assert Journal(xet_part(job.part), job.target.name, job.size).load().total == kept
    desk.hub.clear_faults()
    again = desk.xet([job])
    again.start()
    sample = finish(again)
    desk.desk.check([job])
    assert sample.reused_bytes == kept
    assert sample.received_bytes == job.size - kept


def test_wrong_bytes_are_never_published(desk: XetBench) -> None:
    good, bad = desk.add({"good.safetensors": SIZE, "bad.safetensors": SIZE + 1})
    desk.hub.fault(Fault.flip(1000), "xorb", "bad.*")
    transfer = desk.xet([bad, good])
    transfer.start()
    with pytest.raises(HashMismatch) as caught:
        finish(transfer)
    transfer.stop()
    assert caught.value.file == "bad.safetensors"
    assert not bad.target.exists()
    assert parts(bad) == set()


def test_a_stall_is_told_and_ended(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    desk.hub.fault(Fault.black_hole(), "xorb", nth=range(3, 1000))
    # hf_xet is patient here, so that it is ours which ends it.
    transfer = desk.xet([job], replace(OPTIONS, patience_s=1.0))
    transfer.start()
    until(lambda: transfer.sample().phase is Phase.STALLED)
    sample = transfer.sample()
    assert "a.safetensors" in sample.message
    assert sample.deadline is not None
    with pytest.raises(SourceStalled) as caught:
        finish(transfer)
    assert caught.value.file == "a.safetensors"
    transfer.stop()
    assert parts(job) == {"xet"}


FAULTS: list[tuple[str, Fault, str]] = [
    ("no token", Fault.status(401), "xet-token"),
    ("no such revision", Fault.status(404), "xet-token"),
    ("the Hub is silent", Fault.black_hole(), "xet-token"),
    ("a login page", Fault.html(), "xet-token"),
    ("unknown file", Fault.status(404), "reconstruction"),
    ("bad JSON", Fault.bad_json(), "reconstruction"),
    ("a silent store", Fault.black_hole(), "reconstruction"),
    ("server errors", Fault.status(503), "xorb"),
    ("expired for ever", Fault.expired_url(), "xorb"),
    ("resets", Fault.reset(after=1000), "xorb"),
    ("short", Fault.short_body(after=1000), "xorb"),
    ("stalls", Fault.stall(after=1000), "xorb"),
    ("no xorb at all", Fault.html(206), "xorb"),
    ("lengths that lie", Fault.flip(2, 255), "xorb"),
]


@pytest.mark.parametrize(("fault", "where"), [pytest.param(*rest, id=name) for name, *rest in FAULTS])
def test_whatever_is_wrong_it_ends_with_an_error_that_names_the_file(desk: XetBench, fault: Fault, where: str) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    handle = desk.hub.fault(fault, where)
    transfer = desk.xet([job], HASTY)
    transfer.start()
    with pytest.raises(TransferError) as caught:
        finish(transfer)
    transfer.stop()
    assert handle.hits
    assert caught.value.file == "a.safetensors"
    assert caught.value.detail.startswith("a.safetensors: ") or isinstance(caught.value, HashMismatch)
    for secret in (TOKEN, "Signature", "Expires"):
        assert secret not in caught.value.detail
    assert not job.target.exists()


def test_a_store_that_nobody_answers_for(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    desk.hub.network_down("cas")
    transfer = desk.xet([job], HASTY)
    transfer.start()
    with pytest.raises(SourceTrouble):
        finish(transfer)


def test_a_crash_of_hf_xet_is_an_error_and_no_more(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    stall = desk.hub.fault(Fault.stall(), "xorb")
    transfer = desk.xet([job])
    transfer.start()
    stall.wait_hit()
    os.kill(_child(), signal.SIGSEGV)
    with pytest.raises(SourceTrouble, match="status -11"):
        finish(transfer)


@pytest.mark.parametrize("ordered", [True, False])
def test_it_does_not_outlive_us_and_tidies_up(tmp_path: Path, ordered: bool) -> None:
    """Its input ends with us, however that came, also before its order; after a `kill -9` of ours nobody else removes
    its folder."""
    folder = tmp_path / "xet"
    (folder / "logs").mkdir(parents=True)
    order = {"path": "/dev/null", "hash": "0" * 64, "size": 1, "streams": 1, "report": False, "env": {}}
    line = json.dumps(order).encode() + b"\n"
    command = [sys.executable, "-P", str(CHILD), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(line if ordered else line[:20])
        child.stdin.close()
        assert child.wait(20) == 0
    assert not folder.exists()


def test_a_cap_holds(desk: XetBench) -> None:
    """One that may have next to nothing has what it asked for at first, and no more when one beside it is whole."""
    capped, free = desk.add({"capped.safetensors": SIZE, "free.safetensors": SIZE + 1})
    cap = Throttle(100)
    slow = desk.xet([capped], throttles=[cap])
    slow.start()
    until(lambda: slow.sample().received_bytes > 0)
    fast = desk.xet([free], throttles=[Throttle()])
    fast.start()
    finish(fast)
    assert slow.sample().received_bytes <= OPTIONS.streams * OPTIONS.piece_first
    cap.set_rate(None)
    finish(slow)
    desk.desk.check([capped, free])


def test_the_store_has_as_many_questions_at_a_time_as_there_are_streams(desk: XetBench) -> None:
    """However many xorbs lie in what is asked for: left to itself, hf_xet would ask for up to 64 at once."""
    (job,) = desk.add({"a.safetensors": 8 * MIB})
    # Two ranges of sixteen xorbs each. What is held for a moment is seen beside whatever comes in that moment.
    desk.hub.fault(Fault.delay(0.02), "xorb")
    held = desk.hub.fault(Fault.delay(), "xorb")
    transfer = desk.xet([job], replace(OPTIONS, piece_first=4 * MIB, piece_most=4 * MIB))
    transfer.start()
    held.wait_hit(OPTIONS.streams)
    held.clear()
    finish(transfer)
    assert _most_unanswered(desk.hub.requests("xorb")) == OPTIONS.streams


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        pytest.param(Fault.black_hole(), "xet-token", id="a token"),
        pytest.param(Fault.black_hole(), "reconstruction", id="a plan"),
        pytest.param(Fault.stall(after=1000), "xorb", id="bytes"),
    ],
)
def test_a_read_that_goes_silent_is_given_up_and_asked_for_again(desk: XetBench, fault: Fault, where: str) -> None:
    """Left to itself, hf_xet would wait for five minutes."""
    (job,) = desk.add({"a.safetensors": MIB})
    silence = desk.hub.fault(fault, where, times=1)
    # Our own patience, which would end all of it, is far longer.
    transfer = desk.xet([job], replace(OPTIONS, read_timeout_s=1.0))
    transfer.start()
    finish(transfer)
    desk.desk.check([job])
    desk.hub.wait_idle()
    assert [record.outcome for record in silence.records] == ["gone"]


def test_no_room_on_the_disk(desk: XetBench) -> None:
    (job,) = desk.add({"a.safetensors": SIZE})
    assert job.xet is not None
    ended: list[XetEnd] = []
    over = threading.Event()

    def end(why: XetEnd) -> None:
        ended.append(why)
        over.set()

    full = Path("/dev/full")
    order = XetOrder(job.xet.token_url, {}, job.xet.hash, SIZE, full, 1, OPTIONS.config(), desk.scratch)
    process = XetProcess(order, lambda start, end: None, end)
    try:
        process.fetch(0, 64 * KIB)
        assert over.wait(20)
        # Who is just about to ask for more has not heard of it yet; that failed the download as an error of our own.
        process.fetch(64 * KIB, 65 * KIB)
    finally:
        process.kill()
    assert [(why.kind, why.errno) for why in ended] == [("disk", errno.ENOSPC)]


def test_what_hf_xet_says_is_cleaned() -> None:
    said = clean("error for url (http://h/x?Signature=abc&b=c)\n with Bearer hf_secret, xet_secret and hf_secret")
    assert said == "error for url (http://h/x?…) with Bearer … xet_… and hf_…"


def _most_unanswered(records: list[Record]) -> int:
    """How many at the same time had not a byte of their answers yet and were not given up."""
    ends = [(one.at, one.answered_at or one.ended_at or inf) for one in records]
    return max(sum(began <= then.at < end for began, end in ends) for then in records)


def _child() -> int:
    """The one process that this test has started."""
    (child,) = [child for child in psutil.Process().children() if CHILD.name in " ".join(child.cmdline())]
    return child.pid
