"""The server as a process: how it starts, why it does not, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api_client import MODELS, Api, ServerProcess, environment, serving
from fakes.hub_server import TOKEN, Fault, HubServer, mlx_model_files
from mlx_manager.domain.states import Status
from mlx_manager.embedded import EmbeddedServer, embedded
from mlx_manager.errors import DataDirInUse, DataDirNotWritable, PortInUse, StartError
from mlx_manager.logs import Redactor
from mlx_manager.process import listening, url_of
from mlx_manager.services.data_dir import DataDir, RunningServer, running_server
from mlx_manager.settings import Settings

MODEL = "test-org/Tiny-1B-4bit"


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(MODEL, mlx_model_files(4 << 20))
        yield hub


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_within_two_seconds_with_streams_open_and_loses_nothing(
    tmp_path: Path, hub: HubServer, number: signal.Signals
) -> None:
    stall = hub.fault(Fault.stall(after=1 << 20), where="cdn")
    with ServerProcess(tmp_path, hub.url) as server:
        api = server.api()
        task_id = api.download(MODEL)
        with api.progress(task_id) as stream, api.events() as all_of_it, _deaf_watcher(api, task_id):
            stream.until(lambda event: event.data["downloaded_bytes"] >= 256 << 10)
            all_of_it.next()
            begun = time.monotonic()
            server.send(number)
            for _ in stream:
                pass
            for _ in all_of_it:
                pass
            streams_ended = time.monotonic() - begun
            code, said = server.ended()
            took = time.monotonic() - begun
    assert code == 0, said
    assert streams_ended < 1.0
    assert took < 2.0
    assert "Stopped." in said
    assert "Traceback" not in said
    assert not (tmp_path / "data" / "server.json").exists()
    stall.clear()
    before = hub.bytes_sent("model.safetensors")
    with serving(tmp_path, hub.url) as api:
        # This one rests until it is asked for: the program that embeds the server came for its own.
        assert api.status(task_id)["status"] == "queued"
        assert api.download(MODEL) == task_id
        done = api.wait(task_id, Status.COMPLETED)
    assert done["reused_bytes"] > 0
    assert hub.bytes_sent("model.safetensors") - before < hub.file(MODEL, "model.safetensors").content.size


def test_after_a_restart_it_goes_on_by_itself(tmp_path: Path, hub: HubServer) -> None:
    stall = hub.fault(Fault.stall(after=1 << 20), where="cdn")
    with ServerProcess(tmp_path, hub.url) as server:
        api = server.api()
        task_id = api.download(MODEL)
        hub.wait_sent(1 << 20, "model.safetensors")
        server.send(signal.SIGKILL)
        server.ended()
    stall.clear()
    with ServerProcess(tmp_path, hub.url) as server:
        done = server.api().wait(task_id, Status.COMPLETED)
        assert done["attempt"] == 2
        server.send(signal.SIGTERM)
        assert server.ended()[0] == 0


def test_it_ends_in_time_although_the_disk_does_not_answer(tmp_path: Path, hub: HubServer) -> None:
    hub.fault(Fault.stall(after=1 << 20), where="cdn")
    with ServerProcess(tmp_path, hub.url) as server:
        api = server.api()
        task_id = api.download(MODEL)
        hub.wait_sent(1 << 20, "model.safetensors")
        with sqlite3.connect(tmp_path / "data" / "mlx-manager.db", isolation_level=None) as hog:
            hog.execute("BEGIN IMMEDIATE")
            begun = time.monotonic()
            server.send(signal.SIGTERM)
            code, said = server.ended()
            assert time.monotonic() - begun < 2.0
        hog.close()
        assert code == 0, said
        assert "did not stop within" in said
    hub.clear_faults()
    with ServerProcess(tmp_path, hub.url) as server:
        server.api().wait(task_id, Status.COMPLETED)


def test_a_second_signal_ends_it_at_once(tmp_path: Path, hub: HubServer) -> None:
    with ServerProcess(tmp_path, hub.url) as server:
        api = server.api()
        with _deaf_watcher(api, api.download(MODEL)):
            server.send(signal.SIGTERM)
            _until_refused(api)
            server.send(signal.SIGTERM)
            # The first signal's end may have been quicker than we are.
            assert server.ended()[0] in (-signal.SIGTERM, 0)


def test_sighup_is_left_to_whoever_had_it_ignored(tmp_path: Path, hub: HubServer) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        server = ServerProcess(tmp_path, hub.url)
    finally:
        signal.signal(signal.SIGHUP, before)
    with server:
        api = server.api()
        server.send(signal.SIGHUP)
        assert api.get("/health").status == 200
        server.send(signal.SIGTERM)
        assert server.ended()[0] == 0


class _deaf_watcher:
    """Opens a stream and never reads, with the smallest buffer there is."""

    def __init__(self, api: Api, task_id: str) -> None:
        host, _, port = api.url.removeprefix("http://").partition(":")
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        self._socket.connect((host, int(port)))
        request = f"GET {MODELS}/download/{task_id}/progress HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
        self._socket.sendall(request.encode())

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def _until_refused(api: Api) -> None:
    while True:
        try:
            api.get("/health")
        except OSError:
            return


# --- the start -------------------------------------------------------------------------------------------------------


def test_it_tells_others_where_it_is(tmp_path: Path, hub: HubServer) -> None:
    home = tmp_path / "data"
    assert running_server(home) is None
    with serving(tmp_path, hub.url) as api:
        server = running_server(home)
        assert server == RunningServer(url=api.url, pid=os.getpid(), version=api.get("/health").json["version"])
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert [path.name for path in home.iterdir() if path.name.startswith("server.json")] == ["server.json"]
    assert running_server(home) is None


def test_a_second_server_on_the_same_data_directory_is_told_of_the_first(tmp_path: Path, hub: HubServer) -> None:
    with serving(tmp_path, hub.url) as api:
        with ServerProcess(tmp_path, hub.url) as second:
            code, said = second.ended()
        assert code != 0
        assert "DataDirInUse" in said
        assert f"runs already at {api.url} (process {os.getpid()})" in said
        with pytest.raises(DataDirInUse) as caught, serving(tmp_path, hub.url):
            pass
        assert api.url in caught.value.detail
        assert api.get("/health").status == 200
        assert running_server(tmp_path / "data") is not None, "the first one's word still stands"


def test_the_directory_is_free_when_its_holder_was_killed(tmp_path: Path, hub: HubServer) -> None:
    with ServerProcess(tmp_path, hub.url) as first:
        first.api()
        first.send(signal.SIGKILL)
        first.ended()
    assert running_server(tmp_path / "data") is not None, "nobody was there to take it back"
    memory = tmp_path / "data" / "hub-memory"
    memory.mkdir(exist_ok=True)
    halves = [tmp_path / "data" / "server.json", tmp_path / "data" / "library.json", memory / f"page-{'0' * 40}.json"]
    halves = [half.with_name(f"{half.name}.4711-1.draft") for half in halves]
    for half in halves:
        half.write_text("as one that was killed earlier still has left it")
    with serving(tmp_path, hub.url) as api:
        server = running_server(tmp_path / "data")
        assert server is not None
        assert (server.url, server.pid) == (api.url, os.getpid())
        assert [half for half in halves if half.exists()] == []


def test_a_port_in_use_is_known_before_anything_is_started(tmp_path: Path, hub: HubServer) -> None:
    with listening("127.0.0.1", 0) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUse) as caught, serving(tmp_path, hub.url, MLX_MANAGER_PORT=str(port)):
            pass
    assert str(port) in caught.value.detail
    assert "--port" in caught.value.advice
    assert not (tmp_path / "data" / "mlx-manager.db").exists()
    assert "Not started: The port" in (tmp_path / "data" / "logs" / "mlx-manager.log").read_text()
    with serving(tmp_path, hub.url) as api:
        assert api.get("/health").status == 200, "the directory was let go"


def test_a_host_that_is_none_of_this_machine() -> None:
    with pytest.raises(StartError) as caught, listening("no-such-host.invalid", 0):
        pass
    assert "no-such-host.invalid" in caught.value.detail
    assert "127.0.0.1" in caught.value.advice


def test_a_database_that_cannot_be_used_is_a_clear_error(tmp_path: Path, hub: HubServer) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mlx-manager.db").write_bytes(b"This is no database." * 100)
    with pytest.raises(StartError) as caught, serving(tmp_path, hub.url):
        pass
    assert caught.value.code == "database_unusable"
    log = (tmp_path / "data" / "logs" / "mlx-manager.log").read_text()
    assert "ERROR   - Not started: " in log
    assert "mlx-manager.db" in log
    assert running_server(tmp_path / "data") is None


def test_a_data_directory_that_cannot_be_made(tmp_path: Path, hub: HubServer) -> None:
    (tmp_path / "data").write_text("a file is in the way")
    with pytest.raises(DataDirNotWritable) as caught, serving(tmp_path, hub.url):
        pass
    assert str(tmp_path / "data") in caught.value.detail


def test_urls() -> None:
    with listening("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert url_of("127.0.0.1", listener) == f"http://127.0.0.1:{port}"
        assert url_of("0.0.0.0", listener) == f"http://127.0.0.1:{port}"
        assert url_of("::", listener) == f"http://[::1]:{port}"


def test_an_embedded_server_takes_any_free_port_of_this_machine(tmp_path: Path, hub: HubServer) -> None:
    settings = Settings.load(environment(tmp_path, hub.url, MLX_MANAGER_HOST="0.0.0.0", MLX_MANAGER_PORT="10242"))
    server = embedded(settings)
    url = server.start()
    try:
        assert url.startswith("http://127.0.0.1:")
        assert Api(url).get("/health").status == 200
    finally:
        server.stop()
        server.stop()
    with pytest.raises(OSError, match="refused"):
        Api(url).get("/health")


def test_one_that_was_never_started_can_be_stopped(tmp_path: Path, hub: HubServer) -> None:
    EmbeddedServer(Settings.load(environment(tmp_path, hub.url))).stop()


# --- the data directory ----------------------------------------------------------------------------------------------


def test_the_directory_has_one_holder(tmp_path: Path) -> None:
    first, second = DataDir(tmp_path / "home"), DataDir(tmp_path / "home")
    first.acquire()
    with pytest.raises(DataDirInUse, match="just starting"):
        second.acquire()
    first.announce(RunningServer("http://127.0.0.1:1", 7, "0"))
    with pytest.raises(DataDirInUse, match=r"runs already at http://127\.0\.0\.1:1 \(process 7\)"):
        second.acquire()
    second.release()
    assert running_server(tmp_path / "home") is not None, "who does not hold it takes nothing back"
    releasing = threading.Thread(target=first.release)
    releasing.start()
    releasing.join()
    second.acquire()
    second.release()
    second.release()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"url": "http://127.0.0.1:1"}', '{"url": 1, "pid": "x", "version": ""}']
)
def test_an_announcement_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "server.json").write_text(text)
    assert running_server(tmp_path) is None


# --- descriptors -----------------------------------------------------------------------------------------------------


def test_it_takes_as_many_open_files_as_it_may(tmp_path: Path, hub: HubServer) -> None:
    """Terminals on macOS begin with 256: three downloads and some watchers need more."""
    with ServerProcess(tmp_path, hub.url, prefix=["sh", "-c", 'ulimit -S -n 64 && exec "$@"', "sh"]) as server:
        api = server.api()
        task_id = api.download(MODEL)
        streams = [api.progress(task_id) for _ in range(80)]
        assert all(stream.status in (200, 204) for stream in streams)
        for stream in streams:
            stream.close()
        api.wait(task_id, Status.COMPLETED)


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_a_token_is_sent_to_the_hub_and_is_nowhere_else(tmp_path: Path, hub: HubServer) -> None:
    hub.add_model("test-org/gated", mlx_model_files(1 << 20), gated=True, readers=[TOKEN])
    with ServerProcess(tmp_path, hub.url, HF_TOKEN=TOKEN) as server:
        api = server.api()
        task_id = api.download("test-org/gated")
        with api.progress(task_id) as stream:
            told = [event.data for event in stream]
        assert told[-1]["status"] == "completed"
        told.append(api.get("/api/system").json)
        told.append(api.get(f"{MODELS}/downloads").json)
        server.send(signal.SIGTERM)
        code, said = server.ended()
    assert code == 0
    assert any(TOKEN in str(request.headers) for request in hub.requests("hub")), "it was needed"
    assert not any(TOKEN in str(request.headers) for request in hub.requests("cdn")), "the CDN never gets it"
    secret = TOKEN.removeprefix("hf_")
    assert secret not in said
    assert secret not in json.dumps(told)
    kept = [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
    assert {path.name for path in kept} >= {"mlx-manager.db", "mlx-manager.log"}
    for path in kept:
        assert secret.encode() not in path.read_bytes(), path
        assert b"X-Amz-Signature=" + b"0" not in path.read_bytes(), path


def test_the_log_of_a_download_can_be_followed(tmp_path: Path, hub: HubServer) -> None:
    with serving(tmp_path, hub.url) as api:
        task_id = api.download(MODEL)
        api.wait(task_id, Status.COMPLETED)
    lines = (tmp_path / "data" / "logs" / "mlx-manager.log").read_text().splitlines()
    story = [line for line in lines if f" {task_id} " in line]
    for word in ("Accepted", "asking the Hub", "sizes known", "model.safetensors", "Done"):
        assert any(word in line for line in story), word
    assert any(f"DEBUG   {task_id} GET {MODELS}/download/{task_id}/status: 200" in line for line in story)
    whole = lines[lines.index(story[0]) : lines.index(story[-1]) + 1]
    assert any("/api/models/" in line and "127.0.0.1" in line for line in whole), "what the Hub was asked is told too"
    assert [line for line in whole if f" {task_id} " not in line] == [], "whoever wrote it, it is about this download"
    assert Redactor().clean("\n".join(lines)) == "\n".join(lines)
