"""What reaches the server from elsewhere is kept out; errors are problems; the start page needs no network."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from api_client import DEAD_HUB, MODELS, Api, ServerProcess

PROBLEM = "application/problem+json"


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with ServerProcess(tmp_path_factory.mktemp("home"), DEAD_HUB) as server:
        yield server.api()


def _port(api: Api) -> int:
    port = urlsplit(api.url).port
    assert port is not None
    return port


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_it_answers_under_its_own_names(api: Api, name: str) -> None:
    assert api.get("/health", Host=f"{name}:{_port(api)}").status == 200
    assert api.get("/health", Host=name).status == 200


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "[::1",
        "",
        ".",
        "192.168.1.7",
        "[fe80::1%25x]",
    ],
)
def test_a_name_that_is_not_ours_is_turned_away(api: Api, name: str) -> None:
    """A page that points its own name at 127.0.0.1 must not get through (DNS rebinding)."""
    for method, path in (("GET", f"{MODELS}/downloads"), ("POST", f"{MODELS}/download"), ("GET", "/")):
        answer = api.call(method, path, headers={"Host": name})
        assert (answer.status, answer.json["code"]) == (421, "wrong_host")
        assert answer.headers["content-type"] == PROBLEM


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost"])
def test_a_page_from_elsewhere_changes_nothing(api: Api, origin: str) -> None:
    unknown = f"{MODELS}/download/0123456789abcdef"
    for path in (f"{MODELS}/download", f"{unknown}/pause", f"{unknown}/cancel"):
        answer = api.call("POST", path, {"model_id": "test-org/x"}, headers={"Origin": origin})
        assert (answer.status, answer.json["code"]) == (403, "cross_origin")
    for path in ("/health", "/api/events", "/openapi.json"):
        answer = api.get(path, Origin=origin)
        assert (answer.status, answer.json["code"]) == (403, "cross_origin"), "a stream would be taken from others"
        assert not [name for name in answer.headers if name.startswith("access-control-")], "and it reads nothing"


@pytest.mark.parametrize("site", ["cross-site", "same-site", "something-new"])
def test_what_a_page_from_elsewhere_embeds_is_not_served(api: Api, site: str) -> None:
    """An img or a script element sends no Origin. Another port of this machine is ``same-site`` for a browser."""
    for mode, kind in (("no-cors", "image"), ("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe")):
        for path in ("/", "/api/system", f"{MODELS}/downloads"):
            sent = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": kind}
            answer = api.call("GET", path, headers=sent)
            assert (answer.status, answer.json["code"]) == (403, "cross_origin"), (path, mode, kind)
    form = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert api.call("POST", f"{MODELS}/download", {"model_id": "test-org/x"}, headers=form).status == 403
    assert api.call("GET", "/", headers=form).status == 200, "a link may lead here"


@pytest.mark.parametrize("site", ["none", "same-origin"])
def test_the_address_bar_and_our_own_page_are_served(api: Api, site: str) -> None:
    assert api.call("GET", "/health", headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "cors"}).status == 200


SAFE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@pytest.mark.parametrize(
    ("method", "path", "status", "sent"),
    [
        ("GET", "/", 200, {}),
        ("GET", "/health", 200, {}),
        ("GET", "/openapi.json", 200, {}),
        ("GET", "/nothing", 404, {}),
        ("DELETE", "/health", 405, {}),
        ("GET", f"{MODELS}/downloads?limit=x", 422, {}),
        ("GET", "/", 421, {"Host": "evil.example"}),
        ("GET", "/", 403, {"Origin": "https://evil.example"}),
        ("GET", f"/{'x' * 9000}", 414, {}),
    ],
)
def test_every_answer_has_safe_headers(api: Api, method: str, path: str, status: int, sent: dict[str, str]) -> None:
    answer = api.call(method, path, headers=sent)
    assert answer.status == status
    assert {name: answer.headers.get(name) for name in SAFE} == SAFE
    policy = answer.headers["content-security-policy"]
    for rule in ("default-src 'self'", "img-src 'self' data:", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in policy
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "camera=()" in answer.headers["permissions-policy"]
    assert answer.headers["cache-control"] in ("no-store", "no-cache")


def test_streams_have_safe_headers_too(api: Api) -> None:
    with api.events() as stream:
        assert {name: stream.headers.get(name) for name in SAFE} == SAFE


@pytest.mark.parametrize("path", [f"/{'x' * 8200}", f"{MODELS}/downloads?cursor={'x' * 8200}", "/?" + "a&" * 5000])
def test_an_address_is_bounded(api: Api, path: str) -> None:
    answer = api.get(path)
    assert (answer.status, answer.json["code"]) == (414, "uri_too_long")


@pytest.mark.parametrize("sent", [{"X-Long": "x" * 40_000}, {f"X-{number}": "y" * 300 for number in range(150)}])
def test_headers_are_bounded(api: Api, sent: dict[str, str]) -> None:
    assert api.call("GET", "/health", headers=sent).status == 431
    assert api.call("GET", "/health", headers={"Cookie": "a=" + "b" * 20_000}).status == 200, "as on a busy localhost"


def test_our_own_page_may(api: Api) -> None:
    answer = api.call("POST", f"{MODELS}/download", {"model_id": "test-org/own"}, headers={"Origin": api.url})
    assert answer.status == 202


def test_a_form_of_another_page_is_no_request(api: Api) -> None:
    """A browser sends text/plain to anybody without asking; only JSON is read."""
    raw = b'{"model_id": "test-org/form"}'
    answer = api.call("POST", f"{MODELS}/download", raw=raw, headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.json["code"]) == (422, "invalid_request")


def test_a_large_body_is_not_read(api: Api) -> None:
    answer = api.call("POST", f"{MODELS}/download", raw=b" " * (64 * 1024 + 1))
    assert (answer.status, answer.json["code"], answer.headers["content-type"]) == (413, "content_too_large", PROBLEM)


def test_a_large_body_that_does_not_say_so_is_not_read_to_its_end(api: Api) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", _port(api), timeout=10)
    chunks = (b" " * 4096 for _ in range(1000))
    try:
        connection.request(
            "POST", f"{MODELS}/download", chunks, {"Content-Type": "application/json"}, encode_chunked=True
        )
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        # It hung up on us in the middle: that is what is wanted.
        return
    finally:
        connection.close()


def test_a_large_body_that_says_so_is_not_waited_for(api: Api) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", _port(api), timeout=10)
    connection.putrequest("POST", f"{MODELS}/download")
    connection.putheader("Content-Length", str(64 * 1024 + 1))
    connection.endheaders()
    assert connection.getresponse().status == 413, "before a byte of it was sent"
    connection.close()


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_must_say_that_it_is_json(api: Api, kind: str) -> None:
    """A page of another site can send the others without asking first."""
    raw = b'{"model_id": "test-org/none"}'
    answer = api.call("POST", f"{MODELS}/download", raw=raw, headers={"Content-Type": kind})
    assert (answer.status, answer.json["code"]) == (422, "invalid_request"), answer


def test_not_even_our_own_page_gets_a_cors_header(api: Api) -> None:
    own = {"Origin": api.url, "Sec-Fetch-Site": "same-origin"}
    for method, more in (("GET", {}), ("OPTIONS", {"Access-Control-Request-Method": "POST"})):
        answer = api.call(method, "/health", headers=own | more)
        assert not [name for name in answer.headers if name.startswith("access-control-")], answer


def test_a_body_of_the_most_that_is_allowed(api: Api) -> None:
    raw = b'{"model_id": "test-org/large"}'
    assert api.call("POST", f"{MODELS}/download", raw=raw + b" " * (64 * 1024 - len(raw))).status == 202


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/api/models/downloads/", 404, "not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", f"{MODELS}/download/", 404, "not_found"),
        ("DELETE", f"{MODELS}/downloads", 405, "method_not_allowed"),
        ("GET", f"{MODELS}/download", 405, "method_not_allowed"),
        ("GET", f"{MODELS}/download/x/pause", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_a_problem_too(api: Api, method: str, path: str, status: int, code: str) -> None:
    answer = api.call(method, path)
    assert (answer.status, answer.json["code"], answer.headers["content-type"]) == (status, code, PROBLEM)
    assert path in answer.json["detail"]
    assert answer.json["advice"]
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/api/limits", "GET, PUT"), (f"{MODELS}/download/x/limit", "GET, PUT"), (f"{MODELS}/downloads", "GET")],
)
def test_all_methods_of_a_path_are_told(api: Api, path: str, methods: str) -> None:
    """Those of its first route alone were."""
    for method in ("DELETE", "OPTIONS"):
        answer = api.call(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, methods)


def test_a_stranger_writes_no_lines_into_the_log(api: Api) -> None:
    """What stood where a task's id stands in a path was written as it came, a line of its own choice."""
    forged = "2026-01-01 00:00:00.000 ERROR   - forged"
    api.get(f"{MODELS}/download/x%0A{forged.replace(' ', '%20')}/status")
    api.get(f"/x%0A{forged.replace(' ', '%20')}%1b[2J")
    log = Path(api.get("/api/system").json["log_file"]).read_text()
    assert "forged" in log
    assert not [line for line in log.splitlines() if line.startswith(forged)]
    assert "\x1b" not in log


def test_health_and_system(api: Api) -> None:
    health = api.get("/health").json
    assert health["status"] == "ok"
    system = api.get("/api/system").json
    assert (system["version"], system["pid"]) == (health["version"], health["pid"])
    assert system["cache"]["path"].endswith("/hf/hub")
    assert system["cache"]["free_bytes"] > 0
    assert system["cache"]["error"] is None
    assert system["limits"]["max_downloads"] == 3
    assert system["hub"]["offline"] is False
    assert system["hub"]["endpoint"] == DEAD_HUB
    assert set(system["downloads"]) == {"active", "waiting"}
