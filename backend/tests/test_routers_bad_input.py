"""Whatever somebody types, and whatever the Hub tells: an answer in words, nothing executed, nothing broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from api_client import MODELS, Answer, Api, serving
from discovering import LLAMA, add, quantised
from fakes.hub_server import Fault, HubServer

ORG = "mlx-community"
SCRIPT = "<script>alert(1)</script>"
SAFE = 1 << 53
"""Beyond this a browser counts wrong."""
CONFIGS: dict[str, Any] = {
    "Huge": json.dumps({**LLAMA, "x": "y" * (1 << 20)}),
    "Page": f"<html>{SCRIPT}</html>",
    "Negative": {**LLAMA, "num_hidden_layers": -5, "hidden_size": 10**30, "quantization": {"bits": -4}},
    "NaN": '{"num_hidden_layers": NaN, "hidden_size": Infinity, "max_position_embeddings": 1e400}',
    "Words": {
        "num_hidden_layers": "32",
        "hidden_size": [1],
        "model_type": ["x"],
        "layer_types": [None],
        "quantization": "4",
    },
    # Each figure is just allowed, and all together were 18 exabytes.
    "Giant": {**LLAMA, "num_hidden_layers": 4096, "num_key_value_heads": 65536, "head_dim": 4_194_304},
    "Experts": {**LLAMA, "num_experts": 1, "num_experts_per_tok": 65536, "moe_intermediate_size": 4_194_304},
    "Deep": "[" * 100_000,
    "List": "[1, 2]",
    "Surrogate": '{"model_type": "\\ud800", "architectures": ["\\ud800"], "torch_dtype": "\\u202eabc"}',
    "Bytes": b"\xff\xfe{}",
}
GARBAGE = {
    "a page": Fault.html(),
    "half": Fault.truncated_json(),
    "no JSON": Fault.bad_json(),
    "null": Fault.edit_json(lambda told: None),
    "a number": Fault.edit_json(lambda told: 7),
    "numbers": Fault.edit_json(lambda told: [1, None, "x", [], {}]),
    "other types": Fault.edit_json(
        lambda told: [{"id": 5, "tags": 7, "siblings": "x", "safetensors": [], "config": 3}]
    ),
    "teapot": Fault.status(418),
    "500": Fault.status(500),
}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        card = f'license: "{SCRIPT}"\nbase_model: [1, {{a: b}}]\n---\n{SCRIPT}<img src=x onerror=alert(1)>'
        for name, config in CONFIGS.items():
            add(hub, f"{ORG}/{name}", config=config, counts=quantised(8 * 10**6, 4), card=card)
        hub.add_model(f"{ORG}/Nothing", {})
        for at in range(len(GARBAGE)):
            add(hub, f"{ORG}/Garbage-{at}")
        hub.add_model(f"{ORG}/NoConfig", {"model.safetensors": b"\xff" * 100})
        yield hub


@pytest.fixture
def api(hub: HubServer, tmp_path: Path) -> Iterator[Api]:
    with serving(tmp_path, hub.url) as api:
        yield api


def refused(answer: Answer, status: int, code: str) -> bool:
    told = answer.json
    return (answer.status, told["code"]) == (status, code) and bool(told["detail"]) and bool(told["advice"])


NONSENSE = [
    ("search?q=" + "x" * 201, 422, "invalid_request"),
    ("search?limit=0", 422, "invalid_request"),
    ("search?limit=1e3", 422, "invalid_request"),
    ("search?sort=evil", 422, "invalid_request"),
    ("search?min_params=NaN", 422, "invalid_request"),
    ("search?max_params=99999999999999999999", 422, "invalid_request"),
    ("search?capability=x", 422, "invalid_request"),
    ("search?cursor=abc", 422, "invalid_request"),
    ("search?cursor=%F0%9F%A4%97", 422, "invalid_request"),
    ("search?cursor=e30", 422, "invalid_request"),
    ("search?cursor=" + "a" * 5000, 422, "invalid_request"),
    ("info/a/" + "x" * 300, 422, "invalid_model_id"),
    ("info/%F0%9F%A4%97/b", 422, "invalid_model_id"),
    ("info/a/" + quote(SCRIPT[:8]), 422, "invalid_model_id"),
    ("info/a/%E2%80%AEb", 422, "invalid_model_id"),
    ("info/a/..", 422, "invalid_model_id"),
    ("info/a/b?revision=..", 422, "invalid_revision"),
    ("info/a/b?context=-1", 422, "invalid_request"),
    ("info/a/b?context=99999999999", 422, "invalid_request"),
    ("info/a/b", 404, "model_not_found"),
    ("fit/a/b", 404, "model_not_found"),
    (f"info/{ORG}/Huge?revision=nope", 404, "revision_not_found"),
    ("local/" + "x" * 300 + "/delete", 404, "not_in_cache"),
    ("local/..%2f..%2fetc/delete", 404, "not_in_cache"),
    ("local/%00/delete", 404, "not_in_cache"),
    ("local/a/b/delete?revision=%00", 422, "invalid_revision"),
]


def test_nonsense_is_refused_in_words(api: Api) -> None:
    told = {path: api.get(f"{MODELS}/{path}") for path, _, _ in NONSENSE}
    assert [path for path, status, code in NONSENSE if not refused(told[path], status, code)] == []


PLANS: list[tuple[Any, int, str]] = [
    ({"model_id": "a/b"}, 404, "model_not_found"),
    ({"model_id": "x" * 300 + "/b"}, 422, "invalid_model_id"),
    ({"model_id": 5}, 422, "invalid_request"),
    ({"model_id": f"{ORG}/Nothing"}, 422, "empty_repository"),
    ({"model_id": f"{ORG}/Huge", "allow_patterns": ["["]}, 422, "no_file_matches"),
    ({"model_id": f"{ORG}/Huge", "allow_patterns": ["x" * 10_000]}, 422, "invalid_patterns"),
    ({"model_id": f"{ORG}/Huge", "preset": "evil"}, 422, "invalid_request"),
    ({"model_id": f"{ORG}/Huge", "revision": "\u202e"}, 422, "invalid_revision"),
    ([], 422, "invalid_request"),
]


def test_a_plan_of_nonsense_is_refused_in_words(api: Api) -> None:
    told = [(body, api.post(f"{MODELS}/plan", body), status, code) for body, status, code in PLANS]
    assert [body for body, answer, status, code in told if not refused(answer, status, code)] == []


WORDS = (
    "zzz",
    "🤗",
    "x" * 200,
    "مرحبا",
    "\u202eabc",
    SCRIPT,
    "\0",
    "a&author=b",
    "'; DROP TABLE",
    "../..",
    "%ff%fe",
    "%ed%a0%80",
)


def test_odd_words_find_nothing_and_say_what_to_do(api: Api) -> None:
    for words in WORDS:
        answer = api.get(f"{MODELS}/search?q={words if words[0] == '%' else quote(words, safe='')}")
        assert (answer.status, answer.json["models"], answer.json["next_cursor"]) == (200, [], None), words
        assert "try fewer words" in answer.json["note"], words


def test_a_config_that_lies_spoils_nothing(api: Api) -> None:
    for name in CONFIGS:
        check_config(api, name)


def check_config(api: Api, name: str) -> None:
    info = api.get(f"{MODELS}/info/{ORG}/{name}").json
    fit = info["fit"]
    assert fit["weights_bytes"] == info["weights_bytes"] > 0
    assert fit["verdict"] == ("no" if name == "Experts" else "fits")
    assert all(0 <= fit[one] < SAFE for one in ("needs_bytes", "kv_bytes", "work_bytes"))
    assert "<script" not in info["card_html"] and "onerror" not in info["card_html"]
    assert info["licence"] == SCRIPT, "data, for the page to show as text"


def test_models_without_what_decides(api: Api) -> None:
    nothing, no_config = (api.get(f"{MODELS}/info/{ORG}/{name}").json for name in ("Nothing", "NoConfig"))
    assert (nothing["fit"]["verdict"], nothing["files"], nothing["size_bytes"]) == ("unknown", [], 0)
    # A header that is none: the files' sizes are the best there is.
    assert (no_config["fit"]["weights_bytes"], no_config["fit"]["is_estimate"]) == (100, True)


def test_a_hub_that_tells_garbage_is_named_for_it(hub: HubServer, api: Api) -> None:
    """Nothing of it is our failure (500), and nothing of it is kept."""
    for kind in GARBAGE:
        check_garbage(hub, api, kind)


def check_garbage(hub: HubServer, api: Api, kind: str) -> None:
    # One that nobody has asked for before: what was told once is kept.
    model_id = f"{ORG}/Garbage-{list(GARBAGE).index(kind)}"
    fault = hub.fault(GARBAGE[kind])
    try:
        answers = [
            api.get(f"{MODELS}/{call}") for call in (f"search?q={quote(kind)}", f"info/{model_id}", f"fit/{model_id}")
        ]
        answers.append(api.post(f"{MODELS}/plan", {"model_id": model_id}))
    finally:
        fault.clear()
    for answer in answers:
        told = answer.json
        if answer.status == 200:
            assert told["models"] == [], "a list is read as far as it is one"
        else:
            assert answer.status in (502, 503, 504) and told["code"].startswith("hub_"), told
            assert told["advice"] and "by itself" not in told["advice"]
    assert [one["model_id"] for one in api.get(f"{MODELS}/search?q=Huge").json["models"]] == [f"{ORG}/Huge"]
