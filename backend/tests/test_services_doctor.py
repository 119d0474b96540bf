"""The check-up's probes, against a hub that really fails."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import make_certificate, server_context
from fakes.hub_server import TOKEN, Fault, HubServer, mlx_model_files
from fakes.proxy import LoopbackProxy
from hub_cache import everything, nobody_special, open_folder
from mlx_manager.domain.diagnosis import Finding, Level, note, well, wrong
from mlx_manager.services.doctor import (
    Check,
    HubAnswers,
    HubWay,
    examine,
    look_at_cache,
    look_at_disk,
    look_at_folder,
)

REPO = "mlx-community/Tiny-4bit"
LIMIT_S = 5.0
SHORT_S = 0.2


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def shared_hub() -> Iterator[HubServer]:
    with HubServer(xet=True) as hub:
        hub.add_model(REPO, mlx_model_files(100_000))
        yield hub


@pytest.fixture
def hub(shared_hub: HubServer) -> Iterator[HubServer]:
    shared_hub.clear_log()
    yield shared_hub
    shared_hub.clear_faults()
    shared_hub.wait_no_connections()


@pytest.fixture
def hub_of_its_own() -> Iterator[HubServer]:
    """To be cut off in part."""
    with HubServer(xet=True) as hub:
        hub.add_model(REPO, mlx_model_files(100_000))
        yield hub


# --- the order of checks ----------------------------------------------------------------------------------------------


def run(*checks: Check) -> dict[str, Finding]:
    return {pending.check.name: pending.result().finding for pending in examine(checks)}


def test_checks_run_side_by_side() -> None:
    """Two that wait for one another would wait for ever if one came after the other."""
    together = threading.Barrier(2, timeout=LIMIT_S)

    def look() -> Finding:
        together.wait()
        return well("met")

    found = run(Check("one", "One", look, LIMIT_S), Check("other", "Other", look, LIMIT_S))
    assert set(found.values()) == {well("met")}


def test_one_that_hangs_is_left_behind_and_holds_up_only_those_that_need_it() -> None:
    release = threading.Event()

    def hang() -> Finding:
        release.wait()
        return well("too late")

    try:
        found = run(
            Check("hangs", "The slow one", hang, SHORT_S),
            Check("needs", "Needs", lambda: well("asked"), LIMIT_S, after=("hangs",)),
            Check("needs_that", "Needs that", lambda: well("asked"), LIMIT_S, after=("needs",)),
            Check("free", "Free", lambda: well("asked"), LIMIT_S),
        )
    finally:
        release.set()
    assert found["hangs"] == wrong("no answer within 0.2 s")
    assert (found["needs"].level, found["needs"].said) == (Level.SKIPPED, "not asked, because of The slow one")
    assert found["needs_that"].said == "not asked, because of The slow one", "the cause, not the next in line"
    assert found["free"] == well("asked")


def test_a_note_stops_nobody() -> None:
    found = run(
        Check("odd", "Odd", lambda: note("odd"), LIMIT_S),
        Check("next", "Next", lambda: well("asked"), LIMIT_S, after=("odd",)),
    )
    assert found["next"] == well("asked")


def test_a_check_that_breaks_is_told_and_the_others_come() -> None:
    def breaks() -> Finding:
        raise ZeroDivisionError("by nothing")

    def refuses() -> Finding:
        raise PermissionError(13, "Permission denied", "/the/place")

    found = run(Check("breaks", "B", breaks, LIMIT_S), Check("refuses", "R", refuses, LIMIT_S))
    assert found["breaks"] == wrong("the check itself broke: ZeroDivisionError: by nothing")
    assert found["refuses"] == wrong("/the/place: Permission denied")


# --- the way to the Hub -----------------------------------------------------------------------------------------------


def way_to(url: str, *, proxy: str | None = None, trust: ssl.SSLContext | None = None) -> HubWay:
    return HubWay(url, proxy, trust or ssl.create_default_context(), SHORT_S)


def all_steps(way: HubWay) -> list[Finding]:
    return [way.name(), way.connection(), way.tls()]


@contextlib.contextmanager
def listener() -> Iterator[int]:
    """Accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_way_to_a_hub_on_this_machine(hub: HubServer) -> None:
    name, connection, tls = all_steps(way_to(hub.url))
    assert name == well("127.0.0.1 is an address itself")
    assert connection == well(f"127.0.0.1 answers at port {hub.url.rpartition(':')[2]}")
    assert tls.level is Level.WELL and "not used" in tls.said


def test_a_name_that_nobody_knows() -> None:
    found = way_to("https://hub.invalid").name()
    assert found.level is Level.WRONG
    assert found.said.startswith("hub.invalid cannot be found: ")
    assert found.advice is not None and "HF_ENDPOINT" in found.advice


def test_a_port_where_nobody_listens() -> None:
    with listener() as port:
        pass
    way = way_to(f"https://127.0.0.1:{port}")
    way.name()
    assert way.connection().said == f"127.0.0.1 port {port}: nothing listens there"
    assert way.tls().level is Level.SKIPPED


def test_one_who_is_silent_when_it_comes_to_tls() -> None:
    with listener() as port:
        *_, tls = all_steps(way_to(f"https://127.0.0.1:{port}"))
    assert tls.level is Level.WRONG
    assert tls.said == "127.0.0.1 was silent for 0.2 s while agreeing on TLS"


def test_one_who_speaks_no_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        way = way_to(f"https://127.0.0.1:{server.getsockname()[1]}")
        way.name()
        way.connection()
        with server.accept()[0] as other:
            other.sendall(b"220 mail.example.com ESMTP\r\n")
            tls = way.tls()
    assert tls.level is Level.WRONG
    assert tls.said.startswith("127.0.0.1 does not agree on TLS: ")


def test_a_certificate_that_is_not_trusted_and_one_that_is(certificate: tuple[Path, Path]) -> None:
    with HubServer(tls=server_context(*certificate)) as hub:
        *_, refused = all_steps(way_to(hub.url))
        *_, trusted = all_steps(way_to(hub.url, trust=ssl.create_default_context(cafile=certificate[0])))
    assert refused.said == "the certificate of 127.0.0.1 is not trusted: self-signed certificate"
    assert refused.advice is not None and "SSL_CERT_FILE" in refused.advice
    assert trusted.level is Level.WELL
    assert trusted.said.startswith("TLSv1.3, certificate until 20")


def test_through_a_proxy_with_a_password(certificate: tuple[Path, Path]) -> None:
    trust = ssl.create_default_context(cafile=certificate[0])
    with HubServer(tls=server_context(*certificate)) as hub, LoopbackProxy("me:s3cr%t") as proxy:
        let_in = all_steps(way_to(hub.url, proxy=f"http://me:s3cr%25t@{proxy.address}", trust=trust))
        kept_out = all_steps(way_to(hub.url, proxy=f"http://me:wrong@{proxy.address}", trust=trust))
        target = hub.url.removeprefix("https://")
        assert proxy.asked == [f"CONNECT {target} HTTP/1.1"] * 2
    assert [found.level for found in let_in] == [Level.WELL] * 3
    assert let_in[0].said == "the proxy 127.0.0.1 is an address itself"
    assert kept_out[2].said == f"the proxy 127.0.0.1 does not let us through to {target}: it answers 407"
    assert "wrong" not in f"{kept_out}".replace("Level.WRONG: 'wrong'", ""), "no password is told"


# --- what the Hub answers ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def asking(hub: HubServer, token: str | None = None, timeout_s: float = LIMIT_S) -> Iterator[HubAnswers]:
    answers = HubAnswers(
        hub.url,
        trust=ssl.create_default_context(),
        timeout_s=timeout_s,
        token=lambda: token,
        user_agent="test",
        platform="Linux",
    )
    with contextlib.closing(answers):
        yield answers


def test_a_hub_that_is_well(hub: HubServer) -> None:
    with asking(hub, TOKEN) as answers:
        assert answers.api() == well("answers")
        assert answers.clock() == well("agrees with the Hub's")
        assert answers.whoami().said.startswith("a read token of tester: reads public models")
        assert answers.file_byte() == well("127.0.0.1 sends ranges of files")
        assert answers.xet(off=False, first=False) == well("127.0.0.1 answers")
        assert answers.mirror(hub.url) == well(f"{hub.url} answers")
    told = [record for record in hub.requests() if record.authorization == f"Bearer {TOKEN}"]
    assert [record.route for record in told] == ["whoami"], "the token goes where it is asked about and nowhere else"
    assert hub.bytes_sent() == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.status(503), "it answers with 503"),
        (Fault.html(), "what answers is not the Hub's API"),
        (Fault.bad_json(), "what answers is not the Hub's API"),
        (Fault.edit_json(lambda found: {"models": found}), "what answers is not the Hub's API"),
        (Fault.black_hole(), "no answer within 0.2 s"),
        (Fault.drop(), "Connection reset by peer"),
    ],
)
def test_an_api_that_is_not_well(hub: HubServer, fault: Fault, said: str) -> None:
    hub.fault(fault, where="search")
    with asking(hub, timeout_s=SHORT_S) as answers:
        found = answers.api()
    assert (found.level, found.said) == (Level.WRONG, said)


def test_a_clock_that_is_wrong(hub: HubServer) -> None:
    hub.fault(Fault.header("Date", "Thu, 01 Jan 2026 00:00:00 GMT"), where="search")
    with asking(hub) as answers:
        answers.api()
        found = answers.clock()
    assert found.level is Level.WRONG
    assert found.said.endswith(" ahead of the Hub's")
    assert found.fix == "sudo timedatectl set-ntp true"


def test_a_token_that_is_none_and_no_token(hub: HubServer) -> None:
    with asking(hub, "hf_expired") as answers:
        found = answers.whoami()
    assert (found.level, found.said, found.fix) == (Level.WRONG, "the Hub does not accept it", "hf auth login")
    assert "hf_expired" not in f"{found}"
    with asking(hub) as answers:
        assert answers.whoami().level is Level.WELL
    assert len(hub.requests("whoami")) == 1


@pytest.mark.parametrize(
    ("fault", "level", "said"),
    [
        (Fault.ignore_range(), Level.NOTE, "127.0.0.1 sends whole files only"),
        (Fault.expired_url(), Level.WRONG, "127.0.0.1 refuses a public file (403)"),
        (Fault.redirect_loop(), Level.WRONG, "it redirects in a circle"),
        (Fault.black_hole(), Level.WRONG, "no answer within 0.2 s"),
    ],
)
def test_files_that_do_not_come(hub: HubServer, fault: Fault, level: Level, said: str) -> None:
    hub.fault(fault, where="cdn")
    with asking(hub, timeout_s=SHORT_S) as answers:
        answers.api()
        found = answers.file_byte()
    assert (found.level, found.said) == (level, said)


def test_a_cdn_that_is_gone(hub_of_its_own: HubServer) -> None:
    hub_of_its_own.network_down("cdn")
    with asking(hub_of_its_own) as answers:
        answers.api()
        found = answers.file_byte()
    assert (found.level, found.said) == (Level.WRONG, "Connection refused")


def test_a_hub_without_a_file_to_try_with() -> None:
    with HubServer() as empty, asking(empty) as answers:
        assert answers.api().level is Level.WELL
        assert answers.file_byte().level is Level.SKIPPED
        assert answers.xet(off=False, first=False).level is Level.SKIPPED


def test_a_store_for_xet_that_is_gone_matters_only_where_it_comes_first(hub_of_its_own: HubServer) -> None:
    hub_of_its_own.network_down("cas")
    with asking(hub_of_its_own) as answers:
        answers.api()
        answers.file_byte()
        second, first = answers.xet(off=False, first=False), answers.xet(off=False, first=True)
        assert answers.xet(off=True, first=False).level is Level.SKIPPED
    assert (second.level, second.said) == (Level.NOTE, "127.0.0.1: Connection refused")
    assert (first.level, first.fix) == (Level.WRONG, "unset MLX_MANAGER_ENGINE")


# --- the ground -------------------------------------------------------------------------------------------------------


def test_a_cache_that_is_well_is_left_as_it_was(tmp_path: Path) -> None:
    cache = tmp_path / "hub"
    (cache / "models--org--name" / "blobs").mkdir(parents=True)
    before = everything(tmp_path)
    facts = look_at_cache(cache)
    assert (facts.folder.exists, facts.folder.problem, facts.symlinks, facts.locks) == (True, None, True, True)
    assert facts.elsewhere == ()
    assert everything(tmp_path) == before


def test_folders_that_are_not_there_yet_are_not_made(tmp_path: Path) -> None:
    facts = look_at_cache(tmp_path / "not" / "yet")
    assert (facts.folder.exists, facts.folder.problem) == (False, None)
    assert look_at_disk(tmp_path / "not" / "yet", 0, 0).total > 0
    assert everything(tmp_path) == []


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "hub").touch()
    for folder in (tmp_path / "hub", tmp_path / "hub" / "below"):
        assert look_at_folder(folder).problem == "there is a file in its place"


def test_a_folder_that_is_somebody_else_s() -> None:
    with open_folder() as folder:
        closed = folder / "closed"
        closed.mkdir(mode=0o755)
        with nobody_special():
            assert look_at_folder(closed).problem == "Permission denied"
            assert look_at_folder(closed / "below").problem == f"no write access to {closed}"


def test_a_model_on_another_disk_is_named(tmp_path: Path) -> None:
    """A memory disk that every Linux has stands for a second volume."""
    other = Path("/dev/shm")
    if not os.access(other, os.W_OK) or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second disk to be had")
    for name in ("models--org--here", "models--org--there"):
        (tmp_path / name).mkdir()
    (tmp_path / "models--org--there" / "blobs").symlink_to(other)
    assert look_at_cache(tmp_path).elsewhere == ("models--org--there/blobs",)
