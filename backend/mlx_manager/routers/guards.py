"""What a request passes before any route sees it. Plain ASGI, so that streams are not held up.

There are no accounts: whoever reaches the server may use it. So it listens on this machine alone, and these guards keep
out what can reach it there from elsewhere: web pages in the person's own browser.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_manager.routers.problems import problem

logger = logging.getLogger(__name__)

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class SameSite:
    """Only requests that were meant for this server.

    ``hosts``: the names it is known by; None lets every name pass. A page that points its own name at 127.0.0.1 (DNS
    rebinding) gives itself away by its Host header, a page that posts to us blindly by its Origin.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None) -> None:
        self._app = app
        self._hosts = None if hosts is None else {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._hosts is not None and _name(host) not in self._hosts:
            answer = problem(
                421,
                "wrong_host",
                f"This server does not answer for the host {host[:80]!r}.",
                "Use http://127.0.0.1 or http://localhost with the server's port.",
            )
        elif scope["method"] not in _READING and origin is not None and origin.partition("://")[2] != host:
            answer = problem(
                403,
                "cross_origin",
                f"A page of {origin[:80]!r} may not change anything here.",
                "Send the request from a program, or from the server's own page.",
            )
        else:
            await self._app(scope, receive, send)
            return
        await answer(scope, receive, send)


def _name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


class BodyLimit:
    """No body above ``limit`` bytes is read: 413."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limit:
            detail = f"The body has {declared[:20]} bytes; {self._limit} are allowed."
            answer = problem(413, "content_too_large", detail, "Send a smaller body.", headers={"Connection": "close"})
            await answer(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise HTTPException(413, f"The body has more than {self._limit} bytes.", {"Connection": "close"})
            return message

        await self._app(scope, counted, send)


class RequestLog:
    """Each request at DEBUG: method, path, status, time. The query is left out: people paste tokens there."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not logger.isEnabledFor(logging.DEBUG):
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            took_ms = (time.perf_counter() - begun) * 1000
            where = f"{scope['method']} {scope['path']}"
            logger.debug("%s: %s in %.1f ms", where, status, took_ms, extra=_task(scope["path"]))


def _task(path: str) -> Mapping[str, str]:
    """The id of the download that a path is about, for the log's column."""
    steps = path.split("/")
    if len(steps) > 5 and steps[:4] == ["", "api", "models", "download"]:
        return {"task_id": steps[4]}
    return {}
