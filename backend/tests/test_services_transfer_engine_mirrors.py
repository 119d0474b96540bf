"""Several sources for one file: the next one is asked when one fails, and all of them are verified."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import TOKEN, Blob, Fault, HubServer
from mlx_manager.errors import SourceRejected
from mlx_manager.services.ports import FileJob
from mlx_manager.services.transfer import CurlTransfer, TransferLimits
from mlx_manager.services.transfer.repair import SHARES
from transferring import KIB, MIB, QUICK, REPO, WIRE, Bench, finish

SIZE = 3 * MIB
LIMITS = replace(QUICK, stall_s=0.5, refusals=8)


class TwoHubs:
    """The Hub, and a mirror that holds the same repository."""

    def __init__(self, desk: Bench, mirror: HubServer) -> None:
        self.desk, self.hub, self.mirror = desk, desk.hub, mirror
        (self.job,) = desk.add({"model.safetensors": SIZE})
        mirror.add_model(REPO, {"model.safetensors": Blob(SIZE, 1)}, lfs={"model.safetensors": True})

    def mirrors_of(self, url: str) -> Sequence[str]:
        # The two hubs count their commits for themselves.
        return [f"{self.mirror.url}/{REPO}/resolve/main/{url.rpartition('/')[2]}"]

    def pull(self, jobs: Sequence[FileJob] = (), limits: TransferLimits = LIMITS) -> FileJob:
        jobs = jobs or [self.job]
        transfer = CurlTransfer(
            "mirrors",
            jobs,
            limits=limits,
            wire=WIRE,
            token_for=lambda url: TOKEN,
            verified=self.desk.verified,
            mirrors_of=self.mirrors_of,
        )
        self.desk.keep(transfer)
        transfer.start()
        finish(transfer, 20)
        for job in jobs:
            assert job.target.read_bytes() == self.hub.content(REPO, job.path)
        return self.job


@pytest.fixture
def two(tmp_path: Path) -> Iterator[TwoHubs]:
    with HubServer() as hub, HubServer() as mirror:
        desk = Bench(hub, tmp_path)
        yield TwoHubs(desk, mirror)
        desk.close()


@contextmanager
def three(tmp_path: Path, has: Collection[int]) -> Iterator[tuple[Bench, FileJob, HubServer, HubServer]]:
    """The Hub with a file, and two mirrors, of which these have it too."""
    with HubServer() as hub, HubServer() as first, HubServer() as second:
        desk = Bench(hub, tmp_path)
        (job,) = desk.add({"model.safetensors": SIZE})
        for number, mirror in enumerate((first, second)):
            mirror.add_model(REPO, {"model.safetensors": Blob(SIZE, 1)}, lfs={"model.safetensors": True})
            if number not in has:
                mirror.delete(REPO)
        yield desk, job, first, second
        desk.close()


def pull_from(desk: Bench, job: FileJob, mirrors: Sequence[HubServer]) -> None:
    transfer = CurlTransfer(
        "mirrors",
        [job],
        limits=QUICK,
        wire=WIRE,
        token_for=lambda url: TOKEN,
        verified=desk.verified,
        mirrors_of=lambda url: [f"{mirror.url}/{REPO}/resolve/main/{job.path}" for mirror in mirrors],
    )
    desk.keep(transfer)
    transfer.start()
    finish(transfer, 20)
    assert job.target.read_bytes() == desk.hub.content(REPO, job.path)


def test_while_the_hub_is_well_no_mirror_is_asked(two: TwoHubs) -> None:
    two.pull()
    assert two.mirror.requests() == []


def test_a_hub_that_is_gone_is_replaced(two: TwoHubs) -> None:
    two.hub.network_down()
    two.pull()
    assert two.mirror.bytes_sent() >= SIZE


def test_it_is_replaced_in_the_middle_of_a_file_and_keeps_what_came(two: TwoHubs) -> None:
    two.hub.fault(Fault.reset(after=48 * KIB), where="cdn")
    two.hub.fault(Fault.status(500), where="cdn", nth=range(8, 1000))
    two.pull()
    assert two.hub.bytes_sent() > 0
    assert 0 < two.mirror.bytes_sent() < SIZE


def test_what_one_file_finds_out_of_the_hub_counts_for_the_others(two: TwoHubs) -> None:
    """Three files, one after the other: only the first of them has to find out."""
    files = [f"model-{number}.safetensors" for number in (1, 2, 3)]
    jobs = two.desk.add(dict.fromkeys(files, SIZE))
    same = {path: Blob(SIZE, seed) for seed, path in enumerate(files, 1)}
    two.mirror.add_model(REPO, same, lfs=dict.fromkeys(files, True))
    two.hub.fault(Fault.status(500), where="cdn")
    two.pull(jobs, replace(LIMITS, first_connections=1, connections=1))
    assert {record.file for record in two.hub.requests("cdn")} == {files[0]}
    assert two.mirror.bytes_sent() == 3 * SIZE


def test_a_mirror_that_has_not_the_file_leads_back_to_the_hub(two: TwoHubs) -> None:
    two.mirror.delete(REPO)
    two.hub.fault(Fault.status(500), where="cdn", times=2)
    two.pull()
    assert two.mirror.requests()


@pytest.mark.parametrize("failures", [1, 2 * QUICK.refusals])
def test_mirrors_that_have_not_the_file_lead_back_to_a_hub_that_only_ailed(tmp_path: Path, failures: int) -> None:
    """They sent each other round, and their refusals were counted as the file's end."""
    with three(tmp_path, has=()) as (desk, job, *mirrors):
        desk.hub.fault(Fault.status(500), where="cdn", times=failures)
        pull_from(desk, job, mirrors)
        asked = len(desk.hub.requests("cdn"))
        assert all(0 < len(mirror.requests()) < max(2, asked) for mirror in mirrors), "refusals weigh more"


def test_a_mirror_that_only_ailed_is_asked_again_where_all_others_refuse(tmp_path: Path) -> None:
    with three(tmp_path, has=(1,)) as (desk, job, *mirrors):
        desk.hub.fault(Fault.status(403), where="cdn")
        mirrors[1].fault(Fault.status(500), where="cdn", times=3)
        pull_from(desk, job, mirrors)
        assert mirrors[1].bytes_sent() >= SIZE


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("mirror", ["down", "failing"])
def test_a_place_that_refused_once_is_asked_again_when_the_others_only_ail(
    two: TwoHubs, mirror: str, times: int
) -> None:
    """An address that had expired left the Hub out for good: the file waited for a mirror that was gone, for ever."""
    two.hub.fault(Fault.status(403), where="cdn", times=times)
    if mirror == "down":
        two.mirror.network_down()
    else:
        two.mirror.fault(Fault.status(500))
    two.pull()


def test_nor_is_a_mirror_left_out_whose_address_expired_while_the_hub_is_gone(two: TwoHubs) -> None:
    two.hub.network_down()
    two.mirror.fault(Fault.status(403), where="cdn", times=1)
    two.pull()


def test_nor_who_sent_one_wrong_byte(two: TwoHubs) -> None:
    two.hub.fault(Fault.flip(offset=100_000), where="cdn", times=1)
    two.mirror.network_down()
    two.pull()


def test_nor_in_the_middle_of_a_file(two: TwoHubs) -> None:
    two.hub.fault(Fault.status(403), where="cdn", nth=range(6, 8))
    two.mirror.network_down()
    two.pull(limits=replace(LIMITS, connections=1, first_connections=1))


def test_a_hub_that_always_refuses_is_believed_though_a_mirror_is_gone(two: TwoHubs) -> None:
    two.hub.fault(Fault.status(403), where="cdn")
    two.mirror.network_down()
    with pytest.raises(SourceRejected, match="was asked 6 times"):
        two.pull(limits=QUICK)


def test_a_rate_limit_of_the_hub_does_not_hold_the_mirror_up(two: TwoHubs) -> None:
    two.hub.fault(Fault.rate_limited(retry_after=3600), where="cdn")
    two.pull()
    assert two.mirror.bytes_sent() >= SIZE


def test_where_all_refuse_it_ends_and_says_so(tmp_path: Path) -> None:
    with three(tmp_path, has=()) as (desk, job, *mirrors):
        desk.hub.fault(Fault.status(403), where="cdn")
        with pytest.raises(SourceRejected, match="was asked"):
            pull_from(desk, job, mirrors)
        assert all(mirror.requests() for mirror in mirrors)


def test_a_mirror_that_has_nothing_is_not_asked_for_each_file(two: TwoHubs) -> None:
    """One answer of 500 sent two hundred files there, and each waited out its own refusal."""
    jobs = two.desk.add({f"part-{number:03}.bin": KIB for number in range(200)})
    two.mirror.delete(REPO)
    two.hub.fault(Fault.status(500), where="cdn", times=1)
    two.pull(jobs)
    most = 2 * LIMITS.first_connections
    assert 1 <= len(two.mirror.requests()) <= most, "those that were begun before the first refusal"


def test_wrong_bytes_of_one_are_made_good_by_the_other(two: TwoHubs) -> None:
    two.hub.fault(Fault.flip(offset=100_000), where="cdn")
    two.pull()
    assert two.mirror.bytes_sent() == SIZE // SHARES, "the wrong byte lies in the first share, and the rest was right"


def test_a_mirror_never_gets_the_token(two: TwoHubs) -> None:
    two.hub.network_down()
    two.pull()
    assert two.mirror.requests()
    assert [record.authorization for record in two.mirror.requests() if record.authorization] == []
