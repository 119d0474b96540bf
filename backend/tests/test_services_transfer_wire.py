"""libcurl as we use it: its own loop, proxies as told, TLS as told, and every end said in plain words."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pycurl
import pytest

from fakes.hub_server import Fault, HubServer
from fakes.proxy import LoopbackProxy
from mlx_manager.services.transfer.wire import Exchange, Head, Wire, WireFailure, WireOptions

REPO, PATH = "org/model", "weights.txt"
DATA = os.urandom(300_000)
OPTIONS = WireOptions("tests/1", 5.0)


class Ear:
    """A listener that keeps what it hears; it ends the exchange once it has ``enough``."""

    def __init__(self, enough: int | None = None) -> None:
        self.body = b""
        self.head: Head | None = None
        self.failure: WireFailure | None = None
        self.ends = 0
        self._enough = enough

    def on_body(self, head: Head, chunk: bytes) -> bool:
        self.body += chunk
        return self._enough is None or len(self.body) < self._enough

    def on_end(self, head: Head, failure: WireFailure | None) -> None:
        self.head, self.failure = head, failure
        self.ends += 1


@contextlib.contextmanager
def wired(options: WireOptions = OPTIONS) -> Iterator[Wire]:
    wire = Wire(options)
    try:
        yield wire
    finally:
        wire.shutdown()


def run(wire: Wire, *ears: Ear, timeout: float = 10) -> None:
    end = time.monotonic() + timeout
    while not all(ear.ends for ear in ears):
        assert time.monotonic() < end
        wire.run(0.1)


def get(url: str, options: WireOptions = OPTIONS, byte_range: tuple[int, int] | None = None) -> Ear:
    ear = Ear()
    with wired(options) as wire:
        wire.open(url, [], byte_range, ear)
        run(wire, ear)
    assert ear.ends == 1
    return ear


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, {PATH: DATA}, lfs={PATH: False})
        yield hub


def url(hub: HubServer) -> str:
    return f"{hub.url}/{REPO}/resolve/main/{PATH}"


def test_a_range_comes_with_its_head(hub: HubServer) -> None:
    ear = get(url(hub), byte_range=(10, 200_000))
    assert ear.body == DATA[10:200_000]
    assert ear.failure is None
    assert ear.head is not None
    assert (ear.head.status, ear.head.headers["content-range"]) == (206, f"bytes 10-199999/{len(DATA)}")
    (request,) = hub.requests("resolve")
    assert request.headers["user-agent"] == "tests/1"


def test_redirects_are_answers_like_any_other(hub: HubServer) -> None:
    hub.add_model("org/other", {"a.bin": b"x" * 10}, lfs={"a.bin": True})
    ear = get(f"{hub.url}/org/other/resolve/main/a.bin")
    assert ear.head is not None
    assert ear.head.status == 302
    assert hub.requests("cdn") == []


def test_one_connection_takes_range_after_range(hub: HubServer) -> None:
    with wired() as wire:
        for n in range(5):
            ear = Ear()
            wire.open(url(hub), [], (n, n + 1000), ear)
            run(wire, ear)
            assert ear.body == DATA[n : n + 1000]
        # And what was set for one request does not stick to the next.
        ear = Ear()
        wire.open(url(hub), [], None, ear)
        run(wire, ear)
        assert ear.body == DATA
    assert hub.connections_made == 1


def test_a_listener_that_has_enough_ends_the_exchange(hub: HubServer) -> None:
    held = hub.fault(Fault.stall(after=200_000))
    ear = Ear(enough=1000)
    with wired() as wire:
        wire.open(url(hub), [], None, ear)
        run(wire, ear)
        assert len(ear.body) >= 1000
        assert ear.failure is not None
        assert ear.failure.code == pycurl.E_WRITE_ERROR
        hub.wait_no_connections()
    assert held.hits == 1


def test_closed_it_is_silent_and_the_connection_is_gone(hub: HubServer) -> None:
    held = hub.fault(Fault.black_hole())
    ear = Ear()
    with wired() as wire:
        exchange: Exchange = wire.open(url(hub), [], None, ear)
        while not held.hits:
            wire.run(0.05)
        wire.close(exchange)
        wire.close(exchange)
        hub.wait_no_connections()
        wire.run(0.01)
    assert ear.ends == 0


def test_an_exception_of_a_listener_comes_out_of_run(hub: HubServer) -> None:
    class Broken(Ear):
        def on_body(self, head: Head, chunk: bytes) -> bool:
            raise LookupError("a bug")

    with wired() as wire:
        ear = Broken()
        wire.open(url(hub), [], None, ear)
        with pytest.raises(LookupError, match="a bug"):
            run(wire, ear)


def test_a_bell_ends_the_waiting(hub: HubServer) -> None:
    with wired() as wire:
        for _ in range(100_000):  # more than the bell can hold
            wire.wake()
        begun = time.monotonic()
        wire.run(30)
        assert time.monotonic() - begun < 15
    wire.wake()  # nobody is there any more, and nobody minds


# -- faults, in words


def closed_port() -> contextlib.closing[socket.socket]:
    """A port of this machine where nobody listens, kept from others while it is asked."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return contextlib.closing(sock)


def test_refused() -> None:
    with closed_port() as sock:
        ear = get(f"http://127.0.0.1:{sock.getsockname()[1]}/secret")
    assert ear.failure == WireFailure(pycurl.E_COULDNT_CONNECT, "the connection was refused: nothing listens there")


def test_no_such_name() -> None:
    # No label of a name may be this long, so that no server needs to be asked.
    ear = get(f"http://{'x' * 70}.invalid/secret")
    assert ear.failure is not None
    assert ear.failure.reason == "the name of the server cannot be resolved (DNS)"


def test_connecting_takes_too_long() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    address = listener.getsockname()
    with contextlib.ExitStack() as stack:
        stack.enter_context(listener)
        for _ in range(8):  # the queue is full: no more handshakes
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(address)
        ear = get(f"http://127.0.0.1:{address[1]}/", replace(OPTIONS, connect_timeout_s=0.2))
    assert ear.failure == WireFailure(pycurl.E_OPERATION_TIMEDOUT, "connecting took too long")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.drop(), "the connection was reset"),
        (Fault.reset(after=1000), "the connection was reset"),
        (Fault.short_body(after=1000), "the server ended the answer early"),
    ],
)
def test_broken(hub: HubServer, fault: Fault, reason: str) -> None:
    hub.fault(fault)
    ear = get(url(hub))
    assert ear.failure is not None
    assert ear.failure.reason == reason
    assert ear.body == DATA[: len(ear.body)]


def blurt(scheme: str, said: bytes) -> Ear:
    """Ask a server that says the same thing whatever it is asked."""
    ear = Ear()
    with socket.create_server(("127.0.0.1", 0)) as listener, wired() as wire:
        wire.open(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/", [], None, ear)
        listener.setblocking(False)
        while True:
            wire.run(0.05)
            with contextlib.suppress(BlockingIOError):
                peer, _ = listener.accept()
                break
        with peer:
            peer.sendall(said)
            run(wire, ear)
    return ear


def test_no_http() -> None:
    ear = blurt("http", b"\x00\x01\x02 not HTTP at all\r\n\r\n")
    assert ear.failure is not None
    assert ear.failure.reason == "the server's answer is not HTTP"


def test_a_server_without_tls_where_tls_is_expected() -> None:
    ear = blurt("https", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    assert ear.failure is not None
    assert ear.failure.reason == "no TLS connection could be made"


# -- proxies


def test_a_proxy_is_used_when_told_and_only_then(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackProxy() as proxy:
        address = f"http://{proxy.address}"
        asked: list[str] = []

        def choose(target: str) -> str | None:
            asked.append(target)
            return address

        # What the environment says has been weighed by the caller; libcurl must not weigh it again.
        monkeypatch.setenv("no_proxy", "*")
        assert get(url(hub), replace(OPTIONS, proxy_for=choose)).body == DATA
        assert asked == [url(hub)]
        assert proxy.asked == [f"GET {url(hub)} HTTP/1.1"]
        monkeypatch.delenv("no_proxy")
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("all_proxy", address)
        assert get(url(hub)).body == DATA
        assert len(proxy.asked) == 1


def test_a_proxy_that_wants_a_password_says_so(certificate: tuple[Path, Path]) -> None:
    with tls_hub(certificate) as hub, LoopbackProxy(login="me:secret") as proxy:
        options = replace(OPTIONS, ca_file=str(certificate[1]))
        with_it = replace(options, proxy_for=lambda _: f"http://me:secret@{proxy.address}")
        assert get(url(hub), with_it).body == DATA
        ear = get(url(hub), replace(options, proxy_for=lambda _: f"http://{proxy.address}"))
        assert ear.failure is not None
        assert "the proxy refuses" in ear.failure.reason
        assert "407" in ear.failure.reason


def test_a_proxy_that_is_not_there(hub: HubServer) -> None:
    with closed_port() as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
        ear = get(url(hub), replace(OPTIONS, proxy_for=lambda _: f"http://me:secret@{address}"))
    assert ear.failure is not None
    assert ear.failure.code == pycurl.E_COULDNT_CONNECT
    assert ear.failure.reason == f"the proxy {address} refused the connection: nothing listens there"


# -- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    openssl = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hub"
    try:
        subprocess.run(
            [*openssl.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return key, cert


@contextlib.contextmanager
def tls_hub(certificate: tuple[Path, Path]) -> Iterator[HubServer]:
    key, cert = certificate
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    with HubServer(tls=server) as hub:
        hub.add_model(REPO, {PATH: DATA}, lfs={PATH: False})
        yield hub


def test_a_certificate_must_be_trusted(certificate: tuple[Path, Path]) -> None:
    with tls_hub(certificate) as hub:
        ear = get(url(hub))
        assert ear.failure is not None
        assert ear.failure.reason == "the server's TLS certificate is not trusted"
        assert hub.requests() == []
        assert get(url(hub), replace(OPTIONS, ca_file=str(certificate[1]))).body == DATA


def test_a_certificate_file_that_is_not_there(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    with tls_hub(certificate) as hub:
        ear = get(url(hub), replace(OPTIONS, ca_file=str(tmp_path / "none.pem")))
        assert ear.failure is not None
        assert ear.failure.reason == "the file with trusted certificates cannot be read"


# -- descriptors


def test_descriptors_above_1023(hub: HubServer) -> None:
    """select() cannot see them; a server with a thousand watchers has them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 1300
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"this process may have {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1050)]
    try:
        assert max(taken) > 1023
        assert get(url(hub)).body == DATA
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_nothing_is_left_behind(hub: HubServer) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    with wired() as wire:
        ears = [Ear() for _ in range(10)]
        for ear in ears:
            wire.open(url(hub), [], None, ear)
        run(wire, *ears)
    hub.wait_no_connections()
    assert len(list(Path("/dev/fd").iterdir())) == before
