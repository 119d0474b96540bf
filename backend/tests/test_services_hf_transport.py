"""The way to the Hub: names, ports, certificates and proxies, each failure with its cause."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from certificates import make_certificate, server_context
from fakes.hub_server import TOKEN, HubServer
from fakes.proxy import LoopbackProxy
from hub_questions import Clients, plan, without_proxies
from mlx_manager.errors import HubBadAnswer, HubError, HubTimeout, HubUnreachable
from mlx_manager.services.hf_client import HubClient
from mlx_manager.services.hf_transport import Question, origin_of
from mlx_manager.services.hf_transport.network import BoundedBackend
from mlx_manager.services.hf_transport.proxies import environment_proxies

REPO = "org/Tiny-4bit"


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxies(monkeypatch)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, {"config.json": "{}"})
        yield hub


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody trusts yet, and its key."""
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls_hub(certificate: tuple[Path, Path]) -> Iterator[HubServer]:
    with HubServer(tls=server_context(*certificate)) as hub:
        hub.add_model(REPO, {"config.json": "{}"})
        yield hub


Ask = Callable[..., HubError | None]


@pytest.fixture
def ask() -> Iterator[Ask]:
    """Ask for the plan of a model; returns how that failed, None when it did not."""
    with Clients() as clients:

        def ask(endpoint: str, **options: Any) -> HubError | None:
            try:
                assert plan(clients(endpoint, **options), REPO).files
            except HubError as error:
                return error
            return None

        yield ask


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


# -- the direct way


def test_a_name_that_is_none(ask: Ask) -> None:
    error = ask("https://hub.invalid")
    assert isinstance(error, HubUnreachable)
    assert error.detail.startswith("The name hub.invalid cannot be resolved: ")


def test_a_port_where_nobody_listens(ask: Ask) -> None:
    port = free_port()
    error = ask(f"http://127.0.0.1:{port}")
    assert isinstance(error, HubUnreachable)
    assert error.detail == f"Connection refused by 127.0.0.1:{port}: nothing listens there."


def test_a_name_of_several_addresses_is_reached_by_the_one_that_answers(hub: HubServer, ask: Ask) -> None:
    # The hub listens on 127.0.0.1 alone; on most machines localhost is ::1 too, and first.
    assert ask(hub.url.replace("127.0.0.1", "localhost")) is None


def test_an_address_that_swallows_packets_does_not_hide_the_others(hub: HubServer) -> None:
    """As behind a broken IPv6 route: of three addresses one is a hole, one refuses, and the last is the hub."""
    _, _, port = origin_of(hub.url)
    try:
        hole = FullServer("127.0.0.2", port)
    except OSError:
        pytest.skip("127.0.0.2 is not this machine here")
    backend = BoundedBackend(look_up=lambda host, port: ["127.0.0.2", "127.0.0.3", "127.0.0.1"])
    question = Question(hub.url, timeout_s=30, deadline_s=20)
    with hole, question.here():
        stream = backend.connect_tcp("hub.invalid", port)
        assert stream.get_extra_info("server_addr") == ("127.0.0.1", port)
        stream.close()


def test_a_host_that_swallows_packets(ask: Ask) -> None:
    with FullServer() as port:
        error = ask(f"http://127.0.0.1:{port}", timeout_s=0.5)
    assert isinstance(error, HubTimeout)
    assert error.detail == f"127.0.0.1 was silent for 0.5 s (connecting to 127.0.0.1:{port})."


@pytest.mark.parametrize("endpoint", ["", "huggingface.co", "ftp://huggingface.co", "http://", "http://host:port"])
def test_an_endpoint_that_is_no_url(ask: Ask, endpoint: str) -> None:
    error = ask(endpoint)
    assert isinstance(error, HubUnreachable) and "HF_ENDPOINT" in error.detail


def test_a_server_that_does_not_speak_http(ask: Ask) -> None:
    with OneAnswer(b"SSH-2.0-OpenSSH_9.2\r\n\r\n") as port:
        error = ask(f"http://127.0.0.1:{port}")
    assert isinstance(error, HubBadAnswer) and "HTTP" in error.detail


def test_an_answer_without_end(ask: Ask) -> None:
    with OneAnswer(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (40 << 20)) as port:
        error = ask(f"http://127.0.0.1:{port}")
    assert isinstance(error, HubBadAnswer) and "32 MiB" in error.detail


# -- TLS


def test_a_certificate_that_is_not_trusted(tls_hub: HubServer, ask: Ask) -> None:
    error = ask(tls_hub.url)
    assert isinstance(error, HubUnreachable)
    assert f"certificate of {origin(tls_hub)} is not trusted: self-signed certificate" in error.detail
    assert "SSL_CERT_FILE" in error.advice
    assert not tls_hub.requests()


def test_a_certificate_that_the_environment_trusts(
    tls_hub: HubServer, certificate: tuple[Path, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    assert ask(tls_hub.url) is None


@pytest.mark.parametrize("holds", [None, "no certificate"])
def test_certificates_that_cannot_be_read(
    hub: HubServer, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holds: str | None
) -> None:
    named = tmp_path / "trusted.pem"
    if holds is not None:
        named.write_text(holds)
    monkeypatch.setenv("SSL_CERT_FILE", str(named))
    error = ask(hub.url)
    assert error is not None and not error.transient, "waiting makes nothing better"
    assert "certificates that are to be trusted cannot be read" in error.detail
    assert "SSL_CERT_FILE" in error.advice
    assert not hub.requests()


def test_a_server_that_speaks_no_tls(ask: Ask) -> None:
    with OneAnswer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        error = ask(f"https://127.0.0.1:{port}")
    assert isinstance(error, HubUnreachable) and error.detail.startswith(f"No TLS with 127.0.0.1:{port}: ")


# -- proxies


def test_an_http_hub_behind_a_proxy(hub: HubServer, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackProxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.address}")
        assert ask(hub.url) is None
        assert proxy.asked[0] == f"GET {hub.url}/api/models/{REPO}/revision/main HTTP/1.1"
        assert len(hub.requests()) == 2
        assert hub.connections_made == len(proxy.asked)


def test_an_https_hub_behind_a_proxy_with_a_password(
    tls_hub: HubServer, certificate: tuple[Path, Path], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with LoopbackProxy(login="me:secret") as proxy:
        monkeypatch.setenv("https_proxy", f"http://me:secret@{proxy.address}")
        assert ask(tls_hub.url, token=TOKEN) is None
        assert proxy.asked == [f"CONNECT {origin(tls_hub)} HTTP/1.1"]


@pytest.mark.parametrize("secure", [False, True])
def test_a_proxy_that_wants_a_password(
    hub: HubServer, ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, secure: bool
) -> None:
    with LoopbackProxy(login="me:secret") as proxy, caplog.at_level(logging.DEBUG):
        monkeypatch.setenv("all_proxy", f"http://me:wr0ng@{proxy.address}")
        error = ask(hub.url.replace("http:", "https:") if secure else hub.url)
    assert isinstance(error, HubUnreachable)
    assert proxy.address in error.detail and "407" in error.detail
    assert "wr0ng" not in f"{error.detail} {error.advice} {error.__cause__} {caplog.text}"
    assert not hub.requests()


def test_a_proxy_that_is_not_there(hub: HubServer, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{port}")
    error = ask(hub.url)
    assert isinstance(error, HubUnreachable)
    assert error.detail == f"Connection refused by the proxy 127.0.0.1:{port}: nothing listens there."
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    error = ask(hub.url)
    assert error is not None
    assert error.detail.startswith("The name proxy.invalid of the proxy cannot be resolved: ")


def test_hosts_that_go_past_the_proxy(hub: HubServer, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "example.com,127.0.0.0/8")
    assert ask(hub.url) is None


def test_a_proxy_that_cannot_be_used(hub: HubServer, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://me:secret@127.0.0.1:1080")
    error = ask(hub.url)
    assert isinstance(error, HubUnreachable) and "socksio" in error.detail and "secret" not in error.detail
    monkeypatch.setenv("http_proxy", "gopher://me:secret@127.0.0.1")
    error = ask(hub.url)
    assert isinstance(error, HubUnreachable) and "not a URL" in error.detail and "secret" not in error.detail


HOSTS = (
    "http://huggingface.co https://huggingface.co https://www.huggingface.co https://cas.hf.co http://localhost:1 "
    "http://127.0.0.1:8080 http://10.1.2.3 http://[::1]:80 http://[fd00::5] https://nothuggingface.co"
)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"http_proxy": "proxy:3128"},
        {"https_proxy": "http://u:p@proxy:3128", "no_proxy": "huggingface.co"},
        {"all_proxy": "http://proxy", "no_proxy": ".huggingface.co, localhost,127.0.0.1"},
        {"all_proxy": "http://proxy", "no_proxy": "*.huggingface.co,10.0.0.0/8,::1,fd00::/8"},
        {"http_proxy": "http://a", "https_proxy": "http://b", "no_proxy": "[::1],127.0.0.1/8,bad host,10.0.0.0/99,a/b"},
        {"http_proxy": "http://a", "https_proxy": "http://b", "no_proxy": "x,*,y"},
        {"http_proxy": "http://a", "all_proxy": "http://b", "no_proxy": "https://huggingface.co,,hf.co:443"},
    ],
)
def test_proxies_are_chosen_as_httpx2_chooses_them(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    """The canary for our copy of its rules: what its own client would do, told by its private mounts."""
    monkeypatch.setattr(urllib.request, "getproxies", urllib.request.getproxies_environment)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ours = environment_proxies()
    mounts = {pattern: None if proxy is None else Marked(proxy) for pattern, proxy in ours.items()}
    with httpx2.Client() as theirs, httpx2.Client(transport=Marked("direct"), mounts=mounts) as mine:
        for host in HOSTS.split():
            url = httpx2.URL(host)
            direct = theirs._transport_for_url(url) is theirs._transport
            chosen = mine._transport_for_url(url)
            assert isinstance(chosen, Marked)
            assert (chosen.name == "direct") == direct, host


class Marked(httpx2.BaseTransport):
    def __init__(self, name: str) -> None:
        self.name = name


# -- threads


def test_a_hung_thread_does_not_keep_the_process_from_ending() -> None:
    program = """
        import asyncio, sys
        from mlx_manager.domain.catalog import ModelRequest
        from mlx_manager.services.hf_client import HubClient
        client = HubClient(sys.argv[1], token=lambda: None, timeout_s=300, deadline_s=300)
        try:
            asyncio.run(asyncio.wait_for(client.plan(ModelRequest("org/name")), 0.5))
        except TimeoutError:
            print("left")
    """
    with FullServer() as port:
        # Within connect() nothing can wake the thread: it is there until the process is not.
        command = [sys.executable, "-c", textwrap.dedent(program), f"http://127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("left\n", 0), done.stderr


def test_outside_of_a_question_nothing_is_asked(hub: HubServer) -> None:
    client = HubClient(hub.url, token=lambda: None)
    with pytest.raises(RuntimeError, match="outside of a Question"):
        client.get(f"{hub.url}/api/models/{REPO}", None)
    client.close()
    assert not hub.requests()


def test_a_question_takes_its_asker_s_context_along(hub: HubServer) -> None:
    question = Question(hub.url, 1, 10)

    async def ask() -> tuple[Question | None, Question | None]:
        return await question.ask(Question.current), Question.current()

    assert asyncio.run(ask()) == (question, None)


# -- helpers


class FullServer:
    """A port whose queue is full: the kernel drops what knocks. Gives the port."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._listener = socket.create_server((host, port), backlog=0)
        self._address = self._listener.getsockname()
        self._waiting: list[socket.socket] = []

    def __enter__(self) -> int:
        while True:
            sock = socket.socket()
            self._waiting.append(sock)
            sock.settimeout(0.2)
            try:
                sock.connect(self._address)
            except TimeoutError:
                return int(self._address[1])

    def __exit__(self, *_: object) -> None:
        for sock in (*self._waiting, self._listener):
            sock.close()


class OneAnswer:
    """A server that says the same to the first who speaks to it, whatever was said, and ends. Gives the port."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def __enter__(self) -> int:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        with sock, suppress(OSError):
            sock.recv(65536)
            sock.sendall(self._answer)

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()


def origin(hub: HubServer) -> str:
    _, host, port = origin_of(hub.url)
    return f"{host}:{port}"
