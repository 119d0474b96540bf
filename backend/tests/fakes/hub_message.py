"""What travels through the hub: a request, the reply to it, and how that reply is to be delivered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from fakes.hub_blobs import Content, plain
from fakes.hub_gate import Gate


@dataclass(frozen=True)
class Request:
    """One request as it was read. Header names are lower case; `target` is what stood on the request line."""

    port: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int
    client_port: int
    keep_alive: bool

    @cached_property
    def raw_path(self) -> str:
        """The path as it was sent, percent-encoding and all."""
        return urlsplit(self.target).path if not self.target.startswith("//") else self.target.split("?", 1)[0]

    @cached_property
    def segments(self) -> list[str]:
        """The path's parts, decoded after the split, so that a revision may hold an encoded slash."""
        return [unquote(part) for part in self.raw_path.split("/")[1:]]

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The query's values by name."""
        return parse_qs(self.target.partition("?")[2], keep_blank_values=True)

    def ask(self, name: str, default: str = "") -> str:
        """Return the query's first value for `name`."""
        return self.query.get(name, [default])[0]

    def flag(self, name: str) -> bool:
        """Tell whether the query switches `name` on."""
        return self.ask(name).lower() in ("1", "true", "yes")

    @property
    def token(self) -> str | None:
        """The bearer token that came along, if one did."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" else None

    @property
    def range(self) -> str | None:
        """The Range header as sent."""
        return self.headers.get("range")


@dataclass
class Body:
    """The part of a content that is sent, from `start` up to `stop`, with `extra` bytes behind it.

    `flips` maps offsets in the whole content to the mask that is xored onto the byte there.
    """

    content: Content
    start: int
    stop: int
    flips: dict[int, int] = field(default_factory=dict)
    extra: bytes = b""

    def __len__(self) -> int:
        return self.stop - self.start + len(self.extra)

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes by their place in this body, as they are to be sent."""
        middle = self.stop - self.start
        data = bytearray(self.content.read(self.start + start, self.start + min(stop, middle)))
        for offset, mask in self.flips.items():
            if start <= offset - self.start < start + len(data):
                data[offset - self.start - start] ^= mask
        if stop > middle:
            data += self.extra[max(0, start - middle) : stop - middle]
        return bytes(data)

    def spoiled(self, start: int, stop: int) -> bool:
        """Tell whether these bytes of the body differ from the content's, so that they can't come from its file."""
        if stop > self.stop - self.start:
            return True
        return any(start <= offset - self.start < stop for offset in self.flips)


class Pacer(Protocol):
    """Decides when the next bytes may go."""

    step: int
    """The most bytes to send at once."""

    def reserve(self, nbytes: int) -> float:
        """Take the next `nbytes`' turn and return the seconds to wait for it."""


@dataclass(frozen=True)
class Hold:
    """Wait for `seconds`, or for as long as it takes (None), but no longer than until `gate` opens."""

    seconds: float | None
    gate: Gate


@dataclass(frozen=True)
class Mark:
    """At this many bytes of the body: hold, or, without a hold, end the connection by a reset or a plain close."""

    at: int
    hold: Hold | None = None
    reset: bool = False


@dataclass
class Delivery:
    """What stands between a reply and the wire. Nothing set: as fast as it goes."""

    holds: list[Hold] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    pacers: list[Pacer] = field(default_factory=list)
    drop: bool = False
    """Reset the connection in place of an answer."""


@dataclass
class Reply:
    """An answer in the making. `document` becomes the JSON body when there is no `body`; Content-Length follows."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    document: Any = None
    body: Body | None = None
    delivery: Delivery = field(default_factory=Delivery)

    def seal(self) -> Body:
        """Return the body, writing the document into one first."""
        if self.body is None:
            if self.document is not None:
                self.headers.setdefault("Content-Type", "application/json; charset=utf-8")
            self.body = whole(plain(self._encoded()))
        return self.body

    def length(self) -> int:
        """Return how long the body is, or would be, without settling it."""
        return len(self.body) if self.body is not None else len(self._encoded())

    def _encoded(self) -> bytes:
        if self.document is None:
            return b""
        # Half of a surrogate pair, which JSON can spell, is spelled as JSON does.
        return json.dumps(self.document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")

    def text(self, text: str | bytes, content_type: str) -> None:
        """Make `text` the body."""
        self.body = whole(plain(text.encode() if isinstance(text, str) else text))
        self.headers["Content-Type"] = content_type


@dataclass
class Exchange:
    """A request, what it was understood to want, and the reply. `route` is the name that a fault's `where` matches."""

    request: Request
    route: str
    repo: str = ""
    file: str = ""
    reply: Reply = field(default_factory=lambda: Reply(200))

    @property
    def labels(self) -> set[str]:
        """All names that a `where` may call this exchange by: the port, the route, `content` for a file's bytes."""
        labels = {self.request.port, self.route}
        if self.file and self.request.method == "GET" and self.reply.status in (200, 206):
            labels.add("content")
        return labels

    @property
    def name(self) -> str:
        """What a `path` pattern matches: the file in its repo, or else the path of the URL."""
        return self.file or "/" + "/".join(self.request.segments)


class HubError(Exception):
    """An answer that is an error in the Hub's manner: a status with X-Error-Code and X-Error-Message."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message

    def reply(self) -> Reply:
        """Return the error as a reply."""
        headers = {"X-Error-Message": self.message}
        if self.code:
            headers["X-Error-Code"] = self.code
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
        return Reply(self.status, headers, {"error": self.message})


def whole(content: Content) -> Body:
    """Return all of `content` as a body."""
    return Body(content, 0, content.size)


_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the range asked for as (start, stop); None when there is none to honour (absent, malformed, several).

    Raises ValueError when the range lies outside the content.
    """
    match = _RANGE.match(header.replace(" ", "")) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or start >= stop:
        raise ValueError(header)
    return start, stop
