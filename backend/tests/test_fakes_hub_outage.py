"""The test hub's network: gone for a while, worn out connections, and both ordered from another process."""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fakes.hub_client import fetch, follow
from fakes.hub_server import Blob, Fault, HubServer

REPO = "org/model"
FILE = "model.safetensors"
SIZE = 3_000_000
BROKEN = (ConnectionError, http.client.HTTPException)


def model(hub: HubServer) -> str:
    hub.add_model(REPO, {FILE: Blob(SIZE)})
    return f"{hub.url}/{REPO}/resolve/main/{FILE}"


def test_an_outage_begins_in_the_middle_of_a_file_and_ends_by_itself() -> None:
    with HubServer() as hub:
        url = model(hub)
        hub.fault(Fault.stall(after=1_000_000), where="content", times=1)
        hub.outage(0.2, after=1_000_000)
        with pytest.raises(BROKEN):
            follow(url)
        hub.wait_for(lambda: hub.bytes_sent() == 1_000_000)
        with pytest.raises(ConnectionRefusedError):
            fetch(url)
        hub.wait_for(lambda: hub.is_up)
        assert follow(url).body == Blob(SIZE).slice(0, SIZE)


def test_an_outage_that_is_called_off() -> None:
    with HubServer(control=True) as hub:
        url = model(hub)
        order = json.dumps({"seconds": 60, "after": 1_000_000})
        assert fetch(f"{hub.url}/_control/outage", method="POST", body=order).status == 200
        assert json.loads(fetch(f"{hub.url}/_control/outage").body) == {"cuts": 0}
        assert fetch(f"{hub.url}/_control/outage", method="DELETE").status == 200
        assert follow(url).body == Blob(SIZE).slice(0, SIZE)


def test_a_hub_ends_while_its_network_is_gone() -> None:
    hub = HubServer().start()
    hub.outage(60)
    hub.wait_for(lambda: not hub.is_up)
    hub.stop()


def test_a_connection_wears_out_over_many_answers() -> None:
    with HubServer() as hub:
        url = fetch(model(hub)).header("Location") or ""
        worn = hub.fault(Fault.wears_out(1_000_000), where="cdn")
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        got = []
        for start in (0, 400_000):
            headers = {"Range": f"bytes={start}-{start + 399_999}"}
            connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
            got.append(connection.getresponse().read())
        assert b"".join(got) == Blob(SIZE).slice(0, 800_000)
        assert worn.hits == 0
        connection.request("GET", f"{parts.path}?{parts.query}", headers={"Range": "bytes=800000-1199999"})
        answer = connection.getresponse()
        assert len(answer.read(200_000)) == 200_000
        with pytest.raises(BROKEN):
            answer.read(1)
        connection.close()
        assert worn.hits == 1
        assert fetch(url, range="bytes=0-999999").status == 206


def test_the_hub_process_speaks_tls(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    openssl = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hub"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    try:
        subprocess.run([*openssl.split(), *names], check=True, capture_output=True)
    except OSError:
        pytest.skip("openssl is not installed")
    command = [sys.executable, "-m", "fakes.hub_server", "--model", f"{REPO}=100K", "--until-eof"]
    with subprocess.Popen(
        [*command, "--tls", str(cert), str(key)],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        hello = json.loads(process.stdout.readline())
        trust = ssl.create_default_context(cafile=str(cert))
        assert hello["endpoint"].startswith("https://")
        assert follow(f"{hello['endpoint']}/{REPO}/resolve/main/{FILE}", tls=trust).status == 200
        process.stdin.close()
        assert process.wait(10) == 0
