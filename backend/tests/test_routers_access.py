"""A server that others can reach: nothing without the token, a browser by its cookie, a script by its header."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from api_client import DEAD_HUB, MODELS, Answer, Api, ServerProcess, serving
from mlx_manager.services.access import make_pass, make_token, read_token
from mlx_manager.services.data_dir import running_server

# Another way to write 127.0.0.1, which we do not know for this machine: as a network's address is, without a network.
BEYOND = {"MLX_MANAGER_HOST": "127.1", "MLX_MANAGER_NAMES": "models.example"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def api(home: Path) -> Iterator[Api]:
    with ServerProcess(home, DEAD_HUB, **BEYOND) as server:
        yield Api(server.api().url.replace("127.1", "127.0.0.1"))


@pytest.fixture(scope="module")
def token(api: Api, home: Path) -> str:
    token = read_token(home / "data")
    assert token is not None, "made at the first start"
    return token


def _bearer(credentials: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credentials}"}


def _cookie(answer: Answer) -> str:
    return answer.headers["set-cookie"].partition(";")[0]


CALLS = [
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/openapi.json"),
    ("GET", "/api/system"),
    ("GET", f"{MODELS}/downloads"),
    ("GET", f"{MODELS}/local"),
    ("GET", "/nothing"),
    ("GET", "/ACCESS"),
    ("GET", "/access/"),
    ("GET", "//access"),
    ("POST", f"{MODELS}/download"),
    ("POST", f"{MODELS}/download/x/cancel"),
    ("PUT", "/api/limits"),
    ("DELETE", f"{MODELS}/download/x"),
    ("OPTIONS", "/api/system"),
]


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_nothing_is_told_without_the_token(api: Api, token: str, method: str, path: str) -> None:
    answer = api.call(method, path, {"model_id": "test-org/x"} if method in ("POST", "PUT") else None)
    assert (answer.status, answer.json["code"]) == (401, "access_needed")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "mlx-manager token" in answer.json["advice"]
    assert "content-security-policy" in answer.headers


def test_no_operation_of_the_api_is_open(api: Api, token: str) -> None:
    document = api.call("GET", "/openapi.json", headers=_bearer(token)).json
    assert document["security"] == [{"token": []}]
    for path, methods in document["paths"].items():
        address = re.sub(r"\{\w+\}", "x", path)
        for method in methods:
            if method == "get":
                # Of a stream that is let in nobody would ever see the end.
                with api.stream(address) as answered:
                    assert answered.status == 401, path
            else:
                assert api.call(method.upper(), address).status == 401, (method, path)


def test_a_script_is_let_in_by_its_header(api: Api, token: str) -> None:
    for credentials in (token, make_pass(token, 60)):
        assert api.call("GET", "/health", headers=_bearer(credentials)).status == 200
    assert api.call("GET", "/health", headers={"Authorization": f"bearer  {token}"}).status == 200
    accepted = api.call("POST", f"{MODELS}/download", {"model_id": "test-org/x"}, headers=_bearer(token))
    assert accepted.status == 202


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + "x", lambda t: t.swapcase(), lambda t: ""])
def test_almost_the_token_is_not_the_token(api: Api, token: str, change: object) -> None:
    answer = api.call("GET", "/health", headers=_bearer(change(token)))  # type: ignore[operator]
    assert answer.status in (401, 429)
    assert answer.json["code"] in ("access_refused", "too_many_attempts")
    assert api.call("GET", "/health", headers={"Authorization": f"Basic {token}"}).status in (401, 429)
    assert api.call("GET", f"/health?token={token}").status == 401, "in an address it is good for the one thing"


def test_the_address_that_opens_the_page(api: Api, token: str) -> None:
    opened = api.get(f"/access?token={token}")
    assert (opened.status, opened.headers["location"]) == (303, "/"), "the token leaves the address bar"
    given = opened.headers["set-cookie"].lower()
    for attribute in ("httponly", "samesite=strict", "path=/", "max-age=2592000"):
        assert attribute in given
    assert token not in opened.headers["set-cookie"]
    assert token.encode() not in opened.body
    page = api.get("/", Cookie=_cookie(opened))
    assert page.status == 200
    with api_stream(api, _cookie(opened)) as stream:
        assert stream.status == 200, "which is all that EventSource can send"


def api_stream(api: Api, cookie: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=10)
    connection.request(
        "GET", "/api/events", headers={"Cookie": f"other=1; strange; {cookie}; x=\u00e9".encode("latin-1")}
    )
    return connection.getresponse()


def test_one_who_follows_a_link_keeps_the_cookie(api: Api, token: str) -> None:
    """A browser on its way from another site would not send a Strict cookie after a redirect: the sign-in failed."""
    sent = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    opened = api.call("GET", f"/access?token={token}", headers=sent)
    assert opened.status == 200
    assert 'http-equiv="refresh" content="0; url=/"' in opened.body.decode()
    assert token.encode() not in opened.body
    assert api.get("/", Cookie=_cookie(opened)).status == 200


def test_a_browser_without_the_cookie_is_shown_a_form(api: Api, token: str) -> None:
    page = api.get("/", Accept="text/html,*/*;q=0.8")
    assert page.status == 401
    text = page.body.decode()
    assert "<form" in text
    assert not re.search(r"<script|<style|style=|\son\w+=|://", text), "nothing that the policy forbids"
    (style,) = re.findall(r'rel="stylesheet" href="([^"]+)"', text)
    assert api.get(style).headers["content-type"].startswith("text/css"), "the one thing that strangers see"
    wrong = api.call("POST", "/access", raw=b"token=wrong", headers=FORM)
    assert wrong.status in (401, 429)
    assert "set-cookie" not in wrong.headers
    right = api.call("POST", "/access", raw=urlencode({"token": f" {token} "}).encode(), headers=FORM)
    assert (right.status, right.headers["location"]) == (303, "/")
    assert api.get("/", Cookie=_cookie(right)).status == 200


def test_a_form_of_another_page_does_not_sign_in(api: Api, token: str) -> None:
    sent = {**FORM, "Origin": "https://evil.example"}
    assert api.call("POST", "/access", raw=f"token={token}".encode(), headers=sent).status == 403


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe", b"a=b&" * 5000, b"token", b"token=%ff%00", b"token=" + b"x" * 60_000]
)
def test_whatever_a_form_sends_is_answered(api: Api, body: bytes) -> None:
    assert api.call("POST", "/access", raw=body, headers=FORM).status in (401, 429)


def test_a_cookie_of_another_server_does_no_harm(api: Api, token: str) -> None:
    """Browsers do not tell ports apart: two servers on one machine see each other's."""
    opened = api.get(f"/access?token={token}")
    both = f"mlx_manager_0123456789ab=1700000000.abcdef; {_cookie(opened)}"
    assert api.get("/health", Cookie=both).status == 200
    name = _cookie(opened).partition("=")[0]
    assert api.get("/health", Cookie=f"{name}=1700000000.abcdef").json["code"] == "access_refused"


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["192.168.1.7", "[fe80::1]", "localhost", "models.example", "MODELS.EXAMPLE", "127.1"])
def test_an_address_cannot_be_rebound_and_is_answered(api: Api, token: str, name: str) -> None:
    for host in (name, f"{name}:10242"):
        assert api.call("GET", "/health", headers={"Host": host, **_bearer(token)}).status == 200


@pytest.mark.parametrize("name", ["evil.example", "x.models.example", "192.168.1.7.evil.example", "", "1.2.3.4.5"])
def test_a_name_that_nobody_gave_it_is_turned_away(api: Api, token: str, name: str) -> None:
    """Else the form would ask for the token under a name that its owner points anywhere (DNS rebinding)."""
    for path in ("/health", "/access", f"/access?token={token}"):
        answer = api.call("GET", path, headers={"Host": name, **_bearer(token)})
        assert (answer.status, answer.json["code"]) == (421, "wrong_host")
        assert "MLX_MANAGER_NAMES" in answer.json["advice"]
        assert "set-cookie" not in answer.headers


# --- wrong tokens ----------------------------------------------------------------------------------------------------


def test_guessing_is_slowed_down_and_the_right_one_still_works(tmp_path: Path) -> None:
    with serving(tmp_path, DEAD_HUB, MLX_MANAGER_ACCESS="token") as api:
        token = read_token(tmp_path / "data")
        assert token is not None
        guesses = [api.call("GET", "/health", headers=_bearer(f"guess-{number}")) for number in range(12)]
        assert [one.status for one in guesses] == [401] * 10 + [429] * 2
        assert 1 <= int(guesses[-1].headers["retry-after"]) <= 60
        assert guesses[-1].json["code"] == "too_many_attempts"
        by_form = api.call("POST", "/access", raw=b"token=guess", headers=FORM)
        by_address = api.get("/access?token=guess")
        for answer in (by_form, by_address):
            assert answer.status == 429
            assert "retry-after" in answer.headers
        assert api.get("/health").status == 401, "who guesses nothing is not slowed down"
        assert api.call("GET", "/health", headers=_bearer(token)).status == 200, "nobody can lock the owner out"
    log = (tmp_path / "data" / "logs" / "mlx-manager.log").read_text()
    assert log.count("showed a wrong access token") == 1
    assert log.count("has to wait") == 1
    assert "guess-" not in log


# --- renewal ---------------------------------------------------------------------------------------------------------


def test_a_renewed_token_ends_what_the_old_one_opened(tmp_path: Path) -> None:
    with serving(tmp_path, DEAD_HUB, MLX_MANAGER_ACCESS="token") as api:
        cookie = _cookie(api.get(f"/access?token={read_token(tmp_path / 'data')}"))
        with api_stream(api, cookie) as stream:
            assert stream.status == 200
            renewed = make_token(tmp_path / "data", renew=True)
            assert api.call("GET", "/health", headers=_bearer(renewed)).status == 200
            begun = time.monotonic()
            stream.read()
            assert time.monotonic() - begun < 5, "the stream has ended"
        assert api.get("/health", Cookie=cookie).status == 401


def test_on_this_machine_alone_none_is_needed(tmp_path: Path) -> None:
    with serving(tmp_path, DEAD_HUB) as api:
        assert api.get("/health").status == 200
        assert read_token(tmp_path / "data") is None
        for answer in (api.get("/access?token=x"), api.call("POST", "/access", raw=b"token=x", headers=FORM)):
            assert (answer.status, answer.headers["location"]) == (303, "/")
            assert "set-cookie" not in answer.headers


def test_where_it_is_and_that_it_asks_is_announced(api: Api, home: Path) -> None:
    server = running_server(home / "data")
    assert server is not None
    assert server.token_needed
    assert server.others == (server.url,) == (api.url.replace("127.0.0.1", "127.1"),)
