"""What a process came for is asked of the Hub ahead: the answer is taken once, soon, and by nobody else."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from api_client import DEAD_HUB
from fakes.hub_server import Fault, HubServer
from hub_questions import FILES, REPO, Clients, without_proxies
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.errors import ModelNotFound
from mlx_manager.wiring.foresight import Foresight

WANTED = ModelRequest(REPO)
OTHER = ModelRequest("mlx-community/Other-4bit")
PATIENCE_S = 10.0
"""Less than a client gives the Hub."""


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


async def test_the_answer_is_taken_once(hub: HubServer, client_of: Clients) -> None:
    foresight = Foresight(client_of(hub.url))
    foresight.ask_ahead(WANTED)
    await asyncio.to_thread(hub.wait_for, 1, where="tree")
    first = await foresight.plan(WANTED)
    assert first.commit == hub.repo(REPO).head.sha
    assert len(hub.requests("info")) == 1
    hub.commit(REPO, {"config.json": "{}"})
    assert (await foresight.plan(WANTED)).commit == hub.repo(REPO).head.sha != first.commit


async def test_another_model_has_its_own_question(hub: HubServer, client_of: Clients) -> None:
    hub.add_model(OTHER.model_id, FILES)
    foresight = Foresight(client_of(hub.url))
    foresight.ask_ahead(WANTED)
    assert (await foresight.plan(OTHER)).model_id == OTHER.model_id


async def test_a_question_of_long_ago_is_asked_anew(hub: HubServer, client_of: Clients) -> None:
    foresight = Foresight(client_of(hub.url), fresh_s=0.0)
    foresight.ask_ahead(WANTED)
    await asyncio.to_thread(hub.wait_for, 1, where="tree")
    hub.commit(REPO, {"config.json": "{}"})
    assert (await foresight.plan(WANTED)).commit == hub.repo(REPO).head.sha


async def test_a_refusal_is_told_to_whoever_asks_and_not_kept(hub: HubServer, client_of: Clients) -> None:
    foresight = Foresight(client_of(hub.url))
    foresight.ask_ahead(OTHER)
    with pytest.raises(ModelNotFound):
        await foresight.plan(OTHER)
    hub.add_model(OTHER.model_id, FILES)
    assert (await foresight.plan(OTHER)).model_id == OTHER.model_id


async def test_an_answer_that_nobody_wants_holds_nobody_up(hub: HubServer, client_of: Clients) -> None:
    struck = hub.fault(Fault.black_hole(), where="info")
    foresight = Foresight(client_of(hub.url))
    foresight.ask_ahead(WANTED)
    await asyncio.to_thread(struck.wait_hit)
    await asyncio.wait_for(foresight.stop(), PATIENCE_S)
    await asyncio.to_thread(hub.wait_idle)


async def test_a_refusal_that_nobody_wants_is_no_forgotten_error(client_of: Clients) -> None:
    complaints: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        foresight = Foresight(client_of(DEAD_HUB, offline=True))
        foresight.ask_ahead(WANTED)
        for _ in range(3):
            await asyncio.sleep(0)
        await foresight.stop()
        gc.collect()
    finally:
        loop.set_exception_handler(None)
    assert complaints == []


def test_the_hub_can_be_asked_before_sql_is_imported() -> None:
    code = "import sys, mlx_manager.embedded; print('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"
