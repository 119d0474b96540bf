"""`mlx-manager pull` with no server running: processes of their own, a real hub, real signals."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import Api
from cli_process import BACKEND, Home
from fakes.hub_server import Blob, Fault, FaultHandle, HubServer, mlx_model_files
from mlx_manager.services.data_dir import running_server
from mlx_manager.services.transfer.extents import Extents
from mlx_manager.services.transfer.journal import Journal

TINY = "mlx-community/Tiny-4bit"
BIG = "mlx-community/Big-0.1B-4bit"
BIG_BYTES = 24 << 20


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(TINY, mlx_model_files(300_000))
        hub.add_model(BIG, {"config.json": b"{}\n", "model.safetensors": Blob(BIG_BYTES)})
        hub.add_model("org/gated", mlx_model_files(1000), gated=True)
        yield hub


@pytest.fixture
def home(hub: HubServer, tmp_path: Path) -> Iterator[Home]:
    yield Home(tmp_path, hub.url)
    hub.clear_faults()


@pytest.fixture
def held(hub: HubServer, home: Home) -> FaultHandle:
    """The big file stops after a third of each answer until the handle lets it go."""
    return hub.fault(Fault.stall(after=1 << 20), where="cdn", path="model.safetensors")


def test_json_is_a_snapshot_on_each_line_and_what_is_here_is_fetched_no_more(home: Home, hub: HubServer) -> None:
    done = home.run("pull", TINY, "--json")
    assert (done.code, done.err) == (0, "")
    told = [json.loads(line) for line in done.lines]
    assert (told[0]["status"], told[0]["total_bytes"]) == ("starting", 0)
    assert (told[-1]["status"], told[-1]["progress"]) == ("completed", 100)
    assert {snapshot["task_id"] for snapshot in told} == {told[0]["task_id"]}
    snapshot = home.snapshot_of(TINY)
    for path, file in hub.repo(TINY).head.files.items():
        assert (snapshot / path).read_bytes() == file.content.read(0, file.content.size)

    sent = hub.bytes_sent()
    again = home.run("pull", TINY)
    assert (again.code, again.err) == (0, "")
    assert hub.bytes_sent() == sent
    assert again.lines[-4:] == [
        f"✓ {TINY} is complete.",
        "  All 301.4 kB were here already; every byte verified.",
        f"  {snapshot}",
        f'  Try it: mlx_lm.generate --model {TINY} --prompt "Hello"',
    ]


def test_a_pipe_gets_calm_lines_about_the_files_that_were_asked_for(home: Home) -> None:
    done = home.run("pull", TINY, "--include", "*.json", "--exclude", "tokenizer*")
    assert (done.code, done.err) == (0, "")
    assert done.lines[0] == f"Pulling {TINY}."
    assert len(done.lines) < 15
    assert "\x1b" not in done.out
    assert not [line for line in done.lines if "bytes are right" in line and not line.startswith("verifying")]
    # Half a model is nothing to try.
    assert "mlx_lm" not in done.out
    names = {path.name for path in home.snapshot_of(TINY).iterdir()}
    assert "config.json" in names
    assert names.isdisjoint({"tokenizer.json", "README.md", "model.safetensors"})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nonsense"], "'nonsense' is not of the form ORG/MODEL."),
        (["a/b@../x"], "is not the name of a branch, tag or commit"),
        (["a/b", "--include", " "], "empty or over-long pattern"),
    ],
)
def test_a_question_that_cannot_be_is_refused_before_anything_starts(
    home: Home, arguments: list[str], said: str
) -> None:
    done = home.run("pull", *arguments)
    assert (done.code, done.out) == (2, "")
    error, advice = done.err.splitlines()
    assert error.startswith("Error: ")
    assert said in error
    assert advice.startswith("→ ")
    assert not home.data.exists()


def test_what_the_hub_refuses_fails_with_the_next_step(home: Home) -> None:
    done = home.run("pull", "org/gated")
    assert done.code == 1
    error, advice = done.err.splitlines()
    assert error.startswith("Error: ")
    assert "org/gated" in error
    assert advice.startswith("→ ")
    assert "hf auth login" in advice


def test_a_data_directory_that_cannot_be_is_one_clear_line(home: Home) -> None:
    home.root.joinpath("data").write_text("a file")
    done = home.run("pull", TINY)
    assert done.code == 1
    error, advice = done.err.splitlines()
    assert str(home.data) in error
    assert "MLX_MANAGER_HOME" in advice


def test_ctrl_c_pauses_and_the_same_command_goes_on(home: Home, held: FaultHandle) -> None:
    with home.start("pull", BIG, "--json") as first:
        first.wait_snapshot(lambda s: s["downloaded_bytes"] > 0)
        # As `timeout` and `make` do, which pass on what the terminal has sent already.
        first.send(signal.SIGINT)
        first.send(signal.SIGINT)
        stopped = first.wait()
    assert stopped.code == 130
    last = json.loads(stopped.lines[-1])
    assert last["status"] == "paused"
    assert f"Paused at {last['progress']} %." in stopped.err
    assert f"mlx-manager pull {BIG}" in stopped.err

    held.clear()
    on = home.run("pull", BIG, "--json")
    end = json.loads(on.lines[-1])
    assert (on.code, end["status"], end["task_id"]) == (0, "completed", last["task_id"])
    assert end["reused_bytes"] > 0
    assert end["received_bytes"] < BIG_BYTES


def test_sigterm_keeps_it_for_later_and_nobody_starts_it_unasked(home: Home, hub: HubServer, held: FaultHandle) -> None:
    with home.start("pull", BIG, "--json") as first:
        first.wait_snapshot(lambda s: s["downloaded_bytes"] > 0)
        first.send(signal.SIGTERM)
        stopped = first.wait()
    assert stopped.code == 143
    assert f"→ Go on with: mlx-manager pull {BIG}" in stopped.err
    assert not (home.data / "server.json").exists()
    hub.wait_idle()
    hub.clear_log()
    assert home.run("pull", TINY, "--quiet").code == 0
    assert hub.requests(repo=BIG) == []
    (row,) = json.loads(home.run("ps", "--json").out)
    assert (row["model_id"], row["status"]) == (BIG, "queued")


def test_three_at_once_are_one_download_and_outlive_the_one_that_serves(
    home: Home, hub: HubServer, held: FaultHandle
) -> None:
    hub.clear_log()
    with (
        home.start("pull", BIG, "--json") as first,
        home.start("pull", BIG, "--json") as second,
        home.start("pull", BIG, "--json") as third,
    ):
        pulls = [first, second, third]
        task = {pull.wait_snapshot(lambda s: s["downloaded_bytes"] > 0)["task_id"] for pull in pulls}
        assert len(task) == 1
        # Whoever was first to take the lock serves the others.
        serving = json.loads((home.data / "server.json").read_text())["pid"]
        (killed,) = [pull for pull in pulls if pull.pid == serving]
        durable, asked = _durable(home), len(hub.ranges("model.safetensors"))
        killed.send(signal.SIGKILL)
        pulls.remove(killed)
        for pull in pulls:
            pull.wait_line(lambda line: "runs the download itself" in line or "Connected again" in line, "err")
        held.clear()
        done = [pull.wait() for pull in pulls]
    assert [one.code for one in done] == [0, 0]
    assert sorted("runs the download itself" in one.err for one in done) == [False, True]
    for one in done:
        told = [json.loads(line) for line in one.lines]
        assert told[-1]["status"] == "completed"
        assert {snapshot["task_id"] for snapshot in told} == task
    weights = home.snapshot_of(BIG) / "model.safetensors"
    assert weights.read_bytes() == Blob(BIG_BYTES).slice(0, BIG_BYTES)
    again = hub.ranges("model.safetensors")[asked:]
    assert again, "what was in flight at the kill is asked for once more"
    assert all(end <= a or b <= start for start, end in again for a, b in durable), "and no byte that was durable"


def _durable(home: Home) -> Extents:
    """What the journal of the big file says, once it says anything."""
    give_up_at = time.monotonic() + 20
    while True:
        for part in home.cache.glob("*/blobs/*.part"):
            if have := Journal(part, part.stem, BIG_BYTES).load():
                return have
        assert time.monotonic() < give_up_at, "nothing was made durable"
        time.sleep(0.02)


def test_it_comes_to_its_end_when_others_cannot_be_answered(home: Home, held: FaultHandle) -> None:
    """Whoever knocked after an upgrade had taken the web server away ended the download."""
    upgraded = home.root / "upgraded"
    upgraded.mkdir()
    (upgraded / "uvicorn.py").write_text("raise ImportError('it has moved')\n")
    home.extra["PYTHONPATH"] = os.pathsep.join((str(upgraded), str(BACKEND)))
    with home.start("pull", BIG, "--json") as pull:
        pull.wait_snapshot(lambda s: s["downloaded_bytes"] > 0)
        announced = running_server(home.data)
        assert announced is not None
        with pytest.raises(OSError):  # noqa: PT011 - whichever way it is cut off
            Api(announced.url).get("/health")
        assert running_server(home.data) is None
        with pytest.raises(ConnectionRefusedError):
            Api(announced.url).get("/health")
        held.clear()
        done = pull.wait()
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.lines[-1])["status"] == "completed"
    log = (home.data / "logs" / "mlx-manager.log").read_text()
    assert "Others cannot be answered" in log
    assert "it has moved" in log


def test_somebody_else_may_cancel_it(home: Home, held: FaultHandle) -> None:
    with home.start("pull", BIG) as watching:
        watching.wait_line(lambda line: line.startswith("downloading"))
        moved = home.run("cancel", BIG)
        assert (moved.code, moved.err) == (0, "")
        end = watching.wait()
    assert end.code == 4
    assert f"mlx-manager pull {BIG}" in end.err
    assert not list(home.cache.rglob("*.part"))
