"""Xet: what the Hub says of files that are stored so, and the CAS that `hf_xet` fetches them from.

A file's bytes lie in xorbs: chunks with a header of eight bytes each. The CAS tells which chunks of which xorbs make up
a file (its reconstruction) and signs the URLs under which ranges of a xorb are had; it asks for a token of its own, not
for the person's. Routes for a fault's `where`: `xet-token` on the Hub's port; `reconstruction`, `xorb` and `telemetry`
on the port `cas`. Hashes are made up: no client computes them.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fakes.hub_blobs import Content, plain
from fakes.hub_faults import EXPIRED
from fakes.hub_files import UrlSigner, serve
from fakes.hub_message import Exchange, HubError, Reply, Request, parse_range
from fakes.hub_repo import Catalog, HubFile

CHUNK = 64 << 10
HEADER = 8


class Xorb:
    """`content` is what goes out: the chunks `first` to `last` of a file, each behind its header."""

    def __init__(self, hash_: str, file: Content, first: int, last: int, content: Content) -> None:
        self.hash, self.file, self.first, self.last, self.content = hash_, file, first, last, content


class Xet:
    """The Xet side of a hub; safe to use from several threads.

    `xorb_size`: bytes of a file in one xorb, 64 MiB at most, as on the Hub. `folder`: where xorbs of content that
    lies on the disk are kept.
    """

    def __init__(self, catalog: Catalog, hub_url: str, cas_url: str, folder: Path, xorb_size: int) -> None:
        self._catalog = catalog
        self._hub_url = hub_url
        self._cas_url = cas_url
        self._folder = folder
        self._per_xorb = max(1, xorb_size // CHUNK)
        self._files: dict[str, tuple[str, list[Xorb]]] = {}
        self._xorbs: dict[str, tuple[str, Xorb]] = {}
        self._lock = threading.Lock()
        self._key = secrets.token_hex(8)
        self.signer = UrlSigner(cas_url, 3600)

    def add(self, file: HubFile) -> None:
        """Store a file's content in xorbs, unless it is there."""
        assert file.xet_hash is not None
        with self._lock:
            if file.xet_hash in self._files:
                return
            xorbs = self._cut(file.content)
            self._files[file.xet_hash] = file.path, xorbs
            self._xorbs.update({xorb.hash: (file.path, xorb) for xorb in xorbs})

    def expire(self) -> None:
        """Make all URLs and tokens given out until now ones that have expired."""
        self.signer.expire()
        self._key = secrets.token_hex(8)

    # -- the Hub's side

    def token(self, request: Request) -> Exchange | None:
        """Return the answer to `/api/models/ORG/NAME/xet-read-token/REVISION`, or None when it is another URL."""
        parts = request.segments
        at = next((n for n in (3, 4) if parts[n : n + 1] == ["xet-read-token"]), 0)
        if parts[:2] != ["api", "models"] or not at or len(parts) != at + 2:
            return None
        repo_id = "/".join(parts[2:at])
        exchange = Exchange(request, "xet-token", repo_id)
        try:
            self._catalog.open(repo_id, request.token).commit(parts[at + 1])
            expires = int(time.time() + self.signer.lifetime)
            token = f"xet_{self._key}_{expires}"
            exchange.reply = Reply(
                200,
                {
                    "X-Xet-Cas-Url": self._cas_url,
                    "X-Xet-Access-Token": token,
                    "X-Xet-Token-Expiration": str(expires),
                },
                {"casUrl": self._cas_url, "accessToken": token, "exp": expires},
            )
        except HubError as error:
            exchange.reply = error.reply()
        return exchange

    def announce(self, repo_id: str, commit: str, file: HubFile) -> dict[str, str]:
        """Return the headers with which /resolve/ says that a file is to be had by Xet."""
        if file.xet_hash is None:
            return {}
        route = f"{self._hub_url}/api/models/{quote(repo_id)}/xet-read-token/{commit}"
        return {"X-Xet-Hash": file.xet_hash, "Link": f'<{route}>; rel="xet-auth"'}

    # -- the CAS

    def answer(self, request: Request) -> Exchange:
        """Return the CAS's answer."""
        parts = request.segments
        if parts[:1] == ["xorbs"]:
            return self._xorb(request, parts[-1])
        if parts[:2] == ["v1", "telemetry"]:
            return Exchange(request, "telemetry", reply=Reply(200, document={}))
        if parts[:2] != ["v1", "reconstructions"] or len(parts) != 3:
            return Exchange(request, "other", reply=Reply(404, document={"error": "not found"}))
        path, xorbs = self._files.get(parts[2], ("", []))
        exchange = Exchange(request, "reconstruction")
        if not self._lets_in(request):
            exchange.reply = Reply(401, document={"error": "unauthorized"})
        elif not path:
            exchange.reply = Reply(404, document={"error": "no such file"})
        else:
            exchange.reply = self._reconstruction(request, path, xorbs)
        return exchange

    def _lets_in(self, request: Request) -> bool:
        key, _, expires = (request.token or "").removeprefix("xet_").partition("_")
        return key == self._key and time.time() < int(expires)

    def _reconstruction(self, request: Request, path: str, xorbs: list[Xorb]) -> Reply:
        """The chunks that hold the range asked for, by default the whole file."""
        size = xorbs[0].file.size
        try:
            start, stop = parse_range(request.range, size) or (0, size)
        except ValueError:
            return Reply(416, {"Content-Range": f"bytes */{size}"}, {"error": "out of range"})
        terms: list[dict[str, Any]] = []
        fetches: dict[str, list[dict[str, Any]]] = {}
        for xorb in xorbs:
            first = max(xorb.first, start // CHUNK)
            last = min(xorb.last, -(-stop // CHUNK))
            if first >= last:
                continue
            chunks = {"start": first - xorb.first, "end": last - xorb.first}
            length = min(last * CHUNK, size) - first * CHUNK
            terms.append({"hash": xorb.hash, "unpacked_length": length, "range": chunks})
            begin = chunks["start"] * (CHUNK + HEADER)
            span = {"start": begin, "end": begin + length + (last - first) * HEADER - 1}
            url = self.signer.sign("xorbs", path, xorb.hash)
            fetches[xorb.hash] = [{"range": chunks, "url": url, "url_range": span}]
        return Reply(200, document={"offset_into_first_range": start % CHUNK, "terms": terms, "fetch_info": fetches})

    def _xorb(self, request: Request, hash_: str) -> Exchange:
        path, xorb = self._xorbs.get(hash_, ("", None))
        exchange = Exchange(request, "xorb", "", path)
        if xorb is None or not self.signer.good(request):
            exchange.reply = Reply(403)
            exchange.reply.text(EXPIRED, "application/xml")
            return exchange
        headers = {"ETag": f'"{hash_[:32]}-1"', "Accept-Ranges": "bytes"}
        exchange.reply = serve(request, xorb.content, headers, "application/octet-stream")
        return exchange

    # -- how xorbs are made

    def _cut(self, file: Content) -> list[Xorb]:
        chunks = -(-file.size // CHUNK)
        xorbs = []
        for first in range(0, chunks, self._per_xorb):
            last = min(first + self._per_xorb, chunks)
            hash_ = hashlib.sha256(f"xorb {file.sha256} {first} {last}".encode()).hexdigest()
            xorbs.append(Xorb(hash_, file, first, last, self._pack(file, first, last, hash_)))
        return xorbs

    def _pack(self, file: Content, first: int, last: int, hash_: str) -> Content:
        """The chunks behind their headers: in memory where the file is, else in a file, to be sent as fast as that."""
        if file.path is None:
            return plain(b"".join(_packed(file, index) for index in range(first, last)))
        path = self._folder / f"xorb-{hash_}"
        size = min(last * CHUNK, file.size) - first * CHUNK + (last - first) * HEADER
        if not path.exists() or path.stat().st_size != size:
            making = path.with_suffix(f".{secrets.token_hex(4)}")
            with making.open("wb") as out:
                out.writelines(_packed(file, index) for index in range(first, last))
            making.replace(path)
        return Content(size, "", "", path=path)


def _packed(file: Content, index: int) -> bytes:
    """One chunk: version 0, stored as it is (scheme 0), its length before and after."""
    data = file.read(index * CHUNK, min((index + 1) * CHUNK, file.size))
    length = struct.pack("<I", len(data))[:3]
    return b"\0" + length + b"\0" + length + data
