"""The engine and a no that is final; and to whom the token goes."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fakes.hub_server import TOKEN, Fault, HubServer
from mlx_manager.domain.states import Phase
from mlx_manager.errors import (
    AccessDenied,
    FileGone,
    GatedModel,
    MlxManagerError,
    SourceChanged,
    SourceRejected,
    TokenMissing,
    TokenRejected,
)
from mlx_manager.services.transfer import CurlTransfer
from transferring import FAST, KIB, REPO, WIRE, Bench, bench, finish, told


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.status(404, error_code="EntryNotFound"), FileGone),
        (Fault.status(404), FileGone),
        (Fault.status(410), FileGone),
        (Fault.status(401), TokenMissing),
        (Fault.status(401, error_code="RepoNotFound"), FileGone),
        (Fault.status(401, error_code="GatedRepo"), GatedModel),
        (Fault.status(403, error_code="GatedRepo"), GatedModel),
        (Fault.status(403), AccessDenied),
        (Fault.status(400), SourceRejected),
        (Fault.etag("f" * 64), SourceChanged),
    ],
)
def test_the_hubs_no_ends_it_at_once(desk: Bench, fault: Fault, error: type[MlxManagerError]) -> None:
    jobs = desk.add({"a.bin": 100 * KIB, "b.bin": 100 * KIB})
    desk.hub.fault(fault, where="resolve", path="a.bin")
    transfer = desk.start(jobs)
    with pytest.raises(error) as caught:
        finish(transfer)
    assert type(caught.value) is error
    assert caught.value.advice
    desk.close()
    assert len(desk.hub.requests("resolve", path="a.bin")) == 1
    assert not jobs[0].target.exists()
    desk.hub.wait_no_connections()


def test_another_content_is_refused_whatever_the_file_is_to_be_called(desk: Bench) -> None:
    """Without symbolic links its name is not its hash: all bytes came before anybody saw that they were others."""
    (job,) = desk.add({"a.bin": 100 * KIB})
    desk.hub.fault(Fault.etag("f" * 64), where="resolve")
    with pytest.raises(SourceChanged):
        finish(desk.start([replace(job, target=job.target.with_name("a.bin"))]))
    assert desk.hub.requests("cdn") == []


def test_a_gated_model_with_and_without_the_right_token(desk: Bench) -> None:
    jobs = desk.add({"a.bin": 10 * KIB, "config.json": b"{}"}, lfs={"a.bin": True, "config.json": False})
    desk.hub.add_model(REPO, {"a.bin": b"", "config.json": b""}, gated=True)
    with pytest.raises(GatedModel):
        finish(desk.start(jobs))
    with pytest.raises(GatedModel):
        finish(desk.start(jobs, token=TOKEN))
    desk.hub.grant(REPO)
    desk.pull(jobs, token=TOKEN)


def test_a_token_that_cannot_be_read_ends_it_with_its_own_reason(desk: Bench) -> None:
    jobs = desk.add({"a.bin": 10 * KIB})

    def broken(url: str) -> str | None:
        raise TokenRejected("The token file is broken.")

    transfer = CurlTransfer("test-task", jobs, limits=FAST, wire=WIRE, token_for=broken, verified=desk.verified)
    transfer.start()
    with pytest.raises(TokenRejected, match="broken"):
        finish(transfer)
    transfer.stop()


def test_circles_end(desk: Bench) -> None:
    jobs = desk.add({"a.bin": 10 * KIB})
    desk.hub.fault(Fault.redirect_loop(), where="resolve")
    with pytest.raises(SourceRejected):
        finish(desk.start(jobs, replace(FAST, refusals=2)))
    assert len(desk.hub.requests("resolve")) == 3


def test_a_longer_circle_ends_too(desk: Bench) -> None:
    """Each redirect leads to another address, and so on for ever."""
    jobs = desk.add({"a.bin": 10 * KIB})
    loop = desk.hub.fault(Fault.redirect_loop(), where="cdn")
    first = jobs[0].url.removeprefix(desk.hub.url)
    desk.hub.fault(
        Fault.status(302, headers={"Location": f"{first}?again"}), where="hub", when=lambda r: "?" not in r.target
    )
    desk.hub.fault(Fault.status(302, headers={"Location": first}), where="hub", when=lambda r: "?" in r.target)
    with pytest.raises(SourceRejected, match="circle"):
        finish(desk.start(jobs, replace(FAST, refusals=2)))
    assert not loop.hits
    assert len(desk.hub.requests("hub")) == 3 * 9


# -- the token


def test_the_token_goes_to_the_hub_and_not_to_the_cdn(desk: Bench) -> None:
    """The desk gives the token for every address: the engine itself must know better."""
    jobs = desk.add({"a.bin": 300 * KIB, "b.json": b"{}"}, lfs={"a.bin": True, "b.json": False})
    desk.hub.resolve_cache = True
    desk.pull(jobs, token=TOKEN)
    assert {record.authorization for record in desk.hub.requests(where="cdn")} == {None}
    assert {record.authorization for record in desk.hub.requests(where="hub")} == {f"Bearer {TOKEN}"}


def test_the_token_does_not_go_to_another_port_of_the_same_host(desk: Bench) -> None:
    jobs = desk.add({"a.json": b"{}"}, lfs=False)
    with HubServer() as other:
        other.add_model(REPO, {"a.json": b"{}"}, lfs={"a.json": False})
        target = jobs[0].url.replace(desk.hub.url, other.url).replace(jobs[0].url.split("/")[-2], "main")
        desk.hub.fault(Fault.status(307, headers={"Location": target}), where="resolve")
        desk.pull(jobs, token=TOKEN)
        assert [record.authorization for record in other.requests()] == [None]


def test_no_token_and_no_signed_address_in_the_log_or_the_sample(desk: Bench, caplog: pytest.LogCaptureFixture) -> None:
    jobs = desk.add({"a.bin": 300 * KIB})
    desk.hub.fault(Fault.status(500), where="cdn", times=2)
    desk.hub.fault(Fault.expired_url(), nth=4)
    desk.hub.fault(Fault.reset(after=1000), where="cdn", nth=5)
    transfer = desk.start(jobs, replace(FAST, backoff_first_s=0.3), token=TOKEN)
    sample = told(transfer, Phase.RETRYING)
    assert sample.message
    finish(transfer)
    for text in (caplog.text, sample.message):
        assert TOKEN not in text
        assert "Signature" not in text
        assert "?" not in text


# -- TLS


def test_from_tls_nobody_is_led_out_of_it(desk: Bench, tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    openssl = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hub"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run([*openssl.split(), *names], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    jobs = desk.add({"a.bin": 300 * KIB})
    trusting = replace(WIRE, ca_file=str(cert))
    with HubServer(tls=context) as secure:
        (plain,) = jobs
        url = plain.url.replace(desk.hub.url, secure.url).replace(plain.url.split("/")[-2], "main")
        (job,) = [replace(plain, url=url)]
        secure.add_model(REPO, {"a.bin": desk.hub.content(REPO, "a.bin")}, lfs={"a.bin": True})
        led = secure.fault(Fault.status(302, headers={"Location": f"{desk.hub.cdn_url}/a"}), where="resolve")
        with pytest.raises(SourceRejected, match="without TLS"):
            finish(desk.start([job], wire=trusting))
        assert desk.hub.requests() == []
        led.clear()
        # A certificate that is not trusted is told, and tried again: it may be a hotel's page to log in.
        transfer = desk.start([job], replace(FAST, backoff_first_s=0.5, backoff_max_s=0.5))
        assert "certificate is not trusted" in told(transfer, Phase.RETRYING).message
        transfer.stop()
        desk.pull([job], wire=trusting)
