"""The FastAPI shell: routes, guards and errors around a core that somebody else starts and stops."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from mlx_manager import __version__
from mlx_manager.routers import downloads, events, index, library, limits, models, problems, system
from mlx_manager.routers.guards import LOOPBACK_NAMES, BodyLimit, RequestLog, SameSite
from mlx_manager.routers.sse import Frames
from mlx_manager.wiring import Core

MAX_BODY = 64 * 1024
HEARTBEAT_S = 15.0
_EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


class _App(FastAPI):
    """FastAPI with an OpenAPI document that knows our problems."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            problems.correct(document)
            self.openapi_schema = document
        return self.openapi_schema


def create_app(core: Core, *, heartbeat_s: float = HEARTBEAT_S) -> FastAPI:
    """The web application over a started core; whoever started the core stops it. ``heartbeat_s``: seconds of silence
    on a stream before a comment says that it is alive."""
    app = _App(
        title="MLX Manager",
        version=__version__,
        description="Finds, downloads, verifies and keeps MLX models from the Hugging Face Hub.",
        # Their pages load scripts from a CDN; what we serve works without a network.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.core = core
    app.state.frames = Frames()
    app.state.heartbeat_s = heartbeat_s
    for room in (index, models, library, downloads, events, limits, system):
        app.include_router(room.router)
    problems.install(app)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, limit=MAX_BODY)
    app.add_middleware(SameSite, hosts=_names(core.settings.host))
    app.add_middleware(RequestLog)
    return app


def _names(host: str) -> frozenset[str] | None:
    # Open to the network on purpose: under what names, nobody here can know.
    return None if host in _EVERY_ADDRESS else LOOPBACK_NAMES | {host}
