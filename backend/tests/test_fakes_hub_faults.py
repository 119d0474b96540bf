"""Each fault of the test hub, as a client sees it that hides nothing."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from fakes.hub_client import Answer, fetch
from fakes.hub_server import Blob, Fault, HubServer

REPO = "org/model"
SIZE = 3_000_000
DATA = Blob(SIZE, seed=1).slice(0, SIZE)
SHARD = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, {SHARD: Blob(SIZE, seed=1), "config.json": '{"a": 1}'})
        yield hub


@pytest.fixture
def url(hub: HubServer) -> str:
    """The signed URL of the shard."""
    return fetch(f"{hub.url}/{REPO}/resolve/main/{SHARD}").header("Location") or ""


class Raw:
    """A socket with one request sent on it."""

    def __init__(self, url: str, *, range: str | None = None) -> None:
        parts = urlsplit(url)
        self.sock = socket.create_connection((parts.hostname, parts.port), timeout=10)
        field = f"Range: {range}\r\n" if range else ""
        self.sock.sendall(f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: hub\r\n{field}\r\n".encode())
        self._file = self.sock.makefile("rb")

    def head(self) -> bytes:
        return b"".join(iter(self._file.readline, b"\r\n"))

    def read(self, nbytes: int) -> bytes:
        return self._file.read(nbytes)

    def is_silent(self) -> bool:
        """Tell whether nothing comes for a moment, neither a byte nor an end."""
        self.sock.settimeout(0.1)
        try:
            self.sock.recv(1)
        except TimeoutError:
            return True
        finally:
            self.sock.settimeout(10)
        return False

    def close(self) -> None:
        self._file.close()
        self.sock.close()


# -- silence


def test_a_black_hole_says_nothing_until_it_is_released(hub: HubServer, url: str) -> None:
    hole = hub.fault(Fault.black_hole(), where="cdn", times=1)
    with closing(Raw(url)) as raw:
        assert hole.wait_hit().status == 0
        assert raw.is_silent()
        hole.release()
        assert b" 200 OK" in raw.head()
        assert raw.read(SIZE) == DATA
    assert fetch(url).status == 200
    assert hole.hits == 1


def test_a_delay_ends_by_itself_or_by_a_release(hub: HubServer, url: str) -> None:
    began = time.monotonic()
    delay = hub.fault(Fault.delay(0.2), where="cdn")
    assert fetch(url).body == DATA
    assert time.monotonic() - began >= 0.2
    delay.clear()
    held = hub.fault(Fault.delay(), where="info")
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(fetch(f"{hub.url}/api/models/{REPO}")))
    asking.start()
    held.wait_hit()
    assert answers == []
    held.release()
    asking.join()
    assert answers[0].status == 200


def test_a_stall_holds_the_connection_after_so_many_bytes(hub: HubServer, url: str) -> None:
    stall = hub.fault(Fault.stall(after=1_000_000), where="cdn", path="*.safetensors", times=1)
    with closing(Raw(url, range="bytes=500000-")) as raw:
        raw.head()
        assert raw.read(1_000_000) == DATA[500_000:1_500_000]
        assert raw.is_silent()
        assert (stall.hits, hub.in_flight, hub.bytes_sent(SHARD)) == (1, 1, 1_000_000)
        stall.clear()
        assert raw.read(SIZE - 1_500_000) == DATA[1_500_000:]


def test_a_client_that_leaves_a_stall_is_noticed(hub: HubServer, url: str) -> None:
    stall = hub.fault(Fault.stall(after=10), where="cdn")
    with closing(Raw(url)) as raw:
        raw.head()
        raw.read(10)
        record = stall.wait_hit()
    hub.wait_idle()
    assert (record.sent, record.outcome) == (10, "gone")


def test_a_stop_ends_what_is_held(url: str, hub: HubServer) -> None:
    hub.fault(Fault.stall(after=10), nth=1)
    hub.fault(Fault.black_hole(), nth=2)
    with closing(Raw(url)) as stalled, closing(Raw(url)) as hole:
        hub.wait_for(2, where="cdn")
        hub.stop()
        for raw in (stalled, hole):
            with pytest.raises(ConnectionResetError):
                raw.read(SIZE)


def test_a_trickle_and_a_rate_slow_the_body_down(hub: HubServer, url: str) -> None:
    trickle = hub.fault(Fault.trickle(100, every=0.02), where="cdn")
    began = time.monotonic()
    assert fetch(url, range="bytes=0-999").body == DATA[:1000]
    assert time.monotonic() - began >= 0.2
    trickle.clear()
    hub.fault(Fault.rate(5_000_000), where="content")
    began = time.monotonic()
    assert fetch(url, range="bytes=0-999999").body == DATA[:1_000_000]
    assert 0.14 < time.monotonic() - began < 5


def test_a_shared_rate_is_one_line_for_all(hub: HubServer, url: str) -> None:
    hub.fault(Fault.rate(5_000_000, shared=True), where="content")
    began = time.monotonic()
    threads = [threading.Thread(target=fetch, args=(url,), kwargs={"range": "bytes=0-499999"}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.24 < time.monotonic() - began < 5


# -- broken connections


def test_the_network_goes_and_comes_back(hub: HubServer, url: str) -> None:
    stall = hub.fault(Fault.stall(after=10), times=1)
    with closing(Raw(url)) as raw:
        stall.wait_hit()
        raw.head()
        hub.network_down()
        with pytest.raises(ConnectionResetError):
            raw.read(SIZE)
    for one in (hub.url, url):
        with pytest.raises(ConnectionRefusedError):
            fetch(one)
    hub.network_up()
    assert fetch(url).body == DATA
    hub.network_down("cdn")
    assert fetch(f"{hub.url}/api/models/{REPO}").status == 200
    with pytest.raises(ConnectionRefusedError):
        fetch(url)


@pytest.mark.parametrize("after", [0, 1, 777_777])
def test_a_reset_comes_after_so_many_bytes(hub: HubServer, url: str, after: int) -> None:
    reset = hub.fault(Fault.reset(after=after), where="cdn", times=1)
    with closing(Raw(url)) as raw:
        raw.head()
        assert raw.read(after) == DATA[:after]
        with pytest.raises(ConnectionResetError):
            raw.read(1)
    hub.wait_idle()
    assert (reset.records[0].sent, reset.records[0].outcome) == (after, "reset")
    assert fetch(url).body == DATA


def test_a_drop_resets_without_an_answer(hub: HubServer, url: str) -> None:
    hub.fault(Fault.drop(), where="cdn")
    with pytest.raises(ConnectionResetError):
        fetch(url)


def test_a_short_body_ends_like_a_whole_one(hub: HubServer, url: str) -> None:
    hub.fault(Fault.short_body(after=1000), where="cdn")
    with pytest.raises(http.client.IncompleteRead) as short:
        fetch(url)
    assert short.value.partial == DATA[:1000]


def test_a_long_body_goes_on_past_its_end(hub: HubServer, url: str) -> None:
    fault = hub.fault(Fault.long_body(extra=5), where="cdn")
    with closing(Raw(url, range="bytes=0-9")) as raw:
        assert b"Content-Length: 10\r\n" in raw.head()
        assert raw.read(15) == DATA[:10] + b"\xa5" * 5
        assert raw.read(1) == b""
    fault.clear()
    hub.fault(Fault.long_body(extra=5, announced=True), where="cdn")
    assert len(fetch(url).body) == SIZE + 5


def test_a_wrong_content_length(hub: HubServer, url: str) -> None:
    fault = hub.fault(Fault.content_length(-10), where="cdn")
    assert fetch(url).body == DATA[:-10]
    fault.clear()
    hub.fault(Fault.content_length(10), where="cdn")
    with pytest.raises(http.client.IncompleteRead):
        fetch(url)


# -- wrong answers


@pytest.mark.parametrize(
    ("fault", "status", "headers"),
    [
        (Fault.status(500), 500, {}),
        (Fault.status(503, retry_after=7), 503, {"Retry-After": "7"}),
        (
            Fault.status(403, error_code="GatedRepo", message="no"),
            403,
            {"X-Error-Code": "GatedRepo", "X-Error-Message": "no"},
        ),
        (
            Fault.rate_limited(reset=55),
            429,
            {"RateLimit": '"api";r=0;t=55', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'},
        ),
        (Fault.rate_limited(retry_after=3), 429, {"Retry-After": "3", "RateLimit": None}),
        (Fault.expired_url(), 403, {"Content-Type": "application/xml"}),
        (Fault.unsatisfiable(), 416, {"Content-Range": f"bytes */{SIZE}"}),
        (Fault.html(), 200, {"Content-Type": "text/html"}),
        (Fault.etag("new"), 206, {"ETag": '"new"'}),
        (Fault.header("Content-Range", None), 206, {"Content-Range": None}),
        (Fault.header("Content-Range", "bytes 0-9/10"), 206, {"Content-Range": "bytes 0-9/10"}),
        (Fault.wrong_total(5), 206, {"Content-Range": f"bytes 0-99/{SIZE + 5}"}),
        (Fault.ignore_range(), 200, {"Content-Range": None, "Content-Length": str(SIZE)}),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_wrong_answers(hub: HubServer, url: str, fault: Fault, status: int, headers: dict[str, str | None]) -> None:
    handle = hub.fault(fault, path=SHARD, times=1)
    answer = fetch(url, range="bytes=0-99")
    assert (answer.status, {name: answer.header(name) for name in headers}) == (status, headers)
    assert (handle.hits, handle.records[0].faults) == (1, [fault.name])
    assert fetch(url, range="bytes=0-99").body == DATA[:100]


def test_a_range_from_elsewhere(hub: HubServer, url: str) -> None:
    hub.fault(Fault.wrong_range(shift=10), where="cdn")
    answer = fetch(url, range="bytes=100-199")
    assert (answer.header("Content-Range"), answer.body) == (f"bytes 110-209/{SIZE}", DATA[110:210])


def test_a_flipped_bit_strikes_only_who_asks_for_that_byte(hub: HubServer, url: str) -> None:
    once = hub.fault(Fault.flip(1_500_000, mask=0x80), where="cdn", times=1)
    assert fetch(url, range="bytes=0-1499999").body == DATA[:1_500_000]
    assert once.hits == 0
    body = fetch(url, range="bytes=1400000-").body
    assert body[100_000] == DATA[1_500_000] ^ 0x80
    assert body[:100_000] + body[100_001:] == DATA[1_400_000:1_500_000] + DATA[1_500_001:]
    assert fetch(url).body == DATA
    hub.fault(Fault.flip(0), path="config.json")
    assert [fetch(f"{hub.url}/{REPO}/resolve/main/config.json").body[:1] for _ in "ab"] == [b"z", b"z"]


def test_gzip_that_nobody_asked_for(hub: HubServer, url: str) -> None:
    hub.fault(Fault.gzip(), where="content")
    for one in (url, f"{hub.url}/{REPO}/resolve/main/config.json"):
        answer = fetch(one)
        assert answer.header("Content-Encoding") == "gzip"
        assert gzip.decompress(answer.body) in (DATA, b'{"a": 1}')


def test_a_redirect_loop(hub: HubServer) -> None:
    hub.fault(Fault.redirect_loop(), where="resolve")
    path = f"/{REPO}/resolve/main/{SHARD}?download=true"
    answer = fetch(hub.url + path, method="HEAD")
    assert (answer.status, answer.header("Location")) == (302, path)


def test_listings_that_are_wrong(hub: HubServer) -> None:
    def tree() -> Any:
        return json.loads(fetch(f"{hub.url}/api/models/{REPO}/tree/main").body)

    names = ["../x", "/abs", "a\x01b", "Config.json", "con\\fig"]
    for fault, count in ((Fault.empty_tree(), 0), (Fault.tree_names(*names), 7), (Fault.edit_json(lambda t: t[:1]), 1)):
        handle = hub.fault(fault, where="tree")
        assert len(tree()) == count
        if count == 7:
            assert [entry["path"] for entry in tree()][2:] == names
        handle.clear()
    for fault in (Fault.bad_json(), Fault.truncated_json()):
        handle = hub.fault(fault, where="hub")
        with pytest.raises(json.JSONDecodeError):
            tree()
        handle.clear()
    assert len(tree()) == 2


# -- rules


def test_a_rule_says_which_requests_it_means(hub: HubServer, url: str) -> None:
    hub.fault(Fault.status(500), where="cdn", nth=[2, 4])
    assert [fetch(url).status for _ in range(5)] == [200, 500, 200, 500, 200]
    hub.clear_faults()
    hub.fault(Fault.status(501), when=lambda request: request.range == "bytes=5-9")
    hub.fault(Fault.status(502), method="HEAD")
    hub.fault(Fault.status(503), repo="org/other")
    hub.fault(Fault.status(504), path="/api/models/*")
    assert fetch(url, range="bytes=5-9").status == 501
    assert fetch(url, method="HEAD").status == 502
    assert fetch(f"{hub.url}/api/models/{REPO}").status == 504
    assert fetch(url).status == 200


def test_faults_add_up(hub: HubServer, url: str) -> None:
    hub.fault(Fault.delay(0.05), where="cdn")
    hub.fault(Fault.flip(3), where="cdn")
    hub.fault(Fault.short_body(after=10), where="cdn")
    began = time.monotonic()
    with pytest.raises(http.client.IncompleteRead) as short:
        fetch(url)
    assert short.value.partial == DATA[:3] + bytes([DATA[3] ^ 1]) + DATA[4:10]
    assert time.monotonic() - began >= 0.05
    assert hub.requests("cdn")[0].faults == ["delay", "flip", "short_body"]
