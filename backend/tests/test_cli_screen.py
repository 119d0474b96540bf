"""The live display on a real terminal."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from cli_process import Home, Screen
from fakes.hub_server import Blob, Fault, FaultHandle, HubServer

MODEL = "mlx-community/Shown-0.1B-4bit"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_model(MODEL, {"config.json": b"{}\n", **{f"w-{n}.safetensors": Blob(8 << 20, n) for n in range(3)}})
        yield hub


@pytest.fixture
def home(hub: HubServer, tmp_path: Path) -> Iterator[Home]:
    yield Home(tmp_path, hub.url)
    hub.clear_faults()


@pytest.fixture
def held(hub: HubServer, home: Home) -> FaultHandle:
    return hub.fault(Fault.stall(after=1 << 20), where="cdn", path="w-1.safetensors")


def test_it_shows_the_whole_and_each_file_and_leaves_a_clean_screen(home: Home, held: FaultHandle) -> None:
    with home.on_terminal("pull", MODEL, columns=60) as screen:
        screen.wait_text("↓ w-1.safetensors")
        screen.wait_text("✓ w-0.safetensors")
        screen.wait_text("25.2 MB")
        held.clear()
        assert screen.wait() == 0
    assert max(cell_len(line) for line in screen.text.splitlines() if not line.startswith("  ")) < 60
    assert screen.raw.count("\x1b[?25l") == screen.raw.count("\x1b[?25h")
    assert f"✓ {MODEL} is complete." in screen.text
    assert "every byte verified" in " ".join(screen.text.split())


def test_ctrl_c_on_the_terminal_pauses(home: Home, held: FaultHandle) -> None:
    with home.on_terminal("pull", MODEL) as screen:
        screen.wait_text("↓ w-1.safetensors")
        screen.send(signal.SIGINT)
        assert screen.wait() == 130
    assert "Paused at" in screen.text
    assert f"→ Go on with: mlx-manager pull {MODEL}" in screen.text
    assert screen.raw.count("\x1b[?25l") == screen.raw.count("\x1b[?25h")


def test_without_colours_and_without_utf_8_it_is_still_all_there(home: Home, held: FaultHandle) -> None:
    home.extra |= {"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}
    with home.on_terminal("pull", MODEL) as screen:
        screen.wait_text("> w-1.safetensors")
        screen.wait_text("##")
        held.clear()
        assert screen.wait() == 0
    assert screen.text.isascii()
    assert not [code for code in _COLOUR.findall(screen.raw) if re.search(r"\[(3|4|9|10)\d", code)]


@pytest.mark.parametrize(("term", "live"), [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_is_none_to_draw_on_nor_is_a_colourful_log(home: Home, term: str, live: bool) -> None:
    code = "import sys; from mlx_manager.cli.terminal import is_live; print('live', is_live(sys.stdout))"
    env = {**home.env(), "TERM": term}
    screen = Screen([sys.executable, "-c", code], env, 80, 24)
    screen.wait_text(f"live {live}")
    screen.end()
    piped = subprocess.run(
        [sys.executable, "-c", code], env={**env, "FORCE_COLOR": "1"}, check=True, capture_output=True, text=True
    )
    assert piped.stdout == "live False\n"
