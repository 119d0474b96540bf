"""Files: the Hub's /resolve/, and the CDN that it sends one to for the large ones."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from urllib.parse import quote, urlencode

from fakes.hub_api import moved
from fakes.hub_blobs import Content
from fakes.hub_faults import EXPIRED
from fakes.hub_message import Body, Exchange, HubError, Reply, Request, parse_range, whole
from fakes.hub_repo import Catalog, HubFile


class UrlSigner:
    """Signs the CDN's URLs. `lifetime` holds for those that come; `expire` ends all that were given out."""

    def __init__(self, cdn_url: str, lifetime: float) -> None:
        self._cdn_url = cdn_url
        self._key = secrets.token_bytes(16)
        self.lifetime = lifetime

    def expire(self) -> None:
        """Make every URL signed until now one that has expired."""
        self._key = secrets.token_bytes(16)

    def sign(self, repo_id: str, file: str, sha256: str) -> str:
        """Return a URL on the CDN that is good for `lifetime` seconds."""
        path = f"/{quote(repo_id)}/{sha256}"
        expires = str(int(time.time() + self.lifetime))
        name = file.rsplit("/", 1)[-1]
        query = {
            "response-content-disposition": f"inline; filename*=UTF-8''{quote(name)};",
            "path": file,
            "Expires": expires,
            "Signature": self._signature(path, file, expires),
        }
        return f"{self._cdn_url}{path}?{urlencode(query)}"

    def good(self, request: Request) -> bool:
        """Tell whether the request's URL was signed here and has not expired."""
        expires = request.ask("Expires")
        signature = self._signature(request.raw_path, request.ask("path"), expires)
        return hmac.compare_digest(signature, request.ask("Signature")) and time.time() < int(expires)

    def _signature(self, path: str, file: str, expires: str) -> str:
        return hmac.new(self._key, f"{path}\n{file}\n{expires}".encode(), hashlib.sha256).hexdigest()


class HubFiles:
    """Answers /resolve/ on the Hub's port and everything on the CDN's.

    With `resolve_cache`, small files are redirected once within the Hub, as the real one does for some. `announce` says
    what headers tell of a file that is stored with Xet.
    """

    def __init__(self, catalog: Catalog, signer: UrlSigner) -> None:
        self._catalog = catalog
        self._signer = signer
        self.resolve_cache = False
        self.announce: Callable[[str, str, HubFile], dict[str, str]] = lambda repo_id, commit, file: {}

    def resolve(self, request: Request) -> Exchange | None:
        """Return the answer to a /resolve/ URL, or None when the URL is none."""
        parts = request.segments
        cached = parts[:3] == ["api", "resolve-cache", "models"]
        if cached:
            parts = [*parts[3:5], "resolve", *parts[5:]]
        at = next((n for n in (1, 2) if parts[n : n + 1] == ["resolve"]), 0)
        if not at or len(parts) < at + 3:
            return None
        repo_id, revision, file = "/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :])
        exchange = Exchange(request, "resolve", repo_id, file)
        if new_name := self._catalog.new_name(repo_id):
            exchange.reply = moved(request, f"/{repo_id}", f"/{new_name}")
            return exchange
        try:
            exchange.reply = self._file(request, repo_id, revision, file, cached)
        except HubError as error:
            exchange.reply = error.reply()
        return exchange

    def _file(self, request: Request, repo_id: str, revision: str, path: str, cached: bool) -> Reply:
        repo = self._catalog.open(repo_id, request.token)
        commit = repo.commit(revision)
        file = commit.files.get(path)
        if file is None:
            error = HubError(404, "EntryNotFound", "Entry not found")
            reply = error.reply()
            reply.headers["X-Repo-Commit"] = commit.sha
            return reply
        headers = {
            "X-Repo-Commit": commit.sha,
            "ETag": f'"{file.etag}"',
            "Accept-Ranges": "bytes",
            "Access-Control-Expose-Headers": "X-Repo-Commit,X-Request-Id,X-Error-Code,X-Error-Message,ETag,Link",
        }
        if file.lfs:
            headers["X-Linked-Size"] = str(file.content.size)
            headers["X-Linked-ETag"] = f'"{file.etag}"'
            headers.update(self.announce(repo_id, commit.sha, file))
            return _redirect(302, self._signer.sign(repo_id, path, file.content.sha256), headers)
        if self.resolve_cache and not cached:
            location = f"/api/resolve-cache/models/{quote(repo_id)}/{commit.sha}/{quote(path)}"
            return _redirect(307, location, headers)
        headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(path.rsplit('/', 1)[-1])}"
        return serve(request, file.content, headers, "text/plain; charset=utf-8")

    def cdn(self, request: Request) -> Exchange:
        """Return the CDN's answer. It asks for a signature, never for a token."""
        parts = request.segments
        exchange = Exchange(request, "cdn", "/".join(parts[:-1]), request.ask("path"))
        content = self._catalog.content(parts[-1])
        if content is None or not self._signer.good(request):
            exchange.reply = Reply(403)
            exchange.reply.text(EXPIRED, "application/xml")
            return exchange
        # An object store's own tag: the same for the same content, and not the hash that the Hub names.
        etag = hashlib.md5(content.sha256.encode(), usedforsecurity=False).hexdigest() + "-1"
        headers = {"ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        exchange.reply = serve(request, content, headers, "application/octet-stream")
        return exchange


def serve(request: Request, content: Content, headers: dict[str, str], content_type: str) -> Reply:
    """Return content, or the single range of it that is asked for: 200, 206 or 416."""
    headers = {"Content-Type": content_type, **headers}
    asked = request.range
    if request.headers.get("if-range", headers["ETag"]) != headers["ETag"]:
        asked = None
    try:
        span = parse_range(asked, content.size)
    except ValueError:
        return Reply(416, {**headers, "Content-Range": f"bytes */{content.size}"})
    if span is None:
        return Reply(200, headers, body=whole(content))
    start, stop = span
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
    return Reply(206, headers, body=Body(content, start, stop))


def _redirect(status: int, location: str, headers: dict[str, str]) -> Reply:
    reply = Reply(status, {**headers, "Location": location})
    word = {302: "Found", 307: "Temporary Redirect"}[status]
    reply.text(f"{word}. Redirecting to {location}", "text/plain; charset=utf-8")
    return reply
