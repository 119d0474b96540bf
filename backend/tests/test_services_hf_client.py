"""The Hub client against a real hub that misbehaves: every question ends, and by its right name."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from fakes.hub_server import TOKEN, Fault, HubServer
from hub_questions import FILES, LONG_S, REPO, SHORT_S, Clients, failure, plan, without_proxies
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.errors import (
    HubBadAnswer,
    HubOffline,
    HubRateLimited,
    HubServerError,
    HubTimeout,
    HubUnreachable,
    NoFileMatches,
)


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    without_proxies(monkeypatch)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, FILES)
        yield hub


@pytest.fixture
def client_of() -> Iterator[Clients]:
    with Clients() as clients:
        yield clients


# -- what a model is made of


def test_a_plan_holds_what_the_hub_holds(hub: HubServer, client_of: Clients) -> None:
    made = plan(client_of(hub.url))
    assert (made.model_id, made.revision, made.commit) == (REPO, "main", hub.repo(REPO).head.sha)
    assert [file.path for file in made.files] == sorted(FILES)
    for file in made.files:
        known = hub.file(REPO, file.path)
        assert (file.size, file.etag, file.blob_id) == (known.content.size, known.etag, known.oid)
        assert (file.sha256 is not None) == known.lfs
    assert made.tree == made.files
    assert [record.route for record in hub.requests()] == ["info", "tree"]


def test_patterns_choose_files_and_the_tree_keeps_all(hub: HubServer, client_of: Clients) -> None:
    made = plan(client_of(hub.url), allow_patterns=("*.json", "*.safetensors"))
    assert [file.path for file in made.files] == ["config.json", "model.safetensors"]
    assert len(made.tree) == len(FILES)
    assert isinstance(failure(client_of(hub.url), allow_patterns=("*.gguf",)), NoFileMatches)


def test_revisions_branch_tag_commit_and_pull_request(hub: HubServer, client_of: Clients) -> None:
    first = hub.repo(REPO).head.sha
    hub.tag(REPO, "v1.0")
    second = hub.commit(REPO, {"config.json": "{}"}, branch="refs/pr/1")
    client = client_of(hub.url)
    for revision, commit in (("v1.0", first), (first, first), ("refs/pr/1", second)):
        made = plan(client, revision=revision)
        assert (made.revision, made.commit) == (revision, commit)


def test_a_listing_of_many_pages(hub: HubServer, client_of: Clients) -> None:
    hub.add_model("org/Many", {f"part/{n:04}.json": f"{n}" for n in range(2500)})
    made = plan(client_of(hub.url), "org/Many")
    assert len(made.files) == 2500
    assert len({file.etag for file in made.files}) == 2500
    assert len(hub.requests("tree")) == 3
    # The pages came over one connection: httpcore2 keeps it, and so do we.
    assert hub.connections_made == 1


def test_a_renamed_model_keeps_the_name_it_was_asked_by(hub: HubServer, client_of: Clients) -> None:
    hub.rename(REPO, "mlx-community/New-4bit")
    made = plan(client_of(hub.url))
    assert made.model_id == REPO
    assert len(made.files) == len(FILES)


def test_addresses_of_files_lead_to_their_bytes(hub: HubServer, client_of: Clients) -> None:
    client = client_of(hub.url + "/")
    made = plan(client)
    url = client.resolve_url(REPO, made.commit, "sub dir/ünïcode #1?.txt")
    assert url == f"{hub.url}/{REPO}/resolve/{made.commit}/sub%20dir/%C3%BCn%C3%AFcode%20%231%3F.txt"
    with socket.create_connection(("127.0.0.1", int(hub.url.rpartition(":")[2]))) as sock:
        sock.sendall(f"GET {url.removeprefix(hub.url)} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"\r\n\r\ntext")


# -- every question ends


@pytest.mark.parametrize("where", ["info", "tree"])
@pytest.mark.parametrize(("limit", "word"), [("deadline_s", "in full"), ("timeout_s", "silent")])
def test_a_hub_that_says_nothing_is_left_in_time(
    hub: HubServer, client_of: Clients, where: str, limit: str, word: str
) -> None:
    hole = hub.fault(Fault.black_hole(), where=where)
    error = failure(client_of(hub.url, token=None, **{limit: SHORT_S}))
    assert isinstance(error, HubTimeout)
    assert word in error.detail and "0.5 s" in error.detail
    # The hub had not answered, and it was we who left.
    assert hole.wait_hit().sent == 0
    hub.wait_idle()
    assert hole.records[0].outcome == "gone"


@pytest.mark.parametrize("fault", [Fault.trickle(1, 0.1), Fault.stall(after=20)], ids=["trickle", "stall"])
def test_a_body_that_comes_in_drops_does_not_outlast_the_deadline(
    hub: HubServer, client_of: Clients, fault: Fault
) -> None:
    handle = hub.fault(fault, where="tree")
    error = failure(client_of(hub.url, timeout_s=LONG_S, deadline_s=1))
    assert isinstance(error, HubTimeout) and "1 s" in error.detail
    hub.wait_idle()
    assert handle.records[0].outcome == "gone"


def test_a_header_that_comes_in_drops_does_not_outlast_the_deadline(client_of: Clients) -> None:
    left = threading.Event()

    def drip(listener: socket.socket) -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(65536)
            sock.sendall(b"HTTP/1.1 200 OK\r\n")
            try:
                while not left.wait(0.05):
                    sock.sendall(b"X")
            except OSError:
                left.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        error = failure(client_of(f"http://127.0.0.1:{listener.getsockname()[1]}", timeout_s=LONG_S, deadline_s=1))
        assert isinstance(error, HubTimeout)
        assert left.wait(10), "the connection was left open"
        thread.join()


def test_a_cancelled_question_lets_go_at_once(hub: HubServer, client_of: Clients) -> None:
    hole = hub.fault(Fault.black_hole(), where="info")
    client = client_of(hub.url)

    async def ask_and_leave() -> None:
        asking = asyncio.create_task(client.plan(ModelRequest(REPO)))
        await asyncio.to_thread(hole.wait_hit)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(ask_and_leave())
    hub.wait_idle()
    assert hole.records[0].outcome == "gone"


def test_a_hung_question_keeps_nobody_waiting(hub: HubServer, client_of: Clients) -> None:
    hole = hub.fault(Fault.black_hole(), where="info", repo=REPO)
    hub.add_model("org/Other", FILES)
    client = client_of(hub.url)

    async def ask_all() -> None:
        hung = [asyncio.create_task(client.plan(ModelRequest(REPO))) for _ in range(50)]
        await asyncio.to_thread(hole.wait_hit, 50)
        assert (await client.plan(ModelRequest("org/Other"))).files
        assert not any(task.done() for task in hung)
        for task in hung:
            task.cancel()
        await asyncio.gather(*hung, return_exceptions=True)

    asyncio.run(ask_all())
    hub.wait_idle()


# -- what may pass by itself: told once, with its cause, and not tried again behind our back


@pytest.mark.parametrize("where", ["info", "tree"])
@pytest.mark.parametrize("status", [500, 502, 503, 504, 408])
def test_an_error_of_the_hubs_own(hub: HubServer, client_of: Clients, where: str, status: int) -> None:
    fault = hub.fault(Fault.status(status), where=where)
    error = failure(client_of(hub.url))
    assert type(error) is HubServerError and str(status) in error.detail
    assert error.transient
    assert fault.hits == 1


@pytest.mark.parametrize("where", ["info", "tree"])
@pytest.mark.parametrize(
    ("fault", "wait"),
    [
        (Fault.rate_limited(retry_after=3600), 3600),
        (Fault.rate_limited(reset=55), 55),
        (Fault.rate_limited(), None),
    ],
)
def test_a_rate_limit_says_how_long(
    hub: HubServer, client_of: Clients, where: str, fault: Fault, wait: float | None
) -> None:
    limit = hub.fault(fault, where=where)
    error = failure(client_of(hub.url))
    assert isinstance(error, HubRateLimited)
    assert error.retry_after_s == wait
    assert limit.hits == 1


def test_a_rate_limit_until_a_date(hub: HubServer, client_of: Clients) -> None:
    hub.fault(Fault.status(429, retry_after=formatdate(time.time() + 600, usegmt=True)), where="info")
    error = failure(client_of(hub.url))
    assert isinstance(error, HubRateLimited) and error.retry_after_s is not None
    assert 500 < error.retry_after_s <= 600


@pytest.mark.parametrize("where", ["info", "tree"])
@pytest.mark.parametrize(
    "fault",
    [
        Fault.html(),
        Fault.bad_json(),
        Fault.truncated_json(),
        Fault.edit_json(lambda document: ["something else"]),
        Fault.edit_json(lambda document: {"id": 5}),
        Fault.edit_json(lambda document: 7),
    ],
    ids=["html", "bad_json", "truncated", "list", "dict", "number"],
)
def test_an_answer_that_is_not_the_hubs(hub: HubServer, client_of: Clients, where: str, fault: Fault) -> None:
    hub.fault(fault, where=where)
    assert type(failure(client_of(hub.url))) is HubBadAnswer


@pytest.mark.parametrize(
    "change",
    [
        {"oid": "../../../../etc/passwd"},
        {"oid": None},
        {"size": -1},
        {"size": "12"},
        {"size": True},
        {"path": 3},
        {"lfs": {"oid": "../" + "0" * 61, "size": 3, "pointerSize": 1}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_file_whose_hash_or_size_is_none(hub: HubServer, client_of: Clients, change: dict[str, Any]) -> None:
    hub.fault(Fault.edit_json(lambda tree: [tree[0] | change, *tree[1:]]), where="tree")
    assert type(failure(client_of(hub.url))) is HubBadAnswer


def test_a_connection_that_breaks(hub: HubServer, client_of: Clients) -> None:
    hub.fault(Fault.drop(), where="info", times=1)
    assert type(failure(client_of(hub.url))) is HubUnreachable
    hub.fault(Fault.short_body(after=10), where="tree", times=1)
    assert "middle" in failure(client_of(hub.url)).detail
    assert plan(client_of(hub.url)).files


# -- the token stays at home, and out of the log


def test_the_token_does_not_follow_a_listing_to_another_host(hub: HubServer, client_of: Clients) -> None:
    with HubServer() as other:
        other.add_model(REPO, {"z.json": "{}"})
        elsewhere = f"{other.url}/api/models/{REPO}/tree/main?recursive=true"
        hub.fault(Fault.header("Link", f'<{elsewhere}>; rel="next"'), where="tree")
        made = plan(client_of(hub.url, token=TOKEN))
        assert "z.json" in [file.path for file in made.files]
        assert [record.authorization for record in other.requests()] == [None]
        assert {record.authorization for record in hub.requests()} == {f"Bearer {TOKEN}"}


def test_the_log_tells_of_each_request_and_of_no_secret(
    hub: HubServer, client_of: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        plan(client_of(hub.url, token=TOKEN))
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("mlx_manager")]
    assert len(ours) == 2
    assert ours[0].startswith(f"GET 127.0.0.1/api/models/{REPO}/revision/main: 200 in ")
    assert "?" not in ours[1] and "/tree/" in ours[1]
    assert TOKEN not in caplog.text


def test_nothing_is_asked_that_nobody_asked_for(hub: HubServer, tmp_path: Path) -> None:
    """The canary for what huggingface_hub does on its own: in a fresh process, with its defaults."""
    program = """
        import asyncio, sys
        from mlx_manager.domain.catalog import ModelRequest
        from mlx_manager.services.hf_client import HubClient
        client = HubClient(sys.argv[1])
        print(len(asyncio.run(client.plan(ModelRequest(sys.argv[2]))).files), client.token())
        client.close()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), hub.url, REPO]
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_TOKEN": TOKEN}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == (f"{len(FILES)} {TOKEN}\n", 0), done.stderr
    assert [record.route for record in hub.requests()] == ["info", "tree"]
    agent = hub.requests()[0].headers["user-agent"]
    assert "mlx-manager" in agent and "hf_hub/2.4" in agent


def test_a_question_does_not_reach_the_hub_offline(hub: HubServer, client_of: Clients) -> None:
    client = client_of(hub.url, offline=True)
    assert isinstance(failure(client), HubOffline)
    assert asyncio.run(client.reachable()).error == "The Hub is not asked: HF_HUB_OFFLINE is set."
    assert not hub.requests()


# -- whether the Hub is there


def test_reachable_says_so_and_how_fast(hub: HubServer, client_of: Clients) -> None:
    answer = asyncio.run(client_of(hub.url, token="hf_expired").reachable())
    assert answer.reachable and answer.error is None
    assert answer.latency_ms is not None and answer.latency_ms > 0
    assert [record.authorization for record in hub.requests("search")] == [None]


@pytest.mark.parametrize(
    ("fault", "word"), [(Fault.black_hole(), "0.5 s"), (Fault.html(), "JSON"), (Fault.status(503), "503")]
)
def test_reachable_says_why_not(hub: HubServer, client_of: Clients, fault: Fault, word: str) -> None:
    hub.fault(fault)
    answer = asyncio.run(client_of(hub.url, deadline_s=SHORT_S).reachable())
    assert not answer.reachable and answer.latency_ms is None
    assert answer.error is not None and word in answer.error
