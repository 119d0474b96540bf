"""The OpenAPI document is true: what it says is what is answered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter

from api_client import DEAD_HUB, MODELS, Api, ServerProcess, serving
from fakes.hub_server import HubServer, mlx_model_files
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download, FileProgress
from mlx_manager.domain.snapshot import snapshot
from mlx_manager.domain.states import Phase, Status
from mlx_manager.routers import discovery_schemas, schemas
from mlx_manager.routers.problems import Problem

MODEL = "test-org/Tiny-1B-4bit"


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with ServerProcess(tmp_path_factory.mktemp("home"), DEAD_HUB) as server:
        answer = server.api().get("/openapi.json")
        assert answer.status == 200
        yield answer.json


def test_the_schema_of_a_snapshot_is_the_snapshot() -> None:
    plain = Download("3f2a9c", ModelRequest(MODEL), created_at=1.5)
    full = replace(
        plain,
        request=ModelRequest(MODEL, "main", ("*.json",), ("*.md",)),
        status=Status.DOWNLOADING,
        phase=Phase.STALLED,
        commit="ab",
        eta_s=3.0,
        last_byte_age_s=4.26,
        since=2.0,
        deadline=9.0,
        place=1,
        error="E",
        error_code="e",
        advice="A",
        started_at=2.0,
        finished_at=3.0,
        files=(FileProgress("a", 2, 1, "transferring"),),
    )
    for download in (plain, full):
        for files in (False, True):
            shown = snapshot(download, files=files)
            read = schemas.Snapshot.model_validate(shown)
            assert list(shown) == [name for name in schemas.Snapshot.model_fields if files or name != "files"]
            assert TypeAdapter(dict[str, Any]).dump_python(shown, mode="json") == {
                **read.model_dump(mode="json", exclude_unset=True),
                **{name: shown[name] for name in shown if name.endswith("_at") or name in ("since", "deadline")},
            }


def test_every_call_is_in_it(document: dict[str, Any]) -> None:
    calls = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    download = f"{MODELS}/download/{{task_id}}"
    assert calls == {
        f"POST {MODELS}/download",
        f"GET {download}/status",
        f"GET {download}/progress",
        f"POST {download}/pause",
        f"POST {download}/resume",
        f"POST {download}/cancel",
        f"GET {MODELS}/downloads",
        f"GET {MODELS}/search",
        f"POST {MODELS}/plan",
        "GET /api/starters",
        "GET /api/hub/account",
        "PUT /api/hub/token",
        "DELETE /api/hub/token",
        f"GET {MODELS}/info/{{org}}/{{name}}",
        f"GET {MODELS}/fit/{{org}}/{{name}}",
        "GET /api/machine",
        f"GET {MODELS}/local",
        f"GET {MODELS}/local/{{model_id}}/delete",
        f"DELETE {MODELS}/local/{{model_id}}",
        f"GET {download}/limit",
        f"PUT {download}/limit",
        "GET /api/limits",
        "PUT /api/limits",
        "GET /api/events",
        f"GET {MODELS}/downloads/rates",
        "GET /api/system",
        "GET /health",
    }


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            errors = {status: answer for status, answer in call["responses"].items() if int(status) >= 400}
            assert {"421", "500"} <= set(errors), (method, path)
            assert ("422" in errors) == bool(call.get("requestBody") or _checked(call)), (method, path)
            for status, answer in errors.items():
                ((media, content),) = answer["content"].items()
                assert (media, content["schema"]) == (
                    "application/problem+json",
                    {"$ref": "#/components/schemas/Problem"},
                ), (path, status)


def _checked(call: dict[str, Any]) -> bool:
    return any(parameter["in"] == "query" for parameter in call.get("parameters", ()))


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = set(re.findall(r"'\$ref': '#/components/schemas/(\w+)'", str(document)))
    assert references >= {"Problem", "Snapshot", "Accepted", "DownloadRequest"}
    assert references <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_streams_are_event_streams_of_snapshots(document: dict[str, Any]) -> None:
    for path in ("/api/events", f"{MODELS}/download/{{task_id}}/progress"):
        content = document["paths"][path]["get"]["responses"]["200"]["content"]
        assert list(content) == ["text/event-stream"]
        data = content["text/event-stream"]["itemSchema"]["properties"]["data"]
        assert data["contentSchema"] == {"$ref": "#/components/schemas/Snapshot"}
    assert "204" in document["paths"][f"{MODELS}/download/{{task_id}}/progress"]["get"]["responses"]


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    with HubServer() as hub:
        hub.add_model(MODEL, mlx_model_files(1 << 20))
        with serving(tmp_path, hub.url) as api:
            yield api


def test_what_is_answered_is_what_it_says(api: Api) -> None:
    task_id = api.download(MODEL)
    with api.progress(task_id) as stream:
        for event in stream:
            schemas.Snapshot.model_validate(event.data)
    answers: list[tuple[type[BaseModel], str]] = [
        (schemas.Snapshot, f"{MODELS}/download/{task_id}/status?files=true"),
        (schemas.DownloadsPage, f"{MODELS}/downloads"),
        (schemas.Rates, f"{MODELS}/downloads/rates"),
        (schemas.LocalModels, f"{MODELS}/local"),
        (discovery_schemas.SearchPage, f"{MODELS}/search?q=tiny&sort=size&quant=4&capability=tools"),
        (discovery_schemas.SearchPage, f"{MODELS}/search"),
        (discovery_schemas.MachineState, "/api/machine"),
        (discovery_schemas.ModelInfo, f"{MODELS}/info/{MODEL}?context=8192"),
        (discovery_schemas.Fit, f"{MODELS}/fit/{MODEL}"),
        (Problem, f"{MODELS}/info/no-such/model"),
        (Problem, f"{MODELS}/fit/{MODEL}?context=0"),
        (schemas.DeletePlan, f"{MODELS}/local/{MODEL}/delete"),
        (schemas.System, "/api/system"),
        (schemas.Health, "/health"),
        (discovery_schemas.Starters, "/api/starters"),
        (discovery_schemas.HubAccount, "/api/hub/account"),
        (Problem, f"{MODELS}/download/unknown/status"),
        (Problem, f"{MODELS}/downloads?limit=0"),
    ]
    for model, path in answers:
        told = api.get(path).json
        assert set(told) <= set(model.model_fields), path
        model.model_validate(told)
    conflict = api.move(task_id, "pause")
    assert conflict.status == 409
    Problem.model_validate(conflict.json)
    schemas.Snapshot.model_validate(conflict.json["download"])
