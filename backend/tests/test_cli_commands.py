"""`serve`, `ls`, `ps`, `pause`, `resume`, `cancel` and `version`, with and without a running server."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock

from cli_process import Home, Running
from fakes.hub_server import Blob, Fault, HubServer, mlx_model_files

TINY = "mlx-community/Tiny-4bit"
HELD = "mlx-community/Held-4bit"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(TINY, mlx_model_files(300_000))
        # So much that a few goes, each of 1 MiB a request, do not end it.
        hub.add_model(HELD, {"config.json": b"{}\n", "model.safetensors": Blob(64 << 20)})
        hub.fault(Fault.stall(after=1 << 20), where="cdn", repo=HELD)
        yield hub


@pytest.fixture
def home(hub: HubServer, tmp_path: Path) -> Home:
    return Home(tmp_path, hub.url)


@pytest.fixture
def server(home: Home) -> Iterator[Running]:
    with home.start("serve") as server:
        server.wait_line(lambda line: line.startswith("MLX Manager serves http://127.0.0.1:"))
        yield server


def test_version_and_help_load_nothing_of_the_core() -> None:
    heavy = "{'fastapi', 'sqlalchemy', 'httpx2', 'huggingface_hub', 'pycurl'}"
    code = f"import sys, mlx_manager.cli.app; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "set()\n"


def test_version(home: Home) -> None:
    done = home.run("version")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("mlx-manager ")


def test_the_help_of_pull_tells_the_exit_codes(home: Home) -> None:
    said = " ".join(home.run("pull", "--help").out.split())
    for code in ("0 complete", "1 failed", "2 wrong usage", "3 paused", "4 cancelled", "130 paused by Ctrl-C"):
        assert code in said


def test_an_option_that_does_not_exist_is_wrong_usage(home: Home) -> None:
    done = home.run("pull", "a/b", "--fast")
    assert done.code == 2
    assert "--fast" in done.err


def test_nothing_at_all_is_listed_without_making_anything(home: Home) -> None:
    assert home.run("ps").out == "No unfinished downloads; `mlx-manager ps --all` lists the others.\n"
    assert home.run("ls", "--json").out == "[]\n"
    assert not home.data.exists()


def test_models_and_downloads_are_listed_without_a_server(home: Home) -> None:
    assert home.run("pull", TINY, "--quiet").lines == [str(home.snapshot_of(TINY))]
    commit = home.snapshot_of(TINY).name
    (model,) = json.loads(home.run("ls", "--json").out)
    assert (model["model_id"], model["commit"], model["complete"]) == (TINY, commit, True)
    heads, line = home.run("ls").lines
    assert heads.split() == ["MODEL", "COMMIT", "ON", "DISK", "STATE"]
    assert line.split() == [TINY, commit[:7], "301.4", "kB", "complete"]
    (download,) = json.loads(home.run("ps", "--all", "--json").out)
    assert (download["model_id"], download["status"]) == (TINY, "completed")


def test_a_model_is_deleted_after_a_question(home: Home, server: Running) -> None:
    assert home.run("pull", TINY, "--quiet").code == 0
    blind = home.run("rm", TINY)
    assert (blind.code, blind.out) == (2, "")
    assert "--yes" in blind.err
    with home.on_terminal("rm", TINY) as screen:
        screen.wait_text("Delete?")
        screen.type("n\n")
        assert screen.wait() == 1
    with home.on_terminal("rm", TINY) as asked:
        asked.wait_text("Delete?")
        asked.send(signal.SIGINT)
        assert asked.wait() == 130
    assert f"{TINY} would go: 8 files, 301.4 kB freed." in screen.text
    assert "Nothing was deleted." in screen.text
    assert home.run("rm", TINY, "--leftovers", "--yes").lines == [
        "There are no leftovers: every content here belongs to a commit."
    ]
    done = home.run("rm", TINY, "--yes")
    assert done.lines == [f"{TINY} deleted, 301.4 kB freed."]
    assert json.loads(home.run("ls", "--json").out) == []
    gone = home.run("rm", TINY, "--yes", "--json")
    assert (gone.code, gone.out) == (1, "")
    assert "There is no model" in gone.err and "mlx-manager ls" in gone.err


def test_room_that_was_only_reserved_is_not_called_here(home: Home, server: Running) -> None:
    """A part that had its room on the disk and no byte yet was listed as all here."""
    with home.start("pull", HELD, "--json") as pull:
        pull.wait_snapshot(lambda s: s["files_done"] == 1)
        heads, line = home.run("ls").lines
    assert heads.split() == ["MODEL", "COMMIT", "ON", "DISK", "STATE", "FILES"]
    assert line.split()[-5:] == ["partial", "1", "of", "2", "whole"]
    assert line.count("MB") == 1, "the room on the disk, and no figure of what is not here"


def test_a_cache_that_cannot_be_read_is_not_called_empty(home: Home) -> None:
    home.cache.parent.mkdir()
    home.cache.write_text("a file")
    done = home.run("ls")
    assert (done.code, done.out) == (1, "")
    error, advice = done.err.splitlines()
    assert error == f"Error: The cache cannot be used: {home.cache}: Not a directory."
    assert "HF_HUB_CACHE" in advice


def test_what_can_be_no_task_is_not_asked_for(home: Home, server: Running) -> None:
    """An empty one was answered with an address of the API that does not exist."""
    for which in ("", ".."):
        done = home.run("cancel", which)
        assert (done.code, done.out) == (1, "")
        assert f"Error: {which!r} is neither a task id nor ORG/MODEL." in done.err
        assert "ps --all" in done.err


def test_a_running_server_is_asked_and_its_downloads_are_moved(home: Home, server: Running) -> None:
    with home.start("pull", HELD) as pull:
        pull.wait_line(lambda line: line.startswith("downloading"))
        (download,) = json.loads(home.run("ps", "--json").out)
        assert download["status"] == "downloading"
        assert home.run("pause", download["task_id"]).code == 0
        paused = pull.wait()
        assert paused.code == 3
        assert "was paused from elsewhere" in paused.err
    again = home.run("pause", HELD)
    assert again.code == 1
    assert again.err.startswith("Error: ")
    assert home.run("resume", HELD).code == 0
    assert home.run("ps").lines[1].split()[1] == "downloading"
    unknown = home.run("cancel", "0123456789")
    assert unknown.code == 1
    assert "mlx-manager ps" in unknown.err


def test_ctrl_c_twice_leaves_a_server_that_hangs(home: Home, server: Running, hub: HubServer) -> None:
    with home.start("pull", HELD, "--json") as pull:
        pull.wait_snapshot(lambda s: s["downloaded_bytes"] > 0)
        server.send(signal.SIGSTOP)
        pull.send(signal.SIGINT)
        pull.wait_line(lambda line: "Pausing" in line, "err")
        pull.send_until_end(signal.SIGINT)
        assert pull.wait().code == 130
        server.send(signal.SIGCONT)


def test_who_waits_for_a_server_that_hangs_is_told_what_for(home: Home, server: Running) -> None:
    announced = json.loads((home.data / "server.json").read_text())
    server.send(signal.SIGSTOP)
    waiting_for = f"Waiting for the server at {announced['url']} (process {server.pid})"
    with (
        home.start("pull", TINY, "--json") as pull,
        home.start("pull", TINY, "--quiet") as quiet,
        home.start("pause", HELD) as pause,
    ):
        for command in (pull, quiet, pause):
            told = command.wait_line(lambda line: line.startswith(waiting_for), "err")
            assert told.strip().endswith("given up after 15 s.")
        server.send(signal.SIGCONT)
        assert pull.wait().code == 0


def test_of_a_server_that_hangs_nobody_says_that_none_runs(home: Home, server: Running) -> None:
    announced = json.loads((home.data / "server.json").read_text())
    assert home.run("pull", TINY).code == 0
    server.send(signal.SIGSTOP)
    who = f"server at {announced['url']} (process {server.pid})"
    with home.start("ps", "--all") as ps, home.start("resume", TINY) as resume, home.start("token", "--renew") as token:
        for command, code, then in ((ps, 0, "written down"), (resume, 1, "try again"), (token, 0, "streams")):
            ended = command.wait()
            assert ended.code == code
            assert f"Waiting for the {who}, which has not answered yet; given up after 5 s." in ended.err
            assert f"The {who} has not answered for 5 s" in ended.err
            assert then in ended.err
            assert "No server" not in ended.out + ended.err
            assert "ResourceWarning" not in ended.err


def test_what_is_silent_where_a_server_was_killed_is_none(home: Home) -> None:
    """Its announcement is still there, and somebody else has its port."""
    with home.start("pull", HELD, "--json") as pull:
        pull.wait_snapshot(lambda s: s["downloaded_bytes"] > 0)
        pull.send(signal.SIGKILL)
        pull.wait()
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        announced = {"url": f"http://127.0.0.1:{stranger.getsockname()[1]}", "pid": pull.pid, "version": "0"}
        (home.data / "server.json").write_text(json.dumps(announced))
        with home.start("ps") as ps, home.start("resume", HELD) as resume:
            listed, resumed = ps.wait(), resume.wait()
        paused = home.run("pause", HELD)
    assert "No server is running" in listed.out
    assert f"Go on with it here: mlx-manager pull {HELD}" in resumed.err
    assert paused.code == 0, paused.err
    assert "has not answered for" not in listed.err + resumed.err + paused.err


def test_who_waits_for_one_that_says_nothing_of_itself_is_told_so(home: Home) -> None:
    home.data.mkdir()
    with FileLock(home.data / "lock"), home.start("pull", TINY) as pull:
        told = pull.wait_line(lambda line: line.startswith("Waiting for "))
    assert told.startswith(f"Waiting for a process that holds {home.data}")


def test_without_a_server_cancel_works_and_resume_says_how(home: Home) -> None:
    with home.start("pull", HELD, "--json") as pull:
        pull.wait_snapshot(lambda s: s["downloaded_bytes"] > 0)
        pull.send(signal.SIGINT)
        assert pull.wait().code == 130
    assert list(home.cache.rglob("*.part"))
    resumed = home.run("resume", HELD)
    assert resumed.code == 1
    assert f"mlx-manager pull {HELD}" in resumed.err
    assert home.run("cancel", HELD).code == 0
    assert not list(home.cache.rglob("*.part"))


def test_a_second_server_on_the_same_data_is_refused_and_the_first_ends_by_ctrl_c(home: Home, server: Running) -> None:
    second = home.run("serve")
    assert second.code == 1
    assert "Error: MLX Manager runs already at http://127.0.0.1:" in second.err
    assert second.err.splitlines()[-1].startswith("→ ")
    server.send(signal.SIGINT)
    done = server.wait()
    assert done.code == 0
    assert "Traceback" not in done.err


def test_a_port_in_use_is_one_clear_line(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = home.run("serve", "--port", str(taken.getsockname()[1]))
    assert done.code == 1
    # It was said twice: by the log, and by the command.
    error, advice = done.err.splitlines()
    assert error.startswith("Error: ")
    assert "--port" in advice
    assert error.removeprefix("Error: ") in (home.data / "logs" / "mlx-manager.log").read_text(encoding="utf-8")


def test_a_file_in_the_place_of_the_data_directory_is_called_that(home: Home) -> None:
    """It was "File exists", with the advice to ask for write access."""
    home.data.write_text("")
    done = home.run("serve")
    assert (done.code, done.out) == (1, "")
    error, advice = done.err.splitlines()
    assert error == f"Error: The data directory {home.data} cannot be used: there is a file in its place."
    assert "MLX_MANAGER_HOME" in advice


@pytest.mark.parametrize("while_it_runs", [True, False])
def test_a_full_disk_is_the_reason_that_is_told(home: Home, while_it_runs: bool) -> None:
    """What the log could not write any more came up as a traceback of a hundred lines over the real reason; and where
    the database could not be opened the advice was to throw it away."""
    home.data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(home.data)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        with home.start("serve") as server:
            server.wait_line(lambda line: line.startswith("MLX Manager serves"))
            if while_it_runs:
                _fill(home.data)
            server.send(signal.SIGTERM)
            assert server.wait().code == 0
        _fill(home.data)
        done = home.run("serve")
        assert done.code == 1
        assert "Traceback" not in done.err
        error, advice = done.err.splitlines()[-2:]
        assert error.startswith("Error: The data")
        assert "room" in advice or "space" in advice
    finally:
        subprocess.run(["umount", str(home.data)], check=True)


def _fill(folder: Path) -> None:
    with suppress(OSError), (folder / "other").open("ab", buffering=0) as other:
        while True:
            other.write(bytes(512))


def test_a_setting_that_cannot_be_is_named(home: Home) -> None:
    home.extra["MLX_MANAGER_CONNECTIONS"] = "many"
    done = home.run("ps")
    assert done.code == 1
    assert "MLX_MANAGER_CONNECTIONS" in done.err
