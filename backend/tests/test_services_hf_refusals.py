"""What the Hub refuses, and what of its answers is refused here: each by its right name, with the next step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from huggingface_hub import HfApi

from fakes.hub_server import TOKEN, Fault, HubServer
from hub_questions import FILES, LONG_S, REPO, SHORT_S, Clients, failure, plan, without_proxies
from mlx_manager.errors import (
    AccessDenied,
    EmptyRepository,
    GatedModel,
    HubError,
    HubTimeout,
    ModelNotFound,
    RevisionNotFound,
    TokenMissing,
    TokenRejected,
    UnsafeFileName,
)
from mlx_manager.services.hf_client import HubClient


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


# -- what does not pass by itself


def test_no_such_model_or_revision(hub: HubServer, client_of: Clients) -> None:
    stranger, known = client_of(hub.url), client_of(hub.url, token=TOKEN)
    for client, words in ((stranger, "private"), (known, "account")):
        error = failure(client, "org/Nowhere")
        assert isinstance(error, ModelNotFound) and not error.transient
        assert "org/Nowhere" in error.detail and words in error.detail
    assert "HF_TOKEN" in failure(stranger, "org/Nowhere").advice
    error = failure(stranger, revision="v9")
    assert isinstance(error, RevisionNotFound) and "'v9'" in error.detail


def test_a_private_model(hub: HubServer, client_of: Clients) -> None:
    hub.add_model("org/Private", FILES, private=True)
    assert isinstance(failure(client_of(hub.url), "org/Private"), ModelNotFound)
    assert len(plan(client_of(hub.url, token=TOKEN), "org/Private").files) == len(FILES)
    assert {record.authorization for record in hub.requests(status=200)} == {f"Bearer {TOKEN}"}


def test_a_gated_model_is_refused_before_its_bytes(hub: HubServer, client_of: Clients) -> None:
    hub.add_model("org/Gated", FILES, gated=True)
    stranger = failure(client_of(hub.url), "org/Gated")
    assert isinstance(stranger, GatedModel) and "hf auth login" in stranger.advice
    refused = failure(client_of(hub.url, token=TOKEN), "org/Gated")
    assert isinstance(refused, GatedModel) and "account" in refused.detail
    assert f"{hub.url}/org/Gated" in refused.advice
    hub.grant("org/Gated")
    assert len(plan(client_of(hub.url, token=TOKEN), "org/Gated").files) == len(FILES)
    assert hub.bytes_sent() == 0


def test_a_token_that_the_hub_does_not_know(hub: HubServer, client_of: Clients) -> None:
    error = failure(client_of(hub.url, token="hf_expired"))
    assert isinstance(error, TokenRejected) and "hf_expired" not in error.detail
    # The wording of an expired one, and no error code.
    hub.fault(Fault.status(401, message="User Access Token is expired"), where="info")
    assert isinstance(failure(client_of(hub.url, token=TOKEN)), TokenRejected)
    assert isinstance(failure(client_of(hub.url)), TokenMissing)


@pytest.mark.parametrize("token", ["hf_with space", "hf_line\n", "hf_ünï"])
def test_a_token_that_cannot_be_sent(hub: HubServer, client_of: Clients, token: str) -> None:
    error = failure(client_of(hub.url, token=token))
    assert isinstance(error, TokenRejected) and token not in error.detail
    assert not hub.requests()


def test_a_token_that_cannot_be_read(hub: HubServer) -> None:
    def unreadable() -> str | None:
        raise PermissionError(13, "Permission denied")

    client = HubClient(hub.url, token=unreadable)
    assert failure(client).detail == "The token cannot be read: Permission denied."
    with pytest.raises(TokenRejected):
        client.token()
    assert not hub.requests()
    assert asyncio.run(client.reachable()).reachable
    client.close()


@pytest.mark.parametrize("fault", [Fault.black_hole(), Fault.trickle(1, 0.1)], ids=["black_hole", "trickle"])
def test_a_token_that_is_renewed_at_the_hub_does_not_wait_for_ever(hub: HubServer, fault: Fault) -> None:
    """As for a browser's login whose token is about to expire: getting it is a request of its own."""
    hole = hub.fault(fault, where="whoami")

    def renewed() -> str | None:
        return str(HfApi(endpoint=hub.url, token=TOKEN).whoami()["name"])

    client = HubClient(hub.url, token=renewed, timeout_s=LONG_S, deadline_s=SHORT_S)
    started = time.monotonic()
    with pytest.raises(HubTimeout):
        client.token()
    assert isinstance(failure(client), HubTimeout)
    assert time.monotonic() - started < LONG_S / 2
    hub.wait_idle()
    hole.clear()
    assert client.token() == "tester"
    client.close()


def test_other_refusals_are_quoted_without_the_token(hub: HubServer, client_of: Clients) -> None:
    hub.fault(Fault.status(403, message=f"Your token {TOKEN} lacks a permission"), where="info", times=1)
    error = failure(client_of(hub.url, token=TOKEN))
    assert type(error) is AccessDenied and "lacks a permission" in error.detail
    hub.fault(Fault.status(403, message="Access to this resource is disabled."), where="info", times=1)
    assert "disabled" in failure(client_of(hub.url)).detail
    hub.fault(Fault.status(400, message="Invalid something"), where="info", times=1)
    refused = failure(client_of(hub.url))
    assert type(refused) is HubError and not refused.transient and "Invalid something" in refused.detail
    hub.fault(Fault.status(400, message="half a pair \ud800 of it"), where="info", times=1)
    assert "half a pair ? of it" in failure(client_of(hub.url)).detail, "what no ledger and no answer could hold"
    hub.fault(Fault.status(404), where="info", times=1)
    nowhere = failure(client_of(hub.url))
    assert isinstance(nowhere, ModelNotFound) and "HF_ENDPOINT" in nowhere.advice


@pytest.mark.parametrize(
    "name", ["../../escape", "/etc/passwd", "a\\b", "line\nbreak", "dir/../../x", "config.json/inside", "x" * 300]
)
def test_hostile_names_are_refused(hub: HubServer, client_of: Clients, name: str) -> None:
    hub.fault(Fault.tree_names(name), where="tree")
    assert isinstance(failure(client_of(hub.url)), UnsafeFileName)


def test_an_empty_repository(hub: HubServer, client_of: Clients) -> None:
    hub.fault(Fault.empty_tree(), where="tree", times=1)
    assert isinstance(failure(client_of(hub.url)), EmptyRepository)
    hub.fault(Fault.status(404, error_code="EntryNotFound"), where="tree", times=1)
    assert isinstance(failure(client_of(hub.url)), EmptyRepository)
