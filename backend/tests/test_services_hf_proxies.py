"""Bytes go through the same proxy as questions: the environment's, by httpx2's rules."""

from __future__ import annotations

from collections.abc import Mapping

import httpx2
import pytest

from mlx_manager.services.hf_client import HubClient

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def _client(monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str]) -> HubClient:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return HubClient("https://hub.example", token=lambda: None)


@pytest.mark.parametrize(
    ("env", "url", "proxy"),
    [
        ({}, "https://cdn.example/x", None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://cdn.example/x?X-Amz-Signature=1", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://cdn.example/x", None),
        ({"https_proxy": "proxy:3128"}, "https://cdn.example/x", "http://proxy:3128"),
        ({"ALL_PROXY": "socks5://proxy:1080"}, "https://cdn.example/x", "socks5://proxy:1080"),
        ({"HTTPS_PROXY": "http://me:secret@proxy:3128"}, "https://cdn.example/x", "http://me:secret@proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, "https://cdn.example/x", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "cdn.example"}, "https://cdn.example/x", None),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "cdn.example"}, "https://a.cdn.example/x", None),
        (
            {"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "other.example"},
            "https://cdn.example/x",
            "http://proxy:3128",
        ),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "127.0.0.0/8"}, "http://127.0.0.1:8080/x", None),
    ],
)
def test_the_proxy_of_a_url(
    monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str], url: str, proxy: str | None
) -> None:
    assert _client(monkeypatch, env).proxy_for(url) == proxy


def test_it_is_the_one_that_httpx2_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held against the library itself: it says which proxy it could not reach."""
    client = _client(monkeypatch, {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "direct.invalid"})
    for url, through in (("http://some.invalid/", "http://127.0.0.1:9"), ("http://direct.invalid/", None)):
        assert client.proxy_for(url) == through
        with pytest.raises(httpx2.ConnectError) as caught, httpx2.Client() as theirs:
            theirs.get(url)
        refused = "refused" in str(caught.value)
        assert refused == (through is not None)


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://hub.example/org/model/resolve/main/x", True),
        ("https://hub.example:443/x", True),
        ("HTTPS://HUB.EXAMPLE/x", True),
        ("http://hub.example/x", False),
        ("https://hub.example:8443/x", False),
        ("https://cdn.hub.example/x", False),
        ("https://hub.example.evil.example/x", False),
        ("https://hub.example@evil.example/x", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_the_token_is_for_the_hub_alone(monkeypatch: pytest.MonkeyPatch, url: str, own: bool) -> None:
    assert _client(monkeypatch, {}).owns(url) is own
