"""`mlx-manager token`, and the command line against a server that asks for it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_process import Home
from fakes.hub_server import HubServer, mlx_model_files
from mlx_manager.services.access import FILE_NAME, read_token

TINY = "mlx-community/Tiny-4bit"


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(TINY, mlx_model_files(300_000))
        yield hub


@pytest.fixture
def home(hub: HubServer, tmp_path: Path) -> Home:
    return Home(tmp_path, hub.url)


@pytest.fixture
def beyond(home: Home) -> Home:
    # Another way to write 127.0.0.1, which we do not know for this machine.
    home.extra["MLX_MANAGER_HOST"] = "127.1"
    return home


def test_it_can_be_had_before_the_first_start(home: Home) -> None:
    done = home.run("token")
    token = read_token(home.data)
    assert token is not None
    assert (done.code, done.err) == (0, "")
    assert done.lines[0] == f"Access token: {token}"
    assert "once it listens beyond this machine" in done.out
    assert home.run("token", "-q").out == f"{token}\n"
    renewed = home.run("token", "--renew", "--quiet").out.strip()
    assert renewed == read_token(home.data) != token


def test_a_broken_file_is_told_and_renewed(home: Home) -> None:
    home.data.mkdir()
    (home.data / FILE_NAME).write_text("broken")
    done = home.run("token")
    assert (done.code, done.out) == (1, "")
    assert "holds no access token" in done.err
    assert "mlx-manager token --renew" in done.err
    assert home.run("serve", "--host", "127.1").code == 1
    assert home.run("token", "--renew").code == 0


def test_the_first_start_shows_it_once_on_a_screen(beyond: Home) -> None:
    for number, shown in ((1, True), (2, False)):
        with beyond.on_terminal("serve", columns=200) as screen:
            screen.wait_text("Ctrl-C stops it")
            screen.send(signal.SIGTERM)
            assert screen.wait() == 0
            token = read_token(beyond.data)
            assert token is not None
            assert (f"/access?token={token}" in screen.text) is shown, number
            assert "mlx-manager token" in screen.text


def test_it_is_never_written_where_output_is_kept(beyond: Home) -> None:
    with beyond.start("serve", "--verbose") as server:
        server.wait_line(lambda line: "Ctrl-C" in line)
        assert beyond.run("ps", "--all").code == 0
        server.send(signal.SIGTERM)
        done = server.wait()
    token = read_token(beyond.data)
    assert token is not None
    assert "`mlx-manager token` shows it" in done.out
    assert token not in done.out + done.err
    assert token not in (beyond.data / "logs" / "mlx-manager.log").read_text()


def test_the_command_line_shows_it_by_itself(beyond: Home) -> None:
    with beyond.start("serve") as server:
        server.wait_line(lambda line: "Ctrl-C" in line)
        assert beyond.run("pull", TINY, "--quiet").code == 0
        (download,) = json.loads(beyond.run("ps", "--all", "--json").out)
        assert download["status"] == "completed"
        told = beyond.run("token").out
        assert f"/access?token={read_token(beyond.data)}" in told
        renewed = beyond.run("token", "--renew")
        assert renewed.code == 0
        assert "sign in again" in renewed.out
        assert beyond.run("ps", "--all").code == 0, "with the new one"
        (beyond.data / FILE_NAME).unlink()
        refused = beyond.run("ps")
        assert refused.code == 1
        assert "asks for its access token" in refused.err
        assert "mlx-manager token" in refused.err


def test_a_server_of_this_machine_alone_is_said_to_ask_for_none(home: Home) -> None:
    with home.start("serve") as server:
        server.wait_line(lambda line: "Ctrl-C" in line)
        assert "asks for no token" in home.run("token").out
        assert home.run("ps").code == 0


def test_without_a_server_it_shows_it_to_its_own(home: Home) -> None:
    """Where the setting asks for a token of everybody, a command was refused by the server that it had started."""
    home.extra["MLX_MANAGER_ACCESS"] = "token"
    assert home.run("pull", TINY, "--quiet").code == 0
    found = home.run("search", "no-such-words")
    assert (found.code, found.out) == (0, "")
    assert "try fewer words" in found.err
    refused = home.run("cancel", TINY)
    assert f"The download of {TINY} is completed" in refused.err
    assert home.run("rm", TINY, "--yes").lines[0].startswith(f"{TINY} deleted")
