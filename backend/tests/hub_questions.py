"""Asking a hub for plans, and leaving nothing behind: what the tests of the Hub client share."""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Any, Self

import pytest

from fakes.hub_server import TOKEN
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.plan import Plan
from mlx_manager.errors import HubError
from mlx_manager.services.hf_client import HubClient

REPO = "mlx-community/Tiny-4bit"
FILES: dict[str, Any] = {
    "README.md": "# Tiny",
    "config.json": '{"model_type": "tiny"}',
    "model.safetensors": b"weights" * 1000,
    "sub dir/ünïcode #1?.txt": "text",
}
# A question that hangs is given this long where the test is about its end, and this much longer where it is not.
SHORT_S, LONG_S = 0.5, 30.0


class Clients:
    """Makes clients; at the end they have left no connection and no thread."""

    def __init__(self) -> None:
        self._made: list[HubClient] = []

    def __call__(self, endpoint: str, *, token: str | None = None, **options: Any) -> HubClient:
        self._made.append(HubClient(endpoint, token=lambda: token, **{"timeout_s": LONG_S, **options}))
        return self._made[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for client in self._made:
            client.close()
        for thread in _questions():
            thread.join(10)
        assert not _questions()


def _questions() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "hub-question"]


def plan(client: HubClient, model_id: str = REPO, **request: Any) -> Plan:
    """The answer to one question."""
    return asyncio.run(client.plan(ModelRequest(model_id, **request)))


def failure(client: HubClient, model_id: str = REPO, **request: Any) -> HubError:
    """How one question failed: with advice, and without the token."""
    with pytest.raises(HubError) as caught:
        plan(client, model_id, **request)
    error = caught.value
    assert error.advice
    assert TOKEN not in f"{error.detail} {error.advice} {error.__cause__}"
    return error


def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy but those that the test names."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
