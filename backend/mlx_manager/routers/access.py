"""The access token at the door: who has to show it, how a browser is let in, and what the others are told."""

from __future__ import annotations

from html import escape
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mlx_manager.routers.deps import CoreDep
from mlx_manager.routers.page import site
from mlx_manager.routers.problems import problem
from mlx_manager.services.access import LONGEST_PASS_S, Access, Failures, place_of

SIGN_IN = "/access"
STYLE = "/access.css"
"""How the door looks; strangers may see it."""
ADVICE = (
    "Run `mlx-manager token` on the machine that serves: it shows the token and an address that opens the page."
    " A program sends it as `Authorization: Bearer TOKEN`."
)
router = APIRouter()


class Gate:
    """Lets nobody past who does not show the token or a pass: by ``Authorization: Bearer``, or by the cookie that
    `SIGN_IN` gives out, since a browser's EventSource can send nothing else. ``access`` None: nobody has to."""

    def __init__(self, app: ASGIApp, *, access: Access | None, failures: Failures) -> None:
        self._app = app
        self._access = access
        self._failures = failures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._access is None or scope["type"] != "http" or scope["path"] in (SIGN_IN, STYLE):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        shown = _shown(headers, self._access.cookie)
        if shown is not None and self._access.admits(shown):
            await self._app(scope, receive, send)
            return
        # A cookie that has ended is no attempt to guess: its very name is known only to those who had the token.
        guessed = "authorization" in headers
        wait_s = self._failures.note(_place(scope)) if guessed else 0.0
        if scope["method"] == "GET" and "text/html" in headers.get("accept", "") and not guessed:
            answer: Response = _form(401)
        else:
            answer = _refusal(wait_s, shown is not None)
        await answer(scope, receive, send)


def _shown(headers: Headers, cookie: str) -> str | None:
    """What a request shows of its right to come in; None where it shows nothing."""
    if (authorization := headers.get("authorization")) is not None:
        scheme, _, credentials = authorization.strip().partition(" ")
        return credentials.strip() if scheme.lower() == "bearer" else ""
    for header in headers.getlist("cookie"):
        # One at a time: a strange cookie of another program on this host must not hide ours.
        for part in header.split(";"):
            name, _, value = part.strip().partition("=")
            if name == cookie:
                return value
    return None


def _place(scope: Scope) -> str:
    return place_of(scope["client"][0] if scope.get("client") else None)


def _refusal(wait_s: float, shown: bool) -> Response:
    challenge = {"WWW-Authenticate": 'Bearer realm="MLX Manager"'}
    if wait_s:
        return problem(
            429,
            "too_many_attempts",
            "Too many wrong access tokens came from this address.",
            f"Wait for {wait_s:.0f} s. {ADVICE}",
            headers={"Retry-After": str(max(1, round(wait_s)))},
        )
    if shown:
        detail = "The access token is wrong, or the pass made from it has ended."
        return problem(401, "access_refused", detail, ADVICE, headers=challenge)
    return problem(401, "access_needed", "This server asks for its access token.", ADVICE, headers=challenge)


@router.get(STYLE, include_in_schema=False)
async def style() -> Response:
    """Of the form, and of nothing behind it."""
    return Response(site().assets["styles/access.css"].body, media_type="text/css")


@router.get(SIGN_IN, include_in_schema=False)
async def sign_in(
    request: Request, core: CoreDep, token: Annotated[str | None, Query(max_length=500)] = None
) -> Response:
    """The address that opens the page: it leaves a cookie behind and leads on, so that the token is seen no longer."""
    if core.access is None:
        return RedirectResponse("/", status_code=303)
    return _form(200) if token is None else _signed_in(request, core.access, token)


@router.post(SIGN_IN, include_in_schema=False)
async def sign_in_by_form(request: Request, core: CoreDep) -> Response:
    """What the form sends."""
    if core.access is None:
        return RedirectResponse("/", status_code=303)
    sent = parse_qsl((await request.body()).decode("utf-8", "replace"))
    return _signed_in(request, core.access, dict(sent).get("token", "").strip())


def _signed_in(request: Request, access: Access, token: str) -> Response:
    if not access.admits(token):
        failures: Failures = request.app.state.failures
        wait_s = failures.note(_place(request.scope))
        return _form(429 if wait_s else 401, wrong=True, wait_s=wait_s)
    # One that follows a link of another site is still on that site's way when it is redirected: its browser would not
    # send a Strict cookie along. A page of ours that leads on makes the next step our own.
    if request.headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
        answer: Response = HTMLResponse(_ONWARD)
    else:
        answer = RedirectResponse("/", status_code=303)
    answer.set_cookie(
        access.cookie,
        access.make_pass(LONGEST_PASS_S),
        max_age=int(LONGEST_PASS_S),
        path="/",
        httponly=True,
        samesite="strict",
    )
    return answer


def _form(status: int, *, wrong: bool = False, wait_s: float = 0.0) -> Response:
    said = "Show that this server is yours."
    headers = {}
    if wait_s:
        said = f"Too many wrong tokens came from your address: wait for {wait_s:.0f} s."
        headers["Retry-After"] = str(max(1, round(wait_s)))
    elif wrong:
        said = "That is not the access token, or it has been renewed."
    said = f'<p role="status"{" class=wrong" if wrong else ""}>{escape(said)}</p>'
    return HTMLResponse(_FORM.replace("SAID", said), status_code=status, headers=headers)


_HEAD = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>MLX Manager</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{STYLE}">
"""
_FORM = f"""{_HEAD}<main>
<svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8" fill="#0f6b5c"/>
<path fill="#fff" d="M6 5.5h11v5H6zm0 8h20v5H6zm0 8h20v5H6z"/></svg>
<h1>MLX Manager</h1>
SAID
<form method="post" action="{SIGN_IN}">
<label>Access token <input type="password" name="token" autocomplete="current-password" required autofocus></label>
<button>Open</button>
</form>
<p>On the machine that serves, <code>mlx-manager token</code> shows it.</p>
</main>
</html>
"""
_ONWARD = f"""{_HEAD}<meta http-equiv="refresh" content="0; url=/">
<main><p><a href="/">Go on to MLX Manager</a></p></main>
</html>
"""
