"""/api/models/local: what is here already, and how it goes away again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from mlx_manager.domain.catalog import check_revision
from mlx_manager.domain.snapshot import moment
from mlx_manager.errors import InvalidRequest
from mlx_manager.routers.deps import CoreDep, fresh
from mlx_manager.routers.problems import documented
from mlx_manager.routers.schemas import REVISION, DeletePlan, LocalModels

router = APIRouter(prefix="/api/models/local", tags=["library"])

# A path and not two names: a model of the Hub's first years has no ORG.
ModelId = Annotated[str, Path(description="ORG/MODEL, as it stands in the library.")]
Revision = Annotated[
    str | None,
    Query(description="Only this commit; a branch or tag that stands for it will do.", json_schema_extra=REVISION),
]
Leftovers = Annotated[bool, Query(description="Only what no commit uses: partial files and what cancelled work left.")]


@router.get("", response_model=LocalModels, responses=documented(507))
async def local(core: CoreDep) -> Response:
    """The models in the Hugging Face cache of this machine, whoever put them there."""
    library = await core.library()
    return fresh(
        {
            "models": [model.shown() for model in library.models],
            "size_bytes": library.size_bytes,
            "as_of": moment(library.read_at),
        }
    )


@router.get("/{model_id:path}/delete", response_model=DeletePlan, responses=documented(404, 422, 507))
async def plan(model_id: ModelId, core: CoreDep, revision: Revision = None, leftovers: Leftovers = False) -> Response:
    """What a DELETE with the same words would remove. Removes nothing."""
    return fresh(asdict(await core.deletion(model_id, _checked(revision, leftovers), leftovers=leftovers)))


@router.delete("/{model_id:path}", response_model=DeletePlan, responses=documented(403, 404, 409, 422, 507))
async def delete(model_id: ModelId, core: CoreDep, revision: Revision = None, leftovers: Leftovers = False) -> Response:
    """Remove a model, one of its commits, or its leftovers; answers with what was removed. Not while it is being
    downloaded, and nothing outside of the cache."""
    return fresh(asdict(await core.delete(model_id, _checked(revision, leftovers), leftovers=leftovers)))


def _checked(revision: str | None, leftovers: bool) -> str | None:
    if revision is not None and leftovers:
        raise InvalidRequest("revision and leftovers exclude each other: leftovers belong to no commit.")
    return None if revision is None else check_revision(revision)
