"""What a person hears, and how soon it goes on, while the Hub does not answer: the real server, a real hub."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from api_client import DEAD_HUB, serving
from fakes.hub_server import Fault, HubServer, mlx_model_files

MODEL = "test-org/Tiny-1B-4bit"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(MODEL, mlx_model_files(1 << 20))
        yield hub


def test_with_the_estimate_it_is_said_what_is_waited_for_and_until_when(tmp_path: Path, hub: HubServer) -> None:
    """The estimate came with the deadline of the time before it, which had just passed."""
    silence = hub.fault(Fault.black_hole(), where="info")
    limits = {"MLX_MANAGER_SIZE_CHECK_S": "2", "MLX_MANAGER_HUB_TIMEOUT_S": "0.6"}
    with serving(tmp_path, hub.url, **limits) as api, api.progress(api.download(MODEL)) as stream:
        give_up = time.monotonic() + 8
        told = stream.until(lambda event: "about 562.5 MB" in event.data["message"] or event.at > give_up)[-1].data
        assert "about 562.5 MB" in told["message"]
        assert (told["status"], told["phase"]) == ("starting", "waiting_for_hub")
        assert told["total_is_estimate"]
        assert "Asking the Hub" in told["message"]
        assert datetime.fromisoformat(told["deadline"]).timestamp() > time.time()
        silence.clear()
        assert stream.until(lambda event: event.status == "completed")


def test_a_hub_that_was_silent_is_asked_again_at_once(tmp_path: Path, hub: HubServer) -> None:
    """Each silence made the next wait longer: a Hub that was back had to wait for us."""
    silence = hub.fault(Fault.black_hole(), where="info")
    with serving(tmp_path, hub.url, MLX_MANAGER_HUB_TIMEOUT_S="0.3") as api:
        task_id = api.download(MODEL)
        silence.wait_hit(3, timeout=20)
        give_up = time.monotonic() + 5
        while api.status(task_id)["phase"] != "retrying":
            assert time.monotonic() < give_up, "the question has no end"
            time.sleep(0.02)
        silence.clear()
        back = time.monotonic()
        with api.progress(task_id) as stream:
            went_on = stream.until(lambda event: event.status == "downloading")[-1].at
        assert went_on - back < 2.5
    log = (tmp_path / "data" / "logs" / "mlx-manager.log").read_text(encoding="utf-8")
    warned = [line for line in log.splitlines() if "WARNING" in line and "was silent" in line]
    assert len(warned) == 1, "the same trouble is told once a minute"


def test_silence_of_the_hub_is_told_within_five_seconds(tmp_path: Path, hub: HubServer) -> None:
    """It was "Asking the Hub" until the question timed out, however long that was set to take."""
    silence = hub.fault(Fault.black_hole(), where="info")
    with serving(tmp_path, hub.url) as api, api.progress(api.download(MODEL)) as stream:
        told = stream.until(lambda event: "No full answer for" in event.data["message"])[-1].data
        assert (told["status"], told["phase"]) == ("starting", "waiting_for_hub")
        assert "Its size is estimated in" in told["message"]
        assert datetime.fromisoformat(told["deadline"]).timestamp() > time.time()
        silence.clear()
        assert stream.until(lambda event: event.status == "completed")


def test_what_a_person_can_do_is_told_while_the_hub_is_asked_again(tmp_path: Path) -> None:
    """The advice about certificates and proxies was thrown away: nobody saw it, as such errors pass by themselves."""
    with serving(tmp_path, DEAD_HUB) as api, api.progress(api.download(MODEL)) as stream:
        told = stream.until(lambda event: event.data["phase"] == "retrying")[-1].data
        assert "Connection refused" in told["message"]
        assert "HF_ENDPOINT" in told["advice"]
        assert told["error"] is None
        assert told["error_code"] is None
