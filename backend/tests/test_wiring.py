"""The core as one thing that starts and stops, and the look at the Hub that nobody waits for."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from api_client import DEAD_HUB, environment
from certificates import make_certificate
from fakes.hub_server import TOKEN, Fault, HubServer, mlx_model_files
from mlx_manager.domain.catalog import check_request
from mlx_manager.domain.reachability import Reachability
from mlx_manager.domain.states import Status
from mlx_manager.errors import DatabaseUnusable
from mlx_manager.settings import Settings
from mlx_manager.wiring import Core, HubWatch


class Looks:
    """A Hub whose answer comes when it is let."""

    def __init__(self) -> None:
        self.begun = 0
        self.answer = asyncio.Event()

    async def __call__(self) -> Reachability:
        self.begun += 1
        await self.answer.wait()
        return Reachability(True, latency_ms=self.begun)


async def test_whoever_asks_first_waits_a_moment_and_no_longer() -> None:
    looks = Looks()
    watch = HubWatch(looks, offline=False, patience_s=0.01)
    assert await watch.latest() == (None, None)
    assert await watch.latest() == (None, None)
    assert looks.begun == 1, "one look at a time"
    looks.answer.set()
    found, age_s = await _known(watch)
    assert found == Reachability(True, latency_ms=1)
    assert 0 <= age_s < 5
    assert looks.begun == 1
    await watch.stop()


async def test_an_old_look_is_told_while_the_next_one_is_taken() -> None:
    looks = Looks()
    looks.answer.set()
    watch = HubWatch(looks, offline=False, again_after_s=0.0)
    assert (await _known(watch))[0] == Reachability(True, latency_ms=1)
    looks.answer.clear()
    assert (await _known(watch))[0] == Reachability(True, latency_ms=1), "what is known"
    await asyncio.sleep(0)
    assert looks.begun == 2
    await watch.stop()


async def test_offline_nobody_looks() -> None:
    looks = Looks()
    watch = HubWatch(looks, offline=True)
    assert await watch.latest() == (None, None)
    assert looks.begun == 0
    await watch.stop()


async def _known(watch: HubWatch) -> tuple[Reachability, float]:
    while True:
        found, age_s = await watch.latest()
        if found is not None and age_s is not None:
            return found, age_s


def _settings(tmp_path: Path, hub_url: str) -> Settings:
    settings = Settings.load(environment(tmp_path, hub_url))
    settings.home.mkdir()
    return settings


async def test_a_core_downloads_without_any_server(tmp_path: Path) -> None:
    hidden: list[str | None] = []
    with HubServer() as hub:
        hub.add_model("test-org/x", mlx_model_files(1 << 20))
        async with Core(_settings(tmp_path, hub.url), hide=hidden.append) as core:
            watcher = core.bus.subscribe()
            download, created = await core.manager.request(check_request("test-org/x"))
            assert created
            async for event in watcher:
                if event.terminal:
                    break
            assert (await core.manager.get(download.task_id)).status is Status.COMPLETED
            (model,) = (await core.library()).models
            assert (model.model_id, model.complete) == ("test-org/x", True)
            found, age_s = await core.hub_reachability()
            assert found is None or found.reachable
            assert (found is None) == (age_s is None)
            core.end_streams()
            assert [event async for event in watcher] == []
        await core.stop()
    assert hidden


@pytest.mark.parametrize(
    ("env", "by_xet"),
    [
        ({"MLX_MANAGER_ENGINE": "xet"}, True),
        ({}, False),
        ({"MLX_MANAGER_ENGINE": "xet", "HF_HUB_DISABLE_XET": "1"}, False),
    ],
)
async def test_the_engine_can_be_chosen(tmp_path: Path, env: dict[str, str], by_xet: bool) -> None:
    settings = Settings.load({**environment(tmp_path, ""), **env})
    settings.home.mkdir()
    with HubServer(xet=True) as hub:
        hub.add_model("test-org/x", mlx_model_files(1 << 20))
        async with Core(replace(settings, hf_endpoint=hub.url)) as core:
            watcher = core.bus.subscribe()
            download, _ = await core.manager.request(check_request("test-org/x"))
            async for event in watcher:
                if event.terminal:
                    break
            assert (await core.manager.get(download.task_id)).status is Status.COMPLETED
        assert bool(hub.requests("xorb")) == by_xet
        assert bool(hub.requests("cdn")) != by_xet
        assert hub.requests("telemetry") == []


async def test_the_engine_can_be_turned_to_xet_by_what_fails(tmp_path: Path) -> None:
    """From the Hub's listing to the finished snapshot, with ranges refused."""
    with HubServer(xet=True) as hub:
        hub.add_model("test-org/x", mlx_model_files(1 << 20))
        hub.fault(Fault.unsatisfiable(), "cdn")
        held = hub.fault(Fault.stall(), "xorb")
        async with Core(_settings(tmp_path, hub.url)) as core:
            watcher = core.bus.subscribe()
            download, _ = await core.manager.request(check_request("test-org/x"))
            told = ""
            async for event in watcher:
                if "Before that, by ranges: " in event.snapshot["message"] and not told:
                    told = event.snapshot["message"]
                    held.clear()
                if event.terminal:
                    break
            assert (await core.manager.get(download.task_id)).status is Status.COMPLETED
            (model,) = (await core.library()).models
            assert model.complete
        assert "by Xet" in told


async def test_the_token_is_hidden_before_anything_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hidden: list[str | None] = []
    async with Core(_settings(tmp_path, DEAD_HUB), hide=hidden.append):
        assert hidden == [TOKEN]


async def test_what_was_started_is_stopped_when_the_rest_cannot_be(tmp_path: Path) -> None:
    settings = _settings(tmp_path, DEAD_HUB)
    settings.database.write_bytes(b"no database" * 1000)
    with pytest.raises(DatabaseUnusable):
        async with Core(settings):
            pytest.fail("it must not start")


async def test_certificates_are_read_before_the_first_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe in their place shows who reads them: nobody can open its other end before."""
    pipe = tmp_path / "trusted.pem"
    os.mkfifo(pipe)
    monkeypatch.setenv("SSL_CERT_FILE", str(pipe))
    async with Core(_settings(tmp_path, DEAD_HUB)):
        with os.fdopen(await _reader_comes(pipe), "wb") as end:
            end.write(make_certificate(tmp_path)[0].read_bytes())


async def test_certificates_that_cannot_be_read_keep_nobody_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    async with Core(_settings(tmp_path, DEAD_HUB)) as core:
        assert not (await core.library()).models


async def _reader_comes(pipe: Path) -> int:
    give_up_at = time.monotonic() + 10
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > give_up_at:
                raise
        await asyncio.sleep(0.01)
