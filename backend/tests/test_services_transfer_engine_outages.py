"""The network goes and comes back: who is asked, when, and what the files learn from each other."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import Fault
from mlx_manager.domain.states import Phase
from transferring import FAST, KIB, MIB, PATIENT, Bench, bench, finish, told, until


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


def test_the_network_goes_and_comes_back(desk: Bench) -> None:
    jobs = desk.add({"a.bin": MIB, "b.bin": MIB})
    desk.hub.fault(Fault.stall(after=30 * KIB), where="cdn", nth=range(5, 9))
    transfer = desk.start(jobs, PATIENT)
    until(lambda: transfer.sample().downloaded_bytes > 200 * KIB)
    desk.hub.network_down()
    sample = told(transfer, Phase.RETRYING)
    assert "the connection was refused" in sample.message or "reset" in sample.message
    assert sample.deadline is not None
    until(lambda: "try in a row" in transfer.sample().message)
    stood = transfer.sample().downloaded_bytes
    desk.hub.network_up()
    sample = finish(transfer)
    desk.check(jobs)
    assert sample.received_bytes >= 2 * MIB > stood


def test_what_one_file_finds_out_the_others_need_not_wait_for(desk: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Each waits for two to four seconds; the first of them finds the network back."""
    jobs = desk.add({f"{number:02}.bin": FAST.piece_bytes for number in range(12)})
    for job in jobs:
        desk.hub.fault(Fault.drop(), where="cdn", path=job.path, times=1)
    patient = replace(PATIENT, backoff_first_s=4.0, backoff_near_s=4.0, backoff_max_s=4.0)
    with caplog.at_level(logging.INFO):
        desk.pull(jobs, replace(patient, connections=12, first_connections=12))
    promised, went_on = [], []
    for record in caplog.records:
        if wait := re.search(r"tried again in ([\d.]+) s", record.getMessage()):
            promised.append(record.created + float(wait[1]))
        elif "going on after" in record.getMessage():
            went_on.append(record.created)
    assert len(promised) == len(went_on) == len(jobs)
    assert max(went_on) < max(promised)


def test_a_cdn_that_is_gone_is_asked_for_anew(desk: Bench) -> None:
    """The address that was given leads to a host that is down: the Hub may know another."""
    jobs = desk.add({"model.safetensors": MIB})
    desk.hub.network_down("cdn")
    transfer = desk.start(jobs)
    desk.hub.wait_for(3, where="resolve")
    desk.hub.network_up("cdn")
    finish(transfer)
    desk.check(jobs)
