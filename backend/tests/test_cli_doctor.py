"""`mlx-manager doctor` as people run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from api_client import DEAD_HUB
from cli_process import Home, Result
from fakes.hub_server import TOKEN, Fault, HubServer, mlx_model_files

TINY = "mlx-community/Tiny-4bit"
HERE = ["Server", "Data folder", "Database", "Cache", "Disk", "Leftovers"]
THERE = ["Asked at", "Name", "Connection", "TLS", "API", "Clock", "Token", "Files", "Xet"]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer(xet=True) as hub:
        hub.add_model(TINY, mlx_model_files(100_000))
        yield hub


@pytest.fixture
def home(hub: HubServer, tmp_path: Path) -> Home:
    return Home(tmp_path, hub.url, {"NO_PROXY": "127.0.0.1"})


def checks(done: Result) -> dict[str, dict[str, Any]]:
    return {check["title"]: check for check in json.loads(done.out)["checks"]}


def tree(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in root.rglob("*")}


def test_all_is_well_with_a_server_that_runs(home: Home) -> None:
    home.extra["HF_TOKEN"] = TOKEN
    with home.start("serve") as server:
        server.wait_line(lambda line: line.startswith("MLX Manager serves"))
        home.cache.mkdir(parents=True)
        before = tree(home.cache)
        done = home.run("doctor")
        assert tree(home.cache) == before
        pid = server.pid
    assert (done.code, done.err) == (0, "")
    lines = done.lines
    assert lines[0].startswith("MLX Manager ")
    assert [line[4:17].strip() for line in lines if line.startswith("  ")] == [*HERE, *THERE]
    assert all(line.startswith("  ✓ ") for line in lines if line.startswith("  ")), done.out
    assert lines[-1] == "All is well."
    assert f"process {pid}" in done.out
    assert "a read token of tester" in done.out
    assert TOKEN not in done.out


def test_nothing_is_made_on_a_new_machine_and_json_is_one_document(home: Home) -> None:
    done = home.run("doctor", "--json")
    assert done.code == 0
    document = json.loads(done.out)
    assert document["well"] is True
    found = checks(done)
    assert list(found) == [*HERE, *THERE]
    assert {check["level"] for check in found.values()} == {"well"}
    assert all(check["took_ms"] is not None and check["said"] for check in found.values())
    assert tree(home.root) == {}


def test_a_hub_that_is_gone_is_said_once_and_what_hangs_on_it_is_not_asked(home: Home) -> None:
    home.hub_url = DEAD_HUB
    done = home.run("doctor")
    assert done.code == 1
    assert "  ✗ Connection   127.0.0.1 port 9: nothing listens there" in done.out
    assert "→ Check the network, a firewall, and HF_ENDPOINT." in done.out
    assert next(line for line in done.lines if "not asked, because of Connection" in line).startswith("  · TLS")
    assert done.lines[-1] == "One thing is wrong, 6 things are not looked at."


def test_a_hub_that_is_silent_does_not_hold_it_up(home: Home, hub: HubServer) -> None:
    home.extra["MLX_MANAGER_HUB_TIMEOUT_S"] = "0.3"
    silent = hub.fault(Fault.black_hole(), where="search")
    try:
        done = home.run("doctor", "--json")
    finally:
        silent.clear()
    assert done.code == 1
    assert checks(done)["API"]["said"] == "no answer within 0.3 s"
    assert checks(done)["Token"]["said"] == "not asked, because of API"


def test_offline_nothing_is_asked(home: Home, hub: HubServer) -> None:
    home.extra["HF_HUB_OFFLINE"] = "1"
    hub.clear_log()
    done = home.run("doctor")
    assert done.code == 0
    assert "HF_HUB_OFFLINE is set" in done.out
    assert done.lines[-1] == "Nothing is wrong, one thing is worth knowing."
    assert hub.requests() == []


def test_a_proxy_is_named_without_its_password(home: Home) -> None:
    home.extra |= {"HTTP_PROXY": "http://me:s3cret@127.0.0.1:9", "NO_PROXY": ""}
    done = home.run("doctor")
    assert done.code == 1
    assert "through the proxy http://127.0.0.1:9" in done.out
    assert "s3cret" not in done.out + done.err


def test_leftovers_are_told_with_a_command_that_really_removes_them(home: Home) -> None:
    assert home.run("pull", TINY, "--quiet").code == 0
    blobs = home.cache / f"models--{TINY.replace('/', '--')}" / "blobs"
    part, stale = blobs / f"{'a' * 64}.part", blobs.parent / f".{'0' * 32}.tmp"
    part.write_bytes(b"x" * 5000)
    stale.touch()
    os.utime(stale, (0, 0))
    found = checks(home.run("doctor", "--json"))["Leftovers"]
    assert found["level"] == "note"
    assert found["said"].startswith("2 files that no download waits for")
    commands = Path(sys.executable).parent
    env = home.env() | {"PATH": f"{commands}:{os.environ['PATH']}"}
    fix = found["fix"].replace("--leftovers", "--leftovers --yes")
    subprocess.run(fix, shell=True, env=env, check=True, stdout=subprocess.DEVNULL)
    assert not part.exists() and not stale.exists()


def test_a_damaged_database_is_moved_away_by_the_command_and_hides_the_leftovers(home: Home) -> None:
    home.data.mkdir()
    database = home.data / "mlx-manager.db"
    database.write_text("a shopping list, " * 100)
    done = home.run("doctor", "--json")
    assert done.code == 1
    found = checks(done)
    assert found["Database"]["said"] == "it cannot be read: file is not a database"
    assert found["Leftovers"]["level"] == "skipped", "without the ledger all would look left over"
    subprocess.run(found["Database"]["fix"], shell=True, check=True)
    assert home.run("doctor", "--json").code == 0


def test_a_file_in_the_place_of_the_cache(home: Home) -> None:
    home.cache.parent.mkdir(parents=True)
    home.cache.touch()
    done = home.run("doctor")
    assert done.code == 1
    assert f"  ✗ Cache        {home.cache} cannot be written to: there is a file in its place" in done.out


def test_a_full_disk(home: Home) -> None:
    home.cache.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(home.cache)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user cannot mount a small disk")
    try:
        with suppress(OSError), (home.cache / "other").open("ab", buffering=0) as other:
            while True:
                other.write(b"x" * 4096)
        found = checks(home.run("doctor", "--json"))
    finally:
        subprocess.run(["umount", str(home.cache)], check=True)
    assert (found["Disk"]["level"], found["Disk"]["fix"]) == ("wrong", "mlx-manager ls")
    assert found["Disk"]["said"].startswith("full: 0 B free of 1.0 MB")
    assert found["Cache"]["level"] == "wrong"
    assert "No space left on device" in found["Cache"]["said"]


def test_on_a_narrow_terminal_no_line_is_broken_but_by_us(home: Home) -> None:
    home.hub_url = DEAD_HUB
    with home.on_terminal("doctor", columns=60) as screen:
        code = screen.wait()
        text = screen.text
    assert code == 1
    lines = [line.rstrip() for line in text.split("\n")]
    paths = (str(home.root), "https://", "http://")
    assert all(len(line) < 60 for line in lines if not any(path in line for path in paths)), text
    assert "\x1b[2K" in screen.raw, "the check that is waited for is shown, and wiped off"


def test_wrong_usage(home: Home) -> None:
    assert home.run("doctor", "--fix").code == 2


def test_certificates_that_cannot_be_read(home: Home) -> None:
    home.extra["SSL_CERT_FILE"] = str(home.root / "nowhere.pem")
    done = home.run("doctor")
    assert (done.code, done.err) == (1, "")
    told = done.out[done.out.index("Certificates") :]
    assert told.startswith("Certificates The certificates that are to be trusted cannot be read: No such file")
    assert "→ Correct SSL_CERT_FILE" in told
