"""/api/models/search and what belongs to it: models that there are, before any of them is here."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Response

from mlx_manager.domain.catalog import check_request
from mlx_manager.domain.fit import MOST_CONTEXT
from mlx_manager.domain.search import Place, Sort, Wish
from mlx_manager.domain.snapshot import moment
from mlx_manager.errors import TokenRejected
from mlx_manager.routers.deps import CoreDep, fresh
from mlx_manager.routers.discovery_schemas import (
    Fit,
    HubAccount,
    HubToken,
    MachineState,
    ModelInfo,
    SearchPage,
    Starters,
)
from mlx_manager.routers.problems import documented, problem
from mlx_manager.routers.schemas import ID_PART, REVISION

router = APIRouter(prefix="/api", tags=["discovery"])
HUB_PROBLEMS = (401, 403, 404, 422, 502, 503, 504, 507)

Text = Annotated[str | None, Query(max_length=200)]
Count = Annotated[int | None, Query(ge=0, le=1 << 53)]
Capability = Literal["vision", "tools", "thinking", "embedding", "audio"]


@router.get("/models/search", response_model=SearchPage, responses=documented(*HUB_PROBLEMS))
async def search(
    core: CoreDep,
    q: Annotated[str, Query(max_length=200, description="Words of the name.")] = "",
    author: Text = None,
    task: Annotated[str | None, Query(max_length=200, description="As the Hub names it: text-generation.")] = None,
    sort: Sort = Sort.TRENDING,
    mlx: Annotated[bool, Query(description="Only models in MLX's format.")] = True,
    family: Annotated[str | None, Query(max_length=80, description="qwen, llama, gemma, …")] = None,
    quant: Annotated[list[str] | None, Query(max_length=10, description="4-bit, 8, mxfp4, DWQ, bf16, …")] = None,
    min_params: Count = None,
    max_params: Count = None,
    max_size_bytes: Count = None,
    fits: Annotated[bool, Query(description="Only what runs on this machine.")] = False,
    licence: Annotated[str | None, Query(max_length=80, description="apache-2.0, mit, …")] = None,
    gated: bool | None = None,
    capability: Annotated[list[Capability] | None, Query(description="May be given again: all of them.")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 30,
    cursor: Annotated[str | None, Query(max_length=6000, description="`next_cursor` of the page before.")] = None,
) -> Response:
    """Look for models on the Hub. Two or three of its requests at most serve a page; when it does not answer, this
    looks in what it told before, and says so."""
    wish = Wish(
        text=q,
        author=author or None,
        task=task or None,
        sort=sort,
        mlx=mlx,
        family=family or None,
        quants=tuple(one for one in quant or () if one.strip()),
        min_params=min_params,
        max_params=max_params,
        max_size_bytes=max_size_bytes,
        fits=fits,
        licence=licence or None,
        gated=gated,
        capabilities=tuple(capability or ()),
    )
    result = await core.discovery.searcher.search(wish, limit, Place.from_text(cursor) if cursor else None)
    return fresh(
        {
            "models": [hit.shown() for hit in result.hits],
            "next_cursor": result.next_cursor,
            "as_of": moment(result.as_of),
            "age_s": age_s(result.as_of),
            "stale": result.stale,
            "note": result.note,
        }
    )


Part = Annotated[str, Path(json_schema_extra=ID_PART)]
Revision = Annotated[str, Query(description="A branch, a tag or a commit.", json_schema_extra=REVISION)]
Context = Annotated[int | None, Query(ge=1, le=MOST_CONTEXT, description="Tokens; 4096 unless the model takes fewer.")]


@router.get("/models/info/{org}/{name}", response_model=ModelInfo, responses=documented(*HUB_PROBLEMS))
async def info(org: Part, name: Part, core: CoreDep, revision: Revision = "main", context: Context = None) -> Response:
    """One model in full: card, files, figures, access, what is here of it, and whether it runs on this machine."""
    request = check_request(f"{org}/{name}", revision)
    return fresh(await core.discovery.informer.info(request.model_id, request.revision, context))


@router.get("/models/fit/{org}/{name}", response_model=Fit, responses=documented(*HUB_PROBLEMS))
async def fit(org: Part, name: Part, core: CoreDep, revision: Revision = "main", context: Context = None) -> Response:
    """Whether a model runs on this machine with a conversation of so many tokens. Cheap: ask it for each context."""
    request = check_request(f"{org}/{name}", revision)
    return fresh((await core.discovery.informer.fit(request.model_id, request.revision, context)).shown())


@router.get("/starters", response_model=Starters, responses=documented(507))
async def starters(core: CoreDep) -> Response:
    """Three good models that run on this machine, from small to large. Works without the Hub."""
    return fresh({"models": [hit.shown() for hit in await core.discovery.starter.starters()]})


@router.get("/hub/account", response_model=HubAccount, responses=documented())
async def account(core: CoreDep) -> Response:
    """Who we are to the Hub: the token is tested with each call."""
    return fresh(asdict(await core.discovery.account.account()))


@router.put("/hub/token", response_model=HubAccount, responses=documented(403, 413, 422, 502, 503, 504, 507))
async def keep_token(body: HubToken, core: CoreDep) -> Response:
    """Test a token and keep it where `hf auth login` keeps it. One that the Hub refuses is not kept."""
    try:
        return fresh(asdict(await core.keep_token(body.token.get_secret_value().strip())))
    except TokenRejected as error:
        # The request was in order, and what it brought is not: 401 would be about who asks us.
        return problem(422, error.code, error.detail, error.advice)


@router.delete("/hub/token", response_model=HubAccount, responses=documented(403, 507))
async def forget_token(core: CoreDep) -> Response:
    """Remove the token that is kept. One in HF_TOKEN stays: it is not ours to unset."""
    return fresh(asdict(await core.forget_token()))


@router.get("/machine", response_model=MachineState, responses=documented())
async def machine(core: CoreDep) -> Response:
    """The machine that models are to run on, and what they may take of it."""
    found = core.discovery.machine
    return fresh(
        {
            "name": found.name,
            "chip": found.chip,
            "memory_bytes": found.memory_bytes,
            "usable_bytes": found.usable_bytes,
            "is_apple_silicon": found.is_apple_silicon,
            "text": found.text,
        }
    )


def age_s(at: float) -> float:
    return round(max(0.0, time.time() - at), 1)
