"""Two secrets, and everything that the product writes or sends while all goes well, all goes wrong, and it is killed.

The person's token for the Hub reaches the Hub's own host alone; the access token reaches nobody. Then every byte is
read: what it printed, its log, its database, its journals, the cache, its answers, its events, and what the test hub's
CDN and store were sent.
"""

from __future__ import annotations

import base64
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from api_client import MODELS, Answer, Api, Stream
from cli_process import Home, Result, Running
from fakes.hub_server import TOKEN, Fault, HubServer, mlx_model_files
from mlx_manager.domain.states import Status
from mlx_manager.services.access import FILE_NAME, read_token
from mlx_manager.services.data_dir import running_server

NAMES = ("Plain", "Gated", "Barred", "Quoting", "Broken", "Killed")
PLAIN, GATED, BARRED, QUOTING, BROKEN, KILLED = MODELS_HERE = [f"test-org/{name}-1B" for name in NAMES]


class Known(Api):
    """Somebody with the access token, who keeps all that was answered."""

    def __init__(self, url: str, token: str, heard: list[str]) -> None:
        super().__init__(url)
        self._header = {"Authorization": f"Bearer {token}"}
        self._heard = heard

    def call(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Answer:
        answer = super().call(method, path, body, raw=raw, headers={**self._header, **headers})
        self._heard += [str(dict(answer.headers)), answer.body.decode()]
        return answer

    def stream(self, path: str, last_event_id: object = None) -> Stream:
        return Stream(self.url, path, self._header)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(xet=True) as hub:
        for model in (PLAIN, BARRED, QUOTING, BROKEN, KILLED):
            hub.add_model(model, mlx_model_files(2 << 20), private=True)
        hub.add_model(GATED, mlx_model_files(1 << 20), gated=True)
        # So its bytes come by Xet, from a process of its own.
        hub.fault(Fault.status(403), where="cdn", repo=BARRED)
        hub.fault(Fault.status(403, message=f"Your token {TOKEN} may not read this."), where="info", repo=QUOTING)
        hub.fault(Fault.bad_json(), where="info", repo=BROKEN, times=1)
        hub.fault(Fault.stall(after=1 << 20), where="cdn", repo=KILLED)
        yield hub


def test_both_secrets_are_nowhere_but_where_they_belong(tmp_path: Path, hub: HubServer) -> None:
    home = Home(tmp_path, hub.url, {"HF_TOKEN": TOKEN, "MLX_MANAGER_ACCESS": "token", "MLX_MANAGER_STALL_S": "1"})
    heard: list[str] = []
    with home.start("serve", "--verbose") as server:
        api = _known(home, server, heard)
        access = read_token(home.data)
        assert access is not None
        _sign_in_and_be_refused(api, access)
        asked = {model: api.download(model) for model in MODELS_HERE}
        with api.progress(asked[PLAIN]) as stream:
            heard += [str(event.data) for event in stream]
        for model in (GATED, QUOTING):
            assert api.wait(asked[model], Status.FAILED)["error"]
        for model in (BARRED, BROKEN):
            api.wait(asked[model], Status.COMPLETED)
        with api.progress(asked[KILLED]) as stream:
            heard += [str(event.data) for event in stream.until(lambda one: one.data["downloaded_bytes"] > 256 << 10)]
        api.get(f"{MODELS}/downloads")
        api.get(f"{MODELS}/download/{asked[BARRED]}/status?files=true")
        heard += _said(home.run("pull", GATED, "--verbose"), home.run("ps", "--all", "--json"))
        server.send(signal.SIGKILL)
        heard += _said(server.wait())
    hub.clear_faults()
    with home.start("serve", "--verbose") as server:
        api = _known(home, server, heard)
        api.wait(asked[KILLED], Status.COMPLETED)
        with api.events() as stream:
            heard += [str(stream.next().data) for _ in range(3)]
        server.send(signal.SIGTERM)
        heard += _said(server.wait())
    _assert_nowhere(home, hub, heard, {"Hub": TOKEN, "access": access})


def _known(home: Home, server: Running, heard: list[str]) -> Known:
    server.wait_line(lambda line: line.startswith("Ctrl-C"))
    found, token = running_server(home.data), read_token(home.data)
    assert found is not None
    assert token is not None
    return Known(found.url, token, heard)


def _sign_in_and_be_refused(api: Known, access: str) -> None:
    assert api.get(f"/access?token={access}").status == 303
    assert api.get(f"/access?token={access[:-1]}").status == 401
    assert api.get(f"/{access}/{TOKEN}").status == 404, "pasted into an address: told to nobody else, and not kept"
    assert api.get("/health", Authorization=f"Bearer {access}x").status == 401
    body = {"model_id": f"a/{TOKEN}", "revision": f"?{access}"}
    assert api.call("POST", f"{MODELS}/download", body, headers={"Cookie": f"pass={access}"}).status == 422


def _said(*results: Result) -> list[str]:
    return [text for result in results for text in (result.out, result.err)]


def _assert_nowhere(home: Home, hub: HubServer, heard: list[str], secrets: dict[str, str]) -> None:
    at_hub = [request for request in hub.requests("hub") if TOKEN in str(request.headers)]
    assert at_hub, "it was needed"
    kept = [path for path in home.root.rglob("*") if path.is_file() and path != home.data / FILE_NAME]
    assert {path.name for path in kept} >= {"mlx-manager.db", "mlx-manager.log"}
    others: list[Any] = [*hub.requests("cdn"), *hub.requests("cas")]
    assert others, "bytes came from elsewhere"
    for name, secret in secrets.items():
        # As it is, without what tells what it is, and as a header of Basic or a careless library would have it.
        bare = secret.removeprefix("hf_")
        shapes = [bare, base64.b64encode(secret.encode()).decode().rstrip("=")[:-1], bare[:20]]
        for shape in shapes:
            for path in kept:
                assert shape.encode() not in path.read_bytes(), (name, path)
                assert shape not in str(path), (name, path)
            for request in others:
                assert shape not in f"{request.headers} {request.target}", (name, request.target)
    assert not [request for request in hub.requests() if secrets["access"] in f"{request.headers} {request.target}"]
    for name, secret in secrets.items():
        told = [text for text in heard if secret.removeprefix("hf_")[:20] in text and not _echo(text)]
        assert told == [], name


def _echo(text: str) -> bool:
    """What somebody sent is said back to them alone: that nothing is there, or that it is no name."""
    return text.startswith('{"type":"urn:mlx-manager:problem:') and ('"not_found"' in text or '"invalid_' in text)


def test_a_mirror_is_asked_without_the_token(tmp_path: Path, hub: HubServer) -> None:
    with HubServer() as mirror:
        home = Home(tmp_path, hub.url, {"HF_TOKEN": TOKEN, "MLX_MANAGER_MIRRORS": mirror.url})
        # The Hub's own bytes are barred, so the mirror is asked, then the store.
        assert home.run("pull", BARRED).code == 0
        asked = mirror.requests()
    assert asked, "somebody else was asked"
    assert not [request for request in asked if TOKEN in f"{request.headers} {request.target}"]
