"""`mlx-manager search`, as a person types it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli_process import Home
from discovering import add, quantised
from fakes.hub_server import Fault, HubServer


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        add(hub, "mlx-community/Llama-8B-4bit", counts=quantised(8 * 10**9, 4), bits=4, downloads=12345)
        add(hub, "mlx-community/Qwen3-900B-8bit", config={"model_type": "qwen3"}, gated=True, downloads=3)
        yield hub


def test_what_is_found_in_columns_and_as_json(hub: HubServer, tmp_path: Path) -> None:
    home = Home(tmp_path, hub.url)
    heads, llama, qwen = home.run("search", "--sort", "downloads").lines
    assert heads.split() == ["MODEL", "PARAMS", "QUANT", "SIZE", "HERE?", "DOWNLOADS", "LICENCE"]
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
            "3",
            "apache-2.0",
            "(gated)",
        )
    ]
    told = json.loads(home.run("search", "llama", "--quant", "4", "--json").out)
    assert [one["model_id"] for one in told["models"]] == ["mlx-community/Llama-8B-4bit"]
    nothing = home.run("search", "🤗 nothing")
    assert (nothing.code, nothing.out) == (0, "")
    assert "try fewer words" in nothing.err
    wrong = home.run("search", "--sort", "nonsense")
    assert (wrong.code, "sort" in wrong.err) == (2, True)
    with_no_hub = hub.fault(Fault.status(502), "search")
    try:
        offline = home.run("search", "8B 4bit")
    finally:
        with_no_hub.clear()
    assert offline.lines[1].startswith("mlx-community/Llama-8B-4bit")
    assert "before" in offline.err
