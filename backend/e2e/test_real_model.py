"""A real model, a real hub, the real server, `kill -9` half-way, and a sentence from mlx-lm at the end.

Not collected by the ordinary suite: it needs the packages of requirements.txt, which are large. `make e2e` runs it,
and keeps those packages in an environment of their own: the server is tested as people install it, without MLX.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from fakes.hub_server import Fault, HubServer, Record
from server_process import PROJECT, ServerProcess, Snapshot, clean_environment, python_with_mlx

HERE: Final = Path(__file__).resolve().parent

MODEL_ID: Final = "mlx-community/SmolLM2-135M-Instruct"
QUESTION: Final = "What is the capital of France?"

# Half a gigabyte takes some five seconds at this rate: half-way is far from both ends, whatever the machine.
LINK_BYTES_PER_SECOND: Final = 100_000_000
# What may be asked for twice: the pieces in flight at the moment of the kill. Without a resume it is half of the model.
MAX_FETCHED_AGAIN: Final = 128 * 1024 * 1024
BUILD_TIMEOUT: Final = 600.0
GENERATE_TIMEOUT: Final = 300.0


@pytest.fixture(scope="session")
def model_folder() -> Path:
    """The model on the disk. Built in a child process: what MLX holds in memory would stay with the tests."""
    cache = Path(os.environ.get("MLX_MANAGER_E2E_CACHE", PROJECT / ".cache" / "e2e"))
    built = subprocess.run(
        [python_with_mlx(), str(HERE / "build_smollm2.py"), "--cache", str(cache)],
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return Path(built.stdout.splitlines()[-1])


@pytest.fixture
def hub(model_folder: Path) -> Iterator[HubServer]:
    """A hub that holds the model behind a link slow enough to be half-way at some time."""
    with HubServer() as hub:
        hub.add_folder(MODEL_ID, model_folder)
        hub.fault(Fault.rate(LINK_BYTES_PER_SECOND, shared=True), where="content")
        yield hub


@pytest.fixture
def server(hub: HubServer, tmp_path: Path) -> Iterator[ServerProcess]:
    """The server, running, with a home and a cache of its own that outlive its process."""
    environment = clean_environment(
        HF_ENDPOINT=hub.url,
        HF_HOME=str(tmp_path / "hf"),
        MLX_MANAGER_HOME=str(tmp_path / "manager"),
    )
    server = ServerProcess(environment, tmp_path / "server.log")
    server.start()
    yield server
    print(server.log_tail())  # shown by pytest beside a failure, of this test or of the stop
    server.stop()


def test_a_download_killed_half_way_ends_in_a_sentence(
    hub: HubServer, server: ServerProcess, model_folder: Path, tmp_path: Path
) -> None:
    expected = {path.name: _sha256(path) for path in model_folder.iterdir()}
    total = sum(path.stat().st_size for path in model_folder.iterdir())

    task_id = _start_download(server)
    claimed = _watch_until_half_way(server, task_id, total)
    server.kill()
    before = _content_requests(hub)
    sent_before = sum(record.sent for record in before)
    assert claimed <= sent_before, "it claimed bytes that the hub had not sent"
    assert sent_before < total, "the kill came too late to prove anything"

    server.start()
    final = _watch_to_the_end(server, task_id)

    assert final["status"] == "completed", f"{final}\n{server.log_tail()}"
    assert (final["total_bytes"], final["downloaded_bytes"], final["progress"]) == (total, total, 100)
    assert server.status(task_id)["status"] == "completed"
    after = _content_requests(hub)[len(before) :]
    fetched_again = sent_before + sum(record.sent for record in after) - total
    print(f"killed at {sent_before:,} of {total:,} bytes; fetched again: {fetched_again:,}")
    assert after, "the second process fetched nothing, yet bytes were missing"
    assert fetched_again <= MAX_FETCHED_AGAIN

    snapshot = _snapshot_folder(tmp_path, final["commit"])
    assert {path.name: _sha256(path) for path in snapshot.iterdir()} == expected
    assert _leftovers(snapshot) == []

    server.stop()
    requests = len(hub.requests())
    answer = _ask_offline(tmp_path / "hf")
    assert len(hub.requests()) == requests, "mlx-lm asked the hub although everything is on the disk"
    assert answer.endswith("."), answer
    assert "Paris" in answer


def _start_download(server: ServerProcess) -> str:
    response = server.post("/api/models/download", {"model_id": MODEL_ID})
    assert response.status_code == 202, response.text
    task_id: str = response.json()["task_id"]
    return task_id


def _watch_until_half_way(server: ServerProcess, task_id: str, total: int) -> int:
    """Follow the event stream, and return how many bytes the server says it has once it is half of them."""
    first, claimed = True, 0
    for snapshot in server.watch(task_id):
        if first:
            assert (snapshot["status"], snapshot["total_bytes"]) == ("starting", 0), snapshot
            first = False
        claimed = int(snapshot["downloaded_bytes"])
        if claimed >= total / 2:
            assert snapshot["status"] == "downloading", snapshot
            assert snapshot["total_bytes"] == total, snapshot
            return claimed
    raise AssertionError(f"the stream ended at {claimed} of {total} bytes\n{server.log_tail()}")


def _watch_to_the_end(server: ServerProcess, task_id: str) -> Snapshot:
    """Follow the event stream to its terminal event; nobody asks for the download to go on."""
    last: Snapshot = {}
    for last in server.watch(task_id):
        assert last["status"] != "paused", "interrupted, not paused by a person: it must go on by itself"
    assert last, f"the stream said nothing\n{server.log_tail()}"
    return last


def _content_requests(hub: HubServer) -> list[Record]:
    """The answers that carried bytes of files, once none of them is under way any more."""
    hub.wait_idle(timeout=30)
    return hub.requests("content")


def _snapshot_folder(home: Path, commit: str) -> Path:
    repo = home / "hf" / "hub" / f"models--{MODEL_ID.replace('/', '--')}"
    assert (repo / "refs" / "main").read_text() == commit
    return repo / "snapshots" / commit


def _leftovers(snapshot: Path) -> list[str]:
    """Files beside the blobs that the snapshot links to: partial files, journals, what was given up."""
    used = {path.resolve().name for path in snapshot.iterdir()}
    return sorted(path.name for path in (snapshot.parents[1] / "blobs").iterdir() if path.name not in used)


def _ask_offline(hf_home: Path) -> str:
    """Load the model by its id out of the cache, with no endpoint to ask, and return its greedy answer."""
    child = subprocess.run(
        [python_with_mlx(), str(HERE / "generate.py"), MODEL_ID, QUESTION],
        env=clean_environment(HF_HOME=str(hf_home), HF_HUB_OFFLINE="1"),
        capture_output=True,
        text=True,
        timeout=GENERATE_TIMEOUT,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    result = json.loads(child.stdout.splitlines()[-1])
    print(f"loaded in {result['load_seconds']} s; {QUESTION} {result['answer']}")
    answer: str = result["answer"]
    return answer


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
