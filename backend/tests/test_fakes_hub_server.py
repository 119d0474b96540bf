"""The test hub as a server: its log, its connections, its end, TLS, and as a process of its own."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.hub_client import Answer, fetch, follow
from fakes.hub_server import TOKEN, Blob, HubServer, mlx_model_files

REPO = "mlx-community/Tiny-4bit"
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(REPO, mlx_model_files(300_000))
        yield hub


def resolve(hub: HubServer, path: str) -> str:
    return f"{hub.url}/{REPO}/resolve/main/{path}"


def test_the_log_tells_what_went_out(hub: HubServer) -> None:
    follow(resolve(hub, WEIGHTS), range="bytes=10-19", token=TOKEN)
    follow(resolve(hub, WEIGHTS), range="bytes=-5")
    hub.wait_idle()  # the last bytes are here before they are counted
    size = hub.file(REPO, WEIGHTS).content.size
    assert hub.ranges("*.safetensors") == [(10, 20), (size - 5, size)]
    assert hub.bytes_sent(WEIGHTS) == 15
    assert hub.requests("resolve", status=302)[0].authorization == f"Bearer {TOKEN}"
    first = hub.wait_for(2, where="cdn")[0]
    assert (first.range, first.status, first.sent, first.outcome) == ("bytes=10-19", 206, 10, "sent")
    with pytest.raises(TimeoutError, match="3 requests"):
        hub.wait_for(3, timeout=0.01, where="cdn")
    hub.wait_idle()
    hub.clear_log()
    assert hub.requests() == []


def test_a_connection_takes_many_requests(hub: HubServer) -> None:
    answers = fetch(resolve(hub, "config.json"), again=20)
    assert len(answers.all) == 21
    assert len({request.connection for request in hub.requests("resolve")}) == 1


def test_two_hundred_connections_at_once(hub: HubServer) -> None:
    location = fetch(resolve(hub, WEIGHTS)).header("Location") or ""
    data = hub.content(REPO, WEIGHTS)
    together = threading.Barrier(200)
    bad: list[Answer] = []

    def pull() -> None:
        together.wait(20)
        answer = fetch(location)
        if answer.body != data:
            bad.append(answer)

    threads = [threading.Thread(target=pull) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bad == []
    hub.wait_no_connections()
    assert hub.bytes_sent(WEIGHTS) == 200 * len(data)


def test_nothing_is_left_after_a_stop(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    descriptors = Path("/dev/fd")
    count = len(list(descriptors.iterdir()))
    hub = HubServer(blob_dir=tmp_path)
    hub.stop()
    hub = HubServer(blob_dir=tmp_path).start()
    hub.add_model(REPO, {"a.txt": "a"})
    fetch(resolve(hub, "a.txt"))
    hub.stop()
    hub.stop()
    assert set(threading.enumerate()) == before
    assert len(list(descriptors.iterdir())) == count


def test_tls(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    openssl = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hub"
    try:
        subprocess.run(
            [*openssl.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
            check=True,
            capture_output=True,
        )
    except OSError:
        pytest.skip("openssl is not installed")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    with HubServer(tls=server) as hub:
        hub.add_model(REPO, mlx_model_files(12 << 20))
        trust = ssl.create_default_context(cafile=str(cert))
        answer = follow(resolve(hub, WEIGHTS), range="bytes=1000-9000000", tls=trust)
        assert answer.body == hub.content(REPO, WEIGHTS, 1000, 9_000_001)


def test_the_hub_runs_as_a_process(tmp_path: Path) -> None:
    models = {"org/described": {"size": "1MB", "shards": 2, "files": {"x.txt": "x", "y.bin": {"size": "2K"}}}}
    (tmp_path / "models.json").write_text(json.dumps(models))
    command = [sys.executable, "-m", "fakes.hub_server", "--models-file", str(tmp_path / "models.json")]
    command += ["--model", "org/quick=100K", "--until-eof"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        hello = json.loads(process.stdout.readline())
        assert set(hello["models"]) == {"org/described", "org/quick"}
        url = f"{hello['endpoint']}/org/described/resolve/main/y.bin"
        assert follow(url).body == Blob(2048).slice(0, 2048)

        control = f"{hello['endpoint']}/_control"
        order = {"fault": "status", "args": {"code": 503}, "where": "info", "times": 1}
        assert json.loads(fetch(f"{control}/faults", method="POST", body=json.dumps(order)).body) == {"id": 0}
        assert fetch(f"{hello['endpoint']}/api/models/org/quick").status == 503
        assert json.loads(fetch(f"{control}/faults").body) == [{"id": 0, "fault": "status", "hits": 1}]
        assert fetch(f"{control}/faults", method="POST", body='{"fault": "no such"}').status == 400
        assert [record["route"] for record in json.loads(fetch(f"{control}/log").body)] == ["resolve", "cdn", "info"]
        process.stdin.close()
        assert process.wait(10) == 0
