"""What a command has imported: most of the time that a short one takes is spent on code, and on code that it may not
need. And the server inside `pull`: asked by its own command without HTTP, it tells what it tells everybody else."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from api_client import DEAD_HUB, environment
from cli_process import Home, Running
from fakes.hub_server import Fault, HubServer, mlx_model_files
from mlx_manager.cli.client import ApiClient, Refused, StreamLost
from mlx_manager.cli.own import OwnServer
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.embedded import EmbeddedServer
from mlx_manager.errors import ServerUnreachable
from mlx_manager.settings import Settings

MODEL = "mlx-community/Tiny-4bit"
WANTED = ModelRequest(MODEL)

WEB = {"fastapi", "pydantic", "starlette", "uvicorn", "mlx_manager.app", "mlx_manager.server"}
DISCOVERY = {"markdown_it", "nh3", "mlx_manager.services.discovery"}
DOCTOR = {"mlx_manager.checkup", "mlx_manager.domain.diagnosis", "mlx_manager.services.doctor"}
HUB_AT_LARGE = {"huggingface_hub.hf_api", "huggingface_hub.file_download"}
"""All that the Hub can do; a download asks it two things."""
SELDOM = WEB | DISCOVERY | DOCTOR | {"alembic", "hf_xet", "psutil", "sqlalchemy.dialects.postgresql"}
WORK = {"asyncio", "httpx2", "huggingface_hub", "pycurl", "sqlalchemy", "mlx_manager.wiring"}

_RUN_AND_TELL = """
import gc, json, sys
from mlx_manager.cli import main
searches = []
gc.callbacks.append(lambda phase, found: searches.append((phase, found)) if not gc.get_freeze_count() else None)
try:
    main()
finally:
    sys.stderr.write(json.dumps({"modules": sorted(sys.modules), "searches": searches}))
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(MODEL, mlx_model_files(300_000))
        yield hub


def made(home: Home, *arguments: str) -> tuple[set[str], list[object]]:
    """All modules of a command that went well, and the searches for cycles among all that its start has made."""
    running = Running([sys.executable, "-c", _RUN_AND_TELL, *arguments], home.env())
    try:
        done = running.wait()
    finally:
        running.end()
    assert done.code == 0, done.err
    told = json.loads(done.err)
    return set(told["modules"]), told["searches"]


@pytest.mark.parametrize(
    ("arguments", "spared"),
    [
        (["version"], WEB | DISCOVERY | WORK | {"alembic", "hf_xet"}),
        (["--help"], WEB | DISCOVERY | WORK | {"alembic", "hf_xet"}),
        (["ls"], WEB | DISCOVERY | {"alembic", "hf_xet", "pycurl", "sqlalchemy"}),
        (
            ["ps"],
            WEB | DISCOVERY | {"alembic", "hf_xet", "huggingface_hub", "pycurl", "sqlalchemy.dialects.postgresql"},
        ),
        (["pull", MODEL, "--quiet"], SELDOM | HUB_AT_LARGE),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_nobody_waits_for_code_that_is_not_needed(
    tmp_path: Path, hub: HubServer, arguments: list[str], spared: set[str]
) -> None:
    modules, searches = made(Home(tmp_path, hub.url), *arguments)
    assert modules & spared == set()
    assert searches == []


def test_the_hub_answers_a_pull_while_its_ledger_is_still_being_opened(tmp_path: Path, hub: HubServer) -> None:
    home = Home(tmp_path, hub.url)
    home.data.mkdir()
    hub.clear_log()
    with closing(sqlite3.connect(Settings.load(home.env()).database, isolation_level=None)) as somebody:
        # Whoever opens the ledger waits for this.
        somebody.execute("BEGIN EXCLUSIVE")
        with home.start("pull", MODEL, "--quiet") as pull:
            hub.wait_for(1, where="tree")
            assert not (home.data / "server.json").exists()
            somebody.execute("ROLLBACK")
            done = pull.wait()
    assert done.code == 0, done.err
    assert len(hub.requests("info")) == 1


@pytest.fixture
def server(tmp_path: Path, hub: HubServer) -> Iterator[tuple[OwnServer, ApiClient]]:
    """One server, as its own command asks it and as others do."""
    embedded = EmbeddedServer(Settings.load(environment(tmp_path, hub.url)))
    url = embedded.start()
    own, other = OwnServer(embedded, url), ApiClient(url)
    yield own, other
    own.close()
    other.close()
    embedded.stop()
    hub.clear_faults()


def test_its_own_command_hears_what_others_hear(server: tuple[OwnServer, ApiClient]) -> None:
    own, other = server
    accepted = own.request(WANTED)
    assert accepted.created
    with own.stream(accepted.task_id, None) as events:
        told = list(events)
    assert told[0][1]["status"] == "starting"
    assert told[-1][1]["status"] == "completed"
    # With an id both get what came after it. Figures are told to those who listen when they come.
    after = told[0][0]
    with own.stream(accepted.task_id, after) as events, other.stream(accepted.task_id, after) as others:
        assert list(events) == list(others)
    for id_before, expected in ((None, 1), (told[-1][0], 0)):
        with own.stream(accepted.task_id, id_before) as events, other.stream(accepted.task_id, id_before) as others:
            mine, theirs = list(events), list(others)
        assert mine == theirs
        assert len(mine) == expected
    assert own.status(accepted.task_id) == other.status(accepted.task_id)
    assert own.status(accepted.task_id, files=True) == other.status(accepted.task_id, files=True)


def test_its_own_command_can_do_what_others_can(server: tuple[OwnServer, ApiClient], hub: HubServer) -> None:
    own, other = server
    hub.fault(Fault.stall(after=1 << 10), where="cdn")
    task_id = own.request(WANTED).task_id
    again = other.request(WANTED)
    assert (again.task_id, again.created) == (task_id, False)
    assert own.move(task_id, "pause")["status"] == "paused"
    assert other.move(task_id, "resume")["status"] != "paused"
    assert own.move(task_id, "cancel")["status"] == "cancelled"


def test_its_own_command_is_refused_in_the_same_words(server: tuple[OwnServer, ApiClient]) -> None:
    told = []
    for client in server:
        for ask in (client.status, lambda task_id, c=client: c.move(task_id, "pause")):
            with pytest.raises(Refused) as refused:
                ask("no-such-download")
            error = refused.value
            told.append((error.detail, error.advice, error.told_code, error.status))
    assert len(set(told)) == 1, told
    assert told[0][2:] == ("download_not_found", 404)


def test_when_it_has_ended_its_own_command_is_told_as_others_are(tmp_path: Path, hub: HubServer) -> None:
    embedded = EmbeddedServer(Settings.load(environment(tmp_path, hub.url)))
    own = OwnServer(embedded, embedded.start())
    hub.fault(Fault.stall(after=1 << 10), where="cdn")
    task_id = own.request(WANTED).task_id
    with own.stream(task_id, None) as events:
        next(events)
        embedded.stop()
        with pytest.raises(StreamLost):
            list(events)
    with pytest.raises(ServerUnreachable, match="has ended"):
        own.status(task_id)
    own.close()
    hub.clear_faults()


def test_it_ends_although_nobody_ever_came(tmp_path: Path) -> None:
    embedded = EmbeddedServer(Settings.load(environment(tmp_path, DEAD_HUB)))
    embedded.start()
    embedded.stop()
    log = (tmp_path / "data" / "logs" / "mlx-manager.log").read_text()
    assert " listens at http://127.0.0.1:" in log
    assert "Stopped." in log
    assert "Somebody has come" not in log
    assert not (tmp_path / "data" / "server.json").exists()
