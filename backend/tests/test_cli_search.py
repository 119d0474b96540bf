"""`mlx-manager search` and `show`, as a person types it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from api_client import serving
from cli_process import Home
from discovering import add, quantised
from fakes.hub_server import TOKEN, Fault, HubServer


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        add(hub, "mlx-community/Llama-8B-4bit", counts=quantised(8 * 10**9, 4), bits=4, downloads=12345)
        add(hub, "mlx-community/Qwen3-900B-8bit", config={"model_type": "qwen3"}, gated=True, downloads=3)
        yield hub


def test_what_is_found_in_columns_and_as_json(hub: HubServer, tmp_path: Path) -> None:
    home = Home(tmp_path, hub.url)
    heads, llama, qwen = home.run("search", "--sort", "downloads").lines
    assert heads.split() == ["MODEL", "PARAMS", "QUANT", "SIZE", "HERE?", "ACCESS", "DOWNLOADS", "LICENCE"]
    assert llama.split()[:5] == ["mlx-community/Llama-8B-4bit", "8B", "4-bit", "4.5", "GB"]
    assert llama.split()[-2:] == ["12.3k", "apache-2.0"]
    assert qwen.split() == [
        *(
            "mlx-community/Qwen3-900B-8bit",
            "900B",
            "8-bit",
            "~956.2",
            "GB",
            "too",
            "large",
            "gated",
            "3",
            "apache-2.0",
        )
    ]
    told = json.loads(home.run("search", "llama", "--quant", "4", "--json").out)
    assert [one["model_id"] for one in told["models"]] == ["mlx-community/Llama-8B-4bit"]
    nothing = home.run("search", "🤗 nothing")
    assert (nothing.code, nothing.out) == (0, "")
    assert "try fewer words" in nothing.err and "search --all" in nothing.err
    everything = home.run("search", "--all", "🤗 nothing").err
    assert "try fewer words" in everything and "--all" not in everything
    assert "ACCESS" not in home.run("search", "llama").lines[0], "a column without a word is left out"
    wrong = home.run("search", "--sort", "nonsense")
    assert (wrong.code, "sort" in wrong.err) == (2, True)
    with_no_hub = hub.fault(Fault.status(502), "search")
    try:
        offline = home.run("search", "8B 4bit")
    finally:
        with_no_hub.clear()
    assert offline.lines[1].startswith("mlx-community/Llama-8B-4bit")
    assert "before" in offline.err


def test_a_thousand_hits_are_walked_page_by_page(tmp_path: Path) -> None:
    """Each page costs the Hub one request, however far it is; a terminal goes on where the API was left."""
    with HubServer() as hub:
        for number in range(1_000):
            hub.add_model(f"org/m{number:03}", {"config.json": "{}"}, downloads=number)
        newest_first = [f"org/m{number:03}" for number in reversed(range(1_000))]
        with serving(tmp_path, hub.url) as api:
            found: list[str] = []
            cursors: list[str] = []
            following: str | None = ""
            while following is not None:
                page = api.get(f"/api/models/search?sort=downloads&limit=100&cursor={quote(following)}").json
                found += [one["model_id"] for one in page["models"]]
                following = page["next_cursor"]
                cursors += [following] if following else []
            assert found == newest_first
            assert len(hub.requests("search")) == 10
            home = Home(tmp_path, hub.url)
            walked: list[str] = []
            following = cursors[-2]
            while following is not None:
                page = json.loads(
                    home.run("search", "--sort", "downloads", "--limit", "70", "--json", "--cursor", following).out
                )
                walked += [one["model_id"] for one in page["models"]]
                following = page["next_cursor"]
            assert walked == newest_first[-200:]
        wrong = home.run("search", "--cursor", "nonsense")
        assert (wrong.code, "cursor" in wrong.err) == (2, True)


def test_on_a_screen_it_says_what_comes_next(hub: HubServer, tmp_path: Path) -> None:
    home = Home(tmp_path, hub.url)
    with home.on_terminal("search", "--sort", "downloads", columns=68) as screen:
        assert screen.wait() == 0
    assert re.search(r"^mlx-\S*…\S*-8B-4bit +8B +4-bit +4.5 GB +fits", screen.text, re.MULTILINE)
    assert "mlx-manager show MODEL" in screen.text
    assert "Some names are shortened" in screen.text and "There are more" not in screen.text
    with home.on_terminal("search", "--limit", "1", columns=100) as screen:
        assert screen.wait() == 0
    assert "There are more: --limit 100 shows" in screen.text and "shortened" not in screen.text


def test_at_the_largest_page_it_names_no_larger_one(tmp_path: Path) -> None:
    with HubServer() as hub:
        for number in range(101):
            add(hub, f"mlx-community/No-{number}-4bit")
        with Home(tmp_path, hub.url).on_terminal("search", "--limit", "100", columns=100) as screen:
            assert screen.wait() == 0
    assert "There are more: words and filters narrow the list." in screen.text


def test_facts_are_wrapped_beside_their_names(hub: HubServer, tmp_path: Path) -> None:
    """A word was cut in two at the right edge, and the rest of a sentence began at the left."""
    home = Home(tmp_path, hub.url)
    with home.on_terminal("show", "mlx-community/Qwen3-900B-8bit", columns=60) as screen:
        assert screen.wait() == 0
    lines = screen.text.replace("\r", "").splitlines()
    runs = next(at for at, line in enumerate(lines) if line.startswith("runs here"))
    assert lines[runs + 1].startswith(" " * 11) and lines[runs + 1].strip()
    assert all(len(line) <= 60 for line in lines if "http" not in line)
    assert any(line.endswith(f"{hub.url}/mlx-community/Qwen3-900B-8bit") for line in lines), "an address is whole"
    assert "use it" not in screen.text, "it is not here, and cannot be fetched yet"


def test_nobody_asks_again_for_one_who_asked_once(tmp_path: Path) -> None:
    """It said that it is tried again by itself, and ended."""
    for settings, advice in (({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"), ({}, "mlx-manager doctor")):
        ended = Home(tmp_path, "http://127.0.0.1:9", settings).run("search", "llama")
        assert (ended.code, ended.out) == (1, "")
        assert advice in ended.err and "by itself" not in ended.err


def test_one_model_on_one_screen(hub: HubServer, tmp_path: Path) -> None:
    home = Home(tmp_path, hub.url, {"HF_TOKEN": TOKEN})
    shown = home.run("show", "mlx-community/Llama-8B-4bit", "--context", "8192", "--card")
    assert (shown.code, shown.err) == (0, "")
    facts = {line[:11].strip(): line[11:] for line in shown.lines}
    assert facts["what"] == "Llama, 8B parameters, 4-bit, 131,072 tokens, text-generation"
    assert "8,192 tokens" in facts["runs here"]
    assert facts["here"] == "nothing yet"
    assert facts["get it"] == "mlx-manager pull mlx-community/Llama-8B-4bit"
    assert shown.lines[-1] == "mlx-community/Llama-8B-4bit"
    gated = home.run("show", "mlx-community/Qwen3-900B-8bit").out
    assert f"gated; ask for access on {hub.url}/mlx-community/Qwen3-900B-8bit" in gated
    told = json.loads(home.run("show", "mlx-community/Llama-8B-4bit", "--json").out)
    assert told["use"]["hf"] == "hf download mlx-community/Llama-8B-4bit"
    unknown = home.run("show", "no-such/model")
    assert (unknown.code, unknown.out) == (1, "")
    assert "Check the spelling" in unknown.err
