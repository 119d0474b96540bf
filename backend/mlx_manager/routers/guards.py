"""What a request passes before any route sees it. Plain ASGI, so that streams are not held up.

Two kinds of strangers are kept out here, without asking who they are: web pages in the person's own browser, which can
reach whatever the browser can, and requests that are larger than any of ours. Who comes over the network is asked for
the access token besides, see access.py.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import time
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlx_manager.routers.problems import ProblemResponse, problem

logger = logging.getLogger(__name__)

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_OF_TASK = re.compile(r"/api/models/download/([0-9a-f]{16})/")
# What a browser says of a request that its own address bar, or a page of this very server, has caused.
_OWN = frozenset({"same-origin", "none"})


class SameSite:
    """Only requests that were meant for this server.

    A page that points its own name at our address (DNS rebinding) gives itself away by its Host header, which must be
    one of ``hosts`` or, with ``any_address``, an IP address: to that no name can be pointed. A page that asks us under
    our own name gives itself away by Origin and Sec-Fetch-Site, which a page cannot change. Such a request is refused
    whatever its method: what it reads stays hidden from the page, but a stream that it opens is taken from others. Only
    a link may lead here from elsewhere. ``same-site`` is elsewhere too: for a browser all ports of a host are one site.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], any_address: bool) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._refusal(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> ProblemResponse | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_ours(host):
            return problem(
                421,
                "wrong_host",
                f"This server does not answer for the host {host[:80]!r}.",
                "Use its IP address with its port, or have it answer to this name too: MLX_MANAGER_NAMES."
                if self._any_address
                else "Use http://127.0.0.1 or http://localhost with the server's port.",
            )
        if origin is not None and origin.partition("://")[2] != host:
            return _from_elsewhere(f"a page of {origin[:80]!r}")
        site = headers.get("sec-fetch-site", "none")
        follows_a_link = (
            method == "GET"
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        )
        if site not in _OWN and not follows_a_link:
            return _from_elsewhere("a page from elsewhere")
        return None

    def _is_ours(self, host: str) -> bool:
        name = _name(host)
        if name is None or name in self._hosts:
            return name is not None
        return self._any_address and _is_address(name)


def _from_elsewhere(who: str) -> ProblemResponse:
    advice = "Send the request from a program, or from the server's own page."
    return problem(403, "cross_origin", f"This request was made by {who}, which may do nothing here.", advice)


def _name(host: str) -> str | None:
    try:
        # A dot at the end means the same name to DNS.
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".") or None
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class RequestBounds:
    """No address above ``target`` bytes (414) and no headers above ``head`` bytes (431) go any further."""

    def __init__(self, app: ASGIApp, *, target: int, head: int) -> None:
        self._app = app
        self._target = target
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._refusal(scope) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> ProblemResponse | None:
        target = len(scope["raw_path"]) + len(scope["query_string"])
        if target > self._target:
            detail = f"The address of this request has {target} bytes; {self._target} are allowed."
            return problem(414, "uri_too_long", detail, "No call of this API needs so long an address: shorten it.")
        head = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        if head > self._head:
            detail = f"The headers of this request have {head} bytes; {self._head} are allowed."
            return problem(431, "headers_too_large", detail, "Send fewer headers; a browser: delete its old cookies.")
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
        status, about = 500, scope["path"]

        async def noted(message: Message) -> None:
            nonlocal status, about
            if message["type"] == "http.response.start":
                status = message["status"]
                # Whoever asks for a new download learns from the answer which one it is.
                about = Headers(raw=message["headers"]).get("location", about)
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            took_ms = (time.perf_counter() - begun) * 1000
            where = f"{scope['method']} {scope['path']}"
            logger.debug("%s: %s in %.1f ms", where, status, took_ms, extra=_task(about))


def _task(path: str) -> Mapping[str, str]:
    """The id of the download that a path is about, for the log's column."""
    found = _OF_TASK.match(path)
    return {} if found is None else {"task_id": found[1]}
