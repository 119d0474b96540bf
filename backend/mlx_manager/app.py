"""The FastAPI shell: routes, guards and errors around a core that somebody else starts and stops."""

from __future__ import annotations

import socket
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.types import ASGIApp

from mlx_manager import __version__
from mlx_manager.connections import MAX_HEAD
from mlx_manager.routers import access, discovery, downloads, events, library, limits, models, page, problems, system
from mlx_manager.routers.access import Gate
from mlx_manager.routers.guards import LOOPBACK_NAMES, BodyLimit, RequestBounds, RequestLog, SameSite
from mlx_manager.routers.headers import SafeHeaders
from mlx_manager.routers.sse import Frames, OpenStreams
from mlx_manager.services.access import Failures
from mlx_manager.settings import Settings
from mlx_manager.wiring import Core

MAX_BODY = 64 * 1024
MAX_TARGET = 8 * 1024
HEARTBEAT_S = 15.0


class _App(FastAPI):
    """FastAPI with an OpenAPI document that knows our problems, and with safe headers on everything it answers."""

    def build_middleware_stack(self) -> ASGIApp:
        # Beyond the last of its own layers, which answers when all the others have failed.
        return SafeHeaders(super().build_middleware_stack())

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            document = get_openapi(
                title=self.title, version=self.version, description=self.description, routes=self.routes
            )
            problems.correct(document, token_needed=self.state.core.settings.needs_token)
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
    app.state.open_streams = OpenStreams(core.settings.max_streams)
    app.state.failures = Failures()
    app.state.heartbeat_s = heartbeat_s
    rooms = (page, access, models, discovery, library, downloads, events, limits, system)
    for room in rooms:
        app.include_router(room.router)
    app.state.routes = [route for room in rooms for route in room.router.routes]
    problems.install(app)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, limit=MAX_BODY)
    app.add_middleware(Gate, access=core.access, failures=app.state.failures)
    app.add_middleware(SameSite, hosts=_names(core.settings), any_address=core.settings.needs_token)
    app.add_middleware(RequestBounds, target=MAX_TARGET, head=MAX_HEAD)
    app.add_middleware(RequestLog)
    if core.access is not None:
        core.access.on_renewed(app.state.open_streams.end_all)
    return app


def _names(settings: Settings) -> frozenset[str]:
    """What this server may be called by. Beyond those of this machine only who needs a token learns more of them."""
    names = LOOPBACK_NAMES | {settings.host, *settings.names}
    if settings.is_loopback:
        return names
    own = socket.gethostname().lower()
    short = own.partition(".")[0]
    # The second as found by Bonjour and its like.
    return names | {own, short, f"{short}.local"}
