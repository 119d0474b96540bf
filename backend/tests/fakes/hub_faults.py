"""Faults: what can go wrong on the way from the Hub, each switched on by a rule while the hub runs.

A fault changes a reply that is otherwise right, or how it is delivered, so several may strike one request: a slow
link with a flipped bit in it. `where`, `path` and the rest of a rule say which requests it strikes.
"""

from __future__ import annotations

import gzip as gzip_format
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fakes.hub_blobs import plain
from fakes.hub_gate import Gate
from fakes.hub_message import Body, Exchange, Hold, Mark, Reply, whole
from fakes.hub_pace import Line, Trickle

Strike = Callable[[Exchange, Gate], None]
Applies = Callable[[Exchange], bool]


def _always(exchange: Exchange) -> bool:
    return True


def _sends(after: int = 0) -> Applies:
    """Strike only answers that succeed and have a body longer than `after`, so that `times` counts what happened."""

    def applies(exchange: Exchange) -> bool:
        reply = exchange.reply
        return exchange.request.method == "GET" and reply.status in (200, 206) and reply.length() > after

    return applies


def _json(exchange: Exchange) -> bool:
    return exchange.reply.status == 200 and exchange.reply.document is not None


def _content(exchange: Exchange) -> bool:
    return "content" in exchange.labels and exchange.reply.body is not None


def _partial(exchange: Exchange) -> bool:
    return exchange.reply.status == 206


def _tree(exchange: Exchange) -> bool:
    return exchange.route == "tree" and isinstance(exchange.reply.document, list)


@dataclass(frozen=True)
class Fault:
    """One kind of fault. Build it with the methods below; `applies` tells which replies it can strike at all.

    Where a fault waits, `seconds=None` means until its handle is released or cleared; then the answer goes on as if
    nothing had been. A hold also ends when the peer leaves or the hub stops.
    """

    name: str
    strike: Strike
    applies: Applies = _always

    # -- time

    @staticmethod
    def black_hole() -> Fault:
        """Accept, read the request, and say nothing."""
        return Fault("black_hole", lambda x, gate: x.reply.delivery.holds.append(Hold(None, gate)))

    @staticmethod
    def delay(seconds: float | None = None) -> Fault:
        """Answer only after `seconds`; also the latency of a link when the rule strikes everything."""
        return Fault("delay", lambda x, gate: x.reply.delivery.holds.append(Hold(seconds, gate)))

    @staticmethod
    def stall(after: int = 0, seconds: float | None = None) -> Fault:
        """Send `after` bytes of the body, then hold the connection open in silence."""
        return Fault(
            "stall",
            lambda x, gate: x.reply.delivery.marks.append(Mark(after, Hold(seconds, gate))),
            _sends(after),
        )

    @staticmethod
    def trickle(nbytes: int, every: float) -> Fault:
        """Send `nbytes` of the body every so many seconds: enough to keep an idle timer quiet."""
        return Fault("trickle", lambda x, _: x.reply.delivery.pacers.append(Trickle(nbytes, every)), _sends())

    @staticmethod
    def rate(bytes_per_second: float, shared: bool = False) -> Fault:
        """Cap the rate of each response, or, `shared`, of all that the rule strikes together: one line for all."""
        line = Line(bytes_per_second) if shared else None
        return Fault("rate", lambda x, _: x.reply.delivery.pacers.append(line or Line(bytes_per_second)), _sends())

    # -- the connection

    @staticmethod
    def drop() -> Fault:
        """Read the request, then reset the connection without a word."""
        return Fault("drop", lambda x, _: setattr(x.reply.delivery, "drop", True))

    @staticmethod
    def reset(after: int = 0) -> Fault:
        """Reset the connection (RST) once the peer's kernel has `after` bytes of the body."""
        return Fault("reset", lambda x, _: x.reply.delivery.marks.append(Mark(after, reset=True)), _sends(after))

    @staticmethod
    def wears_out(after: int) -> Fault:
        """Reset each connection once `after` bytes of bodies were asked of it, in one answer or over many."""
        left: dict[int, int] = {}

        def applies(exchange: Exchange) -> bool:
            if not _sends()(exchange):
                return False
            connection, length = exchange.request.connection, exchange.reply.length()
            left[connection] = left.get(connection, after) - length
            return left[connection] < 0

        def strike(exchange: Exchange, _: Gate) -> None:
            at = max(0, exchange.reply.length() + left[exchange.request.connection])
            exchange.reply.delivery.marks.append(Mark(at, reset=True))

        return Fault("wears_out", strike, applies)

    @staticmethod
    def short_body(after: int = 0) -> Fault:
        """Announce all, send `after` bytes, close as if that were all."""
        return Fault("short_body", lambda x, _: x.reply.delivery.marks.append(Mark(after)), _sends(after))

    @staticmethod
    def long_body(extra: int = 1, announced: bool = False) -> Fault:
        """Send `extra` bytes too many; `announced`, Content-Length counts them too."""

        def strike(exchange: Exchange, _: Gate) -> None:
            body = exchange.reply.seal()
            if not announced:
                exchange.reply.headers.setdefault("Content-Length", str(len(body)))
            body.extra += b"\xa5" * extra

        return Fault("long_body", strike, _sends())

    # -- the status line and the headers

    @staticmethod
    def status(
        code: int,
        retry_after: str | int | None = None,
        error_code: str | None = None,
        message: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Fault:
        """Answer with an error; `error_code` and `message` become X-Error-Code and X-Error-Message."""
        fields = dict(headers or {})
        for field, value in (("Retry-After", retry_after), ("X-Error-Code", error_code), ("X-Error-Message", message)):
            if value not in (None, ""):
                # A header cannot hold all that the JSON can.
                fields[field] = str(value).encode("latin-1", "replace").decode("latin-1")
        return Fault("status", lambda x, _: _replace(x, Reply(code, dict(fields), {"error": message or f"{code}"})))

    @staticmethod
    def rate_limited(retry_after: int | None = None, reset: int | None = None, limit: int = 500) -> Fault:
        """Answer 429 with Retry-After, with the Hub's RateLimit headers (`reset` seconds), with both or neither."""
        headers = {}
        if reset is not None:
            headers["RateLimit"] = f'"api";r=0;t={reset}'
            headers["RateLimit-Policy"] = f'"fixed window";"api";q={limit};w=300'
        return Fault.status(429, retry_after=retry_after, message="Too Many Requests", headers=headers)

    @staticmethod
    def header(name: str, value: str | None) -> Fault:
        """Set a header of successful answers and redirects to something else, or leave it out."""

        def strike(exchange: Exchange, _: Gate) -> None:
            headers = exchange.reply.headers
            for key in [key for key in headers if key.lower() == name.lower()]:
                del headers[key]
            if value is not None:
                headers[name] = value

        return Fault(f"header {name}", strike, lambda x: x.reply.status < 400)

    @staticmethod
    def etag(value: str = "changed") -> Fault:
        """Say that the file is another one: a changed ETag (and X-Linked-ETag, where there is one)."""

        def strike(exchange: Exchange, _: Gate) -> None:
            for name in ("ETag", "X-Linked-ETag"):
                if name in exchange.reply.headers:
                    exchange.reply.headers[name] = f'"{value}"'

        return Fault("etag", strike, lambda x: "ETag" in x.reply.headers)

    @staticmethod
    def content_length(delta: int) -> Fault:
        """Announce a body longer or shorter than the one that is sent, then close."""

        def strike(exchange: Exchange, _: Gate) -> None:
            exchange.reply.headers["Content-Length"] = str(max(0, len(exchange.reply.seal()) + delta))
            exchange.reply.headers["Connection"] = "close"

        return Fault("content_length", strike, _sends())

    @staticmethod
    def wrong_range(shift: int = 1) -> Fault:
        """Send a range that lies `shift` bytes away from the one asked for, and say so in Content-Range."""

        def strike(exchange: Exchange, _: Gate) -> None:
            body = exchange.reply.body
            assert body is not None
            start = max(0, min(body.start + shift, body.content.size - 1))
            body.start, body.stop = start, min(start + len(body), body.content.size)
            _content_range(exchange.reply, body, body.content.size)

        return Fault("wrong_range", strike, _partial)

    @staticmethod
    def wrong_total(delta: int = 1) -> Fault:
        """Give a wrong total in Content-Range."""

        def strike(exchange: Exchange, _: Gate) -> None:
            body = _body(exchange)
            _content_range(exchange.reply, body, body.content.size + delta)

        return Fault("wrong_total", strike, _partial)

    @staticmethod
    def ignore_range() -> Fault:
        """Answer 200 with all of the file to a request for a part of it."""

        def strike(exchange: Exchange, _: Gate) -> None:
            reply = exchange.reply
            reply.status, reply.body = 200, whole(_body(exchange).content)
            reply.headers.pop("Content-Range", None)

        return Fault("ignore_range", strike, _partial)

    @staticmethod
    def unsatisfiable() -> Fault:
        """Answer 416 to a range that is fine."""

        def strike(exchange: Exchange, _: Gate) -> None:
            _replace(exchange, Reply(416, {"Content-Range": f"bytes */{_body(exchange).content.size}"}))

        return Fault("unsatisfiable", strike, _content)

    @staticmethod
    def expired_url() -> Fault:
        """Answer as the CDN and the store of xorbs do when the signed URL has expired."""

        def strike(exchange: Exchange, _: Gate) -> None:
            reply = Reply(403)
            reply.text(EXPIRED, "application/xml")
            _replace(exchange, reply)

        return Fault("expired_url", strike, lambda x: x.route in ("cdn", "xorb"))

    @staticmethod
    def redirect_loop() -> Fault:
        """Redirect to the same place, for ever."""
        return Fault("redirect_loop", lambda x, _: _replace(x, Reply(302, {"Location": x.request.target})))

    # -- the body

    @staticmethod
    def flip(offset: int, mask: int = 1) -> Fault:
        """Flip bits of the byte at this offset of the file; strikes only answers that carry the byte."""

        def strike(exchange: Exchange, _: Gate) -> None:
            _body(exchange).flips[offset] = mask

        def applies(exchange: Exchange) -> bool:
            return _content(exchange) and _body(exchange).start <= offset < _body(exchange).stop

        return Fault("flip", strike, applies)

    @staticmethod
    def other_content() -> Fault:
        """Send bytes of another file of the same size, zeros."""

        def strike(exchange: Exchange, _: Gate) -> None:
            body = _body(exchange)
            body.content = plain(bytes(body.content.size))

        return Fault("other_content", strike, _content)

    @staticmethod
    def gzip() -> Fault:
        """Compress a body that was asked for as it is."""

        def strike(exchange: Exchange, _: Gate) -> None:
            body = exchange.reply.seal()
            exchange.reply.body = whole(plain(gzip_format.compress(body.read(0, len(body)))))
            exchange.reply.headers["Content-Encoding"] = "gzip"

        return Fault("gzip", strike, _sends())

    @staticmethod
    def html(status: int = 200) -> Fault:
        """Answer with a web page, as a captive portal or a proxy does."""

        def strike(exchange: Exchange, _: Gate) -> None:
            reply = Reply(status)
            reply.text("<!doctype html><title>Welcome</title><p>Please log in to this network.", "text/html")
            _replace(exchange, reply)

        return Fault("html", strike)

    @staticmethod
    def bad_json(text: str = '{"sha": oops]') -> Fault:
        """Answer with something that is not JSON and says that it is."""
        return Fault("bad_json", lambda x, _: x.reply.text(text, "application/json"), _json)

    @staticmethod
    def truncated_json() -> Fault:
        """Break the JSON off in the middle, with a Content-Length that agrees."""

        def strike(exchange: Exchange, _: Gate) -> None:
            body = exchange.reply.seal()
            body.stop = max(1, body.stop // 2)

        return Fault("truncated_json", strike, _json)

    @staticmethod
    def edit_json(edit: Callable[[Any], Any]) -> Fault:
        """Replace the JSON document by what `edit` makes of it."""
        return Fault("edit_json", lambda x, _: setattr(x.reply, "document", edit(x.reply.document)), _json)

    @staticmethod
    def empty_tree() -> Fault:
        """List a repo as if it held nothing."""
        return Fault("empty_tree", lambda x, _: setattr(x.reply, "document", []), _tree)

    @staticmethod
    def tree_names(*names: str) -> Fault:
        """Add files with these names to the listing, for names that no repo should be able to hold."""

        def strike(exchange: Exchange, _: Gate) -> None:
            exchange.reply.document = [
                *exchange.reply.document,
                *({"type": "file", "oid": f"{n:040x}", "size": 1, "path": name} for n, name in enumerate(names, 1)),
            ]

        return Fault("tree_names", strike, _tree)


EXPIRED = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
)


def _body(exchange: Exchange) -> Body:
    assert exchange.reply.body is not None
    return exchange.reply.body


def _replace(exchange: Exchange, reply: Reply) -> None:
    """Answer something else, however that is delivered: another fault may have had its say in it."""
    reply.delivery = exchange.reply.delivery
    exchange.reply = reply


def _content_range(reply: Reply, body: Body, total: int) -> None:
    reply.headers["Content-Range"] = f"bytes {body.start}-{body.stop - 1}/{total}"
