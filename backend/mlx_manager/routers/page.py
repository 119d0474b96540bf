"""The page: static files out of the package, served from memory under addresses that change with their content."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from starlette.exceptions import HTTPException

from mlx_manager.routers.icon import Mood, icon

router = APIRouter(include_in_schema=False)

POLICY = "; ".join(
    (
        "default-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        # Not from anywhere else: a model's card could have the browser call home.
        "img-src 'self' data:",
        "frame-ancestors 'none'",
        "object-src 'none'",
        # What a script may turn into markup: the templates of the page, and a model's card, which is shown where no
        # script runs.
        "require-trusted-types-for 'script'",
        "trusted-types lit-html card",
    )
)
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "png": "image/png",
    "svg": "image/svg+xml",
    "webmanifest": "application/manifest+json",
}
_BY_NAME = ("index.html", "manifest.webmanifest")
_PACKED_ALREADY = frozenset({"png"})
# The address of a file names its content, so it is true for ever; what names it is asked for anew each time.
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file, plain and gzipped."""

    body: bytes
    packed: bytes | None
    media_type: str


@dataclass(frozen=True, slots=True)
class Site:
    """All files of the page. ``build`` names this very content: another version of any file is another build."""

    build: str
    named: dict[str, Asset]
    """Those whose address never changes; they name the others."""
    assets: dict[str, Asset]


@cache
def site() -> Site:
    """The page that this package holds, read once."""
    found = dict(sorted(_walk(files("mlx_manager") / "web", "")))
    digest = hashlib.sha256()
    for path, body in found.items():
        digest.update(f"{path}\0{len(body)}\0".encode())
        digest.update(body)
    build = digest.hexdigest()[:12]
    # All modules are asked for at once, and not one after the other as each is found to import the next.
    modules = "\n".join(
        f'<link rel="modulepreload" href="/page/{{build}}/{path}">' for path in found if _is_module(path)
    )
    named = {
        path: _asset(path, found.pop(path).replace(b"{modules}", modules.encode()).replace(b"{build}", build.encode()))
        for path in _BY_NAME
    }
    assets = {path: _asset(path, body) for path, body in found.items()}
    return Site(build, named, assets)


def _is_module(path: str) -> bool:
    return path.endswith(".js") and path != "theme.js"


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        path = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{path}/")
        elif path.rpartition(".")[2] in _TYPES:
            yield path, entry.read_bytes()


def _asset(path: str, body: bytes) -> Asset:
    suffix = path.rpartition(".")[2]
    packed = None if suffix in _PACKED_ALREADY else gzip.compress(body, 9, mtime=0)
    return Asset(body, packed, _TYPES[suffix])


AcceptEncoding = Annotated[str, Header()]


def _send(asset: Asset, accepts: str, cache_control: str, **more: str) -> Response:
    headers = {"Cache-Control": cache_control, **more}
    if asset.packed is None:
        return Response(asset.body, media_type=asset.media_type, headers=headers)
    headers["Vary"] = "Accept-Encoding"
    if "gzip" not in accepts:
        return Response(asset.body, media_type=asset.media_type, headers=headers)
    headers["Content-Encoding"] = "gzip"
    return Response(asset.packed, media_type=asset.media_type, headers=headers)


# Each view has an address of its own, so that a reload, a bookmark and the Back button work.
@router.get("/")
@router.get("/discover")
@router.get("/downloads")
@router.get("/library")
@router.get("/settings")
@router.get("/models/{org}/{name}")
async def document(accept_encoding: AcceptEncoding = "", if_none_match: Annotated[str, Header()] = "") -> Response:
    """The one HTML file; its scripts show the view that the address names."""
    held = site()
    tag = f'W/"{held.build}"'
    more = {"ETag": tag, "Content-Security-Policy": POLICY}
    if tag in if_none_match:
        return Response(status_code=304, headers={"Cache-Control": _ASK_AGAIN, **more})
    return _send(held.named["index.html"], accept_encoding, _ASK_AGAIN, **more)


@router.get("/page/{build}/{path:path}")
async def asset(build: str, path: str, accept_encoding: AcceptEncoding = "") -> Response:
    """A file of this build. Of another build there is none: a page half old and half new must not be."""
    held = site()
    found = held.assets.get(path) if build == held.build else None
    if found is None:
        raise HTTPException(404)
    return _send(found, accept_encoding, _FOR_EVER)


@router.get("/manifest.webmanifest")
async def manifest(accept_encoding: AcceptEncoding = "") -> Response:
    """What a browser needs to put the page among the applications."""
    return _send(site().named["manifest.webmanifest"], accept_encoding, _ASK_AGAIN)


@router.get("/favicon.ico")
@router.get("/favicon.svg")
async def favicon(
    progress: Annotated[int, Query(ge=0, le=100)] = 100,
    mood: Mood = Mood.IDLE,
    accept_encoding: AcceptEncoding = "",
) -> Response:
    """The icon, filled up to ``progress`` percent."""
    drawn = _asset("favicon.svg", icon(progress, mood).encode())
    return _send(drawn, accept_encoding, "public, max-age=86400")
