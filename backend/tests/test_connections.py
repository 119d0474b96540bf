"""Connections that strangers hold open for nothing are given up, and what is no HTTP is answered in good form."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn import Config
from uvicorn.server import ServerState

from api_client import DEAD_HUB, MODELS, Answer, Api, environment
from mlx_manager.connections import MOST_OF_ONE, Connections, Patience
from mlx_manager.embedded import EmbeddedServer
from mlx_manager.settings import Settings

SHORT = Patience(request_s=0.5, read_s=0.5)
GIVEN_UP_S = 10.0


class House:
    """A server with little patience, and what it writes into its log."""

    def __init__(self, home: Path, patience: Patience = SHORT, **more: str) -> None:
        self._home = home
        self._server = EmbeddedServer(Settings.load(environment(home, DEAD_HUB, **more)), patience=patience)
        self.api = Api(self._server.start())

    def stop(self) -> None:
        self._server.stop()

    @property
    def log(self) -> str:
        return (self._home / "data" / "logs" / "mlx-manager.log").read_text()

    def connect(self, said: bytes = b"", *, small: bool = False) -> socket.socket:
        url = urlsplit(self.api.url)
        peer = socket.socket()
        if small:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        peer.settimeout(GIVEN_UP_S)
        peer.connect((url.hostname, url.port))
        peer.sendall(said)
        return peer

    def answer(self, said: bytes) -> Answer:
        with self.connect(said) as peer:
            response = http.client.HTTPResponse(peer)
            response.begin()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, MLX_MANAGER_MAX_STREAMS="20")
    yield house
    house.stop()


def test_a_request_that_does_not_come_is_not_waited_for(house: House) -> None:
    """uvicorn waits for ever: a few hundred such connections took every descriptor, those of the downloads too."""
    post = f"POST {MODELS}/download HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    halves = [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\n", f"{post}Content-Length: 9\r\n\r\n{{".encode()]
    with ExitStack() as stack:
        stream = stack.enter_context(house.api.events())
        peers = [stack.enter_context(house.connect(half)) for half in halves]
        lively = http.client.HTTPConnection(urlsplit(house.api.url).netloc, timeout=10)
        stack.callback(lively.close)
        for peer in peers:
            peer.setblocking(False)
        given_up, until = set[int](), time.monotonic() + GIVEN_UP_S
        asked = 0
        while len(given_up) < len(peers):
            assert time.monotonic() < until, given_up
            # One that asks again and again on the same connection keeps it.
            lively.request("GET", "/health")
            assert lively.getresponse().read()
            assert lively.sock is not None, "hung up on"
            asked += 1
            for number, peer in enumerate(peers):
                try:
                    if peer.recv(100) == b"":
                        given_up.add(number)
                except BlockingIOError:
                    continue
                except ConnectionResetError:
                    given_up.add(number)
            time.sleep(0.05)
        assert asked > 5
        house.api.post(f"{MODELS}/download", {"model_id": "test-org/x"})
        assert stream.next().data["model_id"] == "test-org/x", "a stream says nothing more, and is no such connection"
    assert "no whole request came within" in house.log


def test_a_reader_that_does_not_read_is_dropped_with_a_reason_and_holds_up_nobody(house: House) -> None:
    ask = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with house.connect(ask * 400, small=True) as deaf:
        until = time.monotonic() + GIVEN_UP_S
        while "it has not read anything for" not in house.log:
            assert time.monotonic() < until
            assert house.api.get("/health").status == 200
            time.sleep(0.05)
        got = 0
        with suppress(ConnectionResetError):
            while chunk := deaf.recv(1 << 20):
                got += len(chunk)
        assert got < 400 * len(house.api.get("/openapi.json").body)


def test_one_connection_too_many_is_closed_and_the_others_stay(tmp_path: Path) -> None:
    # With so much patience that none is given up while a busy machine opens the others.
    house = House(tmp_path, Patience(request_s=300.0), MLX_MANAGER_MAX_STREAMS="20")
    with ExitStack() as stack:
        stack.callback(house.stop)
        stream = stack.enter_context(house.api.events())
        peers = [stack.enter_context(house.connect()) for _ in range(20 + 256)]
        last = stack.enter_context(house.connect())
        with suppress(ConnectionResetError):
            assert last.recv(1) == b""
        assert "Too many connections" in house.log
        peers[0].sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert peers[0].recv(12) == b"HTTP/1.1 200"
        assert stream.status == 200


def test_one_address_of_the_network_has_its_share_of_them() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError

    def join(place: str) -> bool:
        new = connections.protocol(config=config, server_state=state, app_state={}, _loop=None)
        new.place = place  # type: ignore[attr-defined]
        state.connections.add(new)
        return connections.has_room_for(new)  # type: ignore[arg-type]

    async def scenario() -> None:
        assert all(join("192.168.1.7") for _ in range(MOST_OF_ONE))
        assert not join("192.168.1.7")
        assert join("192.168.1.8")
        assert all(join("127.0.0.1") for _ in range(MOST_OF_ONE + 1)), "this machine has no share, it has the rest"

    config, state, connections = Config(app, log_config=None), ServerState(), Connections(1000, SHORT)
    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        (b"\x16\x03\x01 this is no HTTP\r\n\r\n", 400, "not_http"),
        (b"GET\r\n\r\n", 400, "not_http"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "not_http"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "not_http"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "not_http"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 200_000, 431, "headers_too_large"),
    ],
)
def test_what_is_no_request_is_a_problem_with_safe_headers(house: House, said: bytes, status: int, code: str) -> None:
    answer = house.answer(said)
    assert (answer.status, json.loads(answer.body)["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["connection"] == "close"
    assert house.api.get("/health").status == 200


def test_the_process_keeps_descriptors_for_its_work() -> None:
    code = """if True:
        import resource, sys
        from mlx_manager.connections import most_connections
        soft, hard, wanted = map(int, sys.argv[1:])
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        print(most_connections(wanted), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """

    def told(soft: int, hard: int, wanted: int) -> str:
        command = [sys.executable, "-c", code, str(soft), str(hard), str(wanted)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    assert told(256, 4000, 1000) == "1000 1768", "raised as far as needed"
    assert told(256, 600, 1000) == "300 600", "as far as it may be"
    assert told(3000, 3000, 1000) == "1000 3000"
