"""Every error as RFC 9457 ``application/problem+json``: what happened, a stable code, and the next step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from mlx_manager.errors import InvalidRequest, MlxManagerError
from mlx_manager.routers.jsons import Json

MEDIA_TYPE = "application/problem+json"
_SCHEMA = "#/components/schemas/Problem"
_ALWAYS = (401, 403, 414, 421, 429, 431, 500)


_SCHEME = "The access token of `mlx-manager token`; browsers have a cookie made from it."


class FieldProblem(BaseModel):
    """One thing wrong with a request: ``where`` is the path to it, such as ``body.priority``."""

    where: str
    message: str


class Problem(BaseModel):
    """RFC 9457, with ``code`` for programs and ``advice`` for people."""

    type: str = Field(description="A URI that names the kind of problem; it ends in the code.")
    title: str = Field(description="The HTTP status in words.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="Stable name of the error; it is also the `error_code` of a failed download.")
    detail: str = Field(description="What happened, in words for a person.")
    advice: str = Field(description="The next step.")
    errors: list[FieldProblem] | None = Field(default=None, description="422 only: each field that is wrong.")
    download: dict[str, Any] | None = Field(default=None, description="409 only: the Snapshot as it is.")


class ProblemResponse(Json):
    media_type = MEDIA_TYPE


def problem(
    status: int, code: str, detail: str, advice: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> ProblemResponse:
    """``more``: members beyond those of every problem."""
    body = {
        "type": f"urn:mlx-manager:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "advice": advice,
        **more,
    }
    return ProblemResponse(body, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})


def problem_of(error: MlxManagerError, **more: Any) -> ProblemResponse:
    wait_s = getattr(error, "retry_after_s", None)
    headers = {"Retry-After": str(max(1, round(wait_s)))} if wait_s is not None else None
    return problem(error.http_status, error.code, error.detail, error.advice_to_asker, headers=headers, **more)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For ``responses=`` of a route: these statuses answer with a problem, and so does always what stands before every
    route (guards.py, access.py), and 500."""
    content = {MEDIA_TYPE: {"schema": {"$ref": _SCHEMA}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, *_ALWAYS})
    }


def correct(document: dict[str, Any], *, token_needed: bool) -> None:
    """Put the problem's schema into an OpenAPI document, and take out FastAPI's own error, which we never send."""
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas |= {**schema.pop("$defs"), "Problem": schema}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if token_needed:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer", "description": _SCHEME}}
        document["security"] = [{"token": []}]
    for methods in document["paths"].values():
        for call in methods.values():
            if MEDIA_TYPE not in call["responses"].get("422", {}).get("content", {MEDIA_TYPE: None}):
                del call["responses"]["422"]


def install(app: FastAPI) -> None:
    """Make every error of the app a problem: ours, the framework's, and those that nobody expected."""
    app.add_exception_handler(MlxManagerError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, MlxManagerError)
    return problem_of(error)


async def _invalid(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    found = [{"where": _where(one["loc"]), "message": _readable(one)} for one in error.errors()]
    detail = "; ".join(f"{one['where']}: {one['message']}" for one in found)
    return problem(422, InvalidRequest.code, f"{detail}.", InvalidRequest.default_advice, errors=found)


def _where(place: Sequence[str | int]) -> str:
    # A body that is no JSON has a character position for its place.
    return ".".join(str(step) for step in place if not (len(place) == 2 and isinstance(step, int)))


def _readable(found: Mapping[str, Any]) -> str:
    message = str(found["msg"]).rstrip(".")
    reason = (found.get("ctx") or {}).get("error")
    return f"{message} ({reason})" if found["type"] == "json_invalid" and reason else message


# Of the framework's own errors: code and advice. Not the standard library's names: they change with Python.
_HTTP = {
    404: ("not_found", "Look at /openapi.json for the calls there are."),
    405: ("method_not_allowed", "Look at /openapi.json for the methods of this call."),
    413: ("content_too_large", "Send a smaller body; no call of this API needs a large one."),
}


async def _http(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    detail, headers = error.detail, error.headers
    if status == 400:
        # The framework's word for a body that is no text; one that is no JSON it calls invalid.
        return problem(422, InvalidRequest.code, "body: It is not text in UTF-8.", InvalidRequest.default_advice)
    if status == 404:
        detail = f"There is nothing at {request.url.path}."
    elif status == 405:
        detail = f"{request.url.path} does not answer to {request.method}."
        # The framework names the methods of the first route alone that has this path.
        headers = {"Allow": ", ".join(sorted(_methods(request) or (headers or {}).get("Allow", "").split(", ")))}
    code, advice = _HTTP.get(status, (f"http_{status}", InvalidRequest.default_advice))
    return problem(status, code, detail, advice, headers=headers)


def _methods(request: Request) -> set[str]:
    routes: Iterable[APIRoute] = request.app.state.routes
    same_path = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in same_path for method in route.methods or ()}


async def _unexpected(request: Request, error: Exception) -> ProblemResponse:
    # Its text may hold anything, so only the log gets it: the server writes the traceback there by itself.
    advice = MlxManagerError.default_advice
    return problem(500, MlxManagerError.code, "Something went wrong inside MLX Manager.", advice)
