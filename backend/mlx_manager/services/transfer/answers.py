"""Judging an answer before a byte of it is written."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urljoin, urlsplit

from mlx_manager.errors import (
    AccessDenied,
    FileGone,
    GatedModel,
    MlxManagerError,
    SourceBusy,
    SourceChanged,
    SourceRateLimited,
    SourceRefused,
    SourceRejected,
    SourceTrouble,
    TokenMissing,
    TokenRejected,
)
from mlx_manager.services.transfer.source import Address
from mlx_manager.services.transfer.wire import Head

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", re.ASCII)
_NO_RANGE = re.compile(r"bytes \*/(\d{1,18})", re.ASCII)
_LIMIT_RESET = re.compile(r"(?:^|[;,\s])t=(\d{1,18})", re.ASCII)
_IN_A_URL = "!#$%&'()*+,/:;=?@[]~"
REDIRECTS = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True)
class Range:
    """The asked-for range comes."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The range was ignored: the whole file comes, from its first byte."""


@dataclass(frozen=True, slots=True)
class Redirect:
    url: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """``resolve_again``: the address may be stale, ask the Hub for a new one."""

    error: MlxManagerError
    resolve_again: bool = False


Verdict = Range | Whole | Redirect | Refusal


def judge(head: Head, address: Address, wanted: tuple[int, int], size: int) -> Verdict:
    """``address`` is the one that was asked, ``wanted`` half-open."""
    host, signed = address.host, address.signed
    status = head.status
    if status in REDIRECTS:
        return _redirect(head, address.url, host)
    if status in (200, 206):
        return _body(head, host, wanted, size)
    if status == 429 or (status == 503 and "retry-after" in head.headers):
        wait = retry_after(head.headers)
        asked = f", asks to wait {wait:.0f} s" if wait is not None else ""
        return Refusal(SourceRateLimited(f"{host} limits the rate ({status}){asked}.", retry_after_s=wait))
    if status >= 500 or status == 408:
        # Another server may be better off: a signed address is asked for anew.
        kind = SourceBusy if status == 503 else SourceTrouble
        return Refusal(kind(f"{host} answered {status}."), resolve_again=signed)
    if address.mirror and status not in (416,):
        return Refusal(SourceRefused(f"The mirror {host} answered {status}."), True)
    if signed and status in (400, 401, 403, 404, 410) and "x-error-code" not in head.headers:
        return Refusal(SourceRefused(f"{host} answered {status}: the address it was given has expired."), True)
    if status == 416 and (signed or _total(head) in (None, size)):
        return Refusal(SourceRefused(f"{host} will not give bytes {wanted[0]}-{wanted[1] - 1} ({status})."), True)
    return Refusal(_denial(head, status, address), False)


def retry_after(headers: dict[str, str]) -> float | None:
    """Seconds that the server asks for: Retry-After (number or date) or the ``t=`` of RateLimit; a day at most."""
    value = headers.get("retry-after", "").strip()
    wait: float | None = None
    if value.isascii() and value.isdigit():
        wait = float(value)
    elif value:
        try:
            wait = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            wait = None
    elif match := _LIMIT_RESET.search(headers.get("ratelimit", "")):
        wait = float(match[1])
    return None if wait is None else min(max(wait, 0.0), 86_400.0)


def _redirect(head: Head, url: str, host: str) -> Verdict:
    nowhere = Refusal(SourceRefused(f"{host} redirects to nowhere."), resolve_again=True)
    # Headers come as latin-1; what is no ASCII in an address was meant as the bytes it is.
    asked = quote(head.headers.get("location", "").encode("latin-1"), safe=_IN_A_URL)
    try:
        location = urljoin(url, asked)
        parts = urlsplit(location)
        _ = parts.port  # raises when it is no number
    except ValueError:
        return nowhere
    if parts.scheme not in ("http", "https") or not parts.hostname or not asked or location == url:
        return nowhere
    if urlsplit(url).scheme == "https" and parts.scheme == "http":
        return Refusal(SourceRejected(f"{host} redirects to an address without TLS; it is not followed."))
    return Redirect(location)


def _body(head: Head, host: str, wanted: tuple[int, int], size: int) -> Verdict:
    encoding = head.headers.get("content-encoding", "identity").lower()
    if encoding not in ("", "identity"):
        return Refusal(SourceRefused(f"{host} sent the file encoded ({encoding}), though it was asked not to."), True)
    if head.status == 200:
        length = head.headers.get("content-length")
        if length is not None and length != str(size):
            return Refusal(SourceRefused(f"{host} sent {length} bytes where the Hub says {size}."), True)
        return Range() if wanted == (0, size) else Whole()
    match = _CONTENT_RANGE.fullmatch(head.headers.get("content-range", ""))
    if match is None:
        return Refusal(SourceRefused(f"{host} answered 206 without saying which range."), True)
    start, last, total = int(match[1]), int(match[2]), match[3]
    if total not in ("*", str(size)):
        return Refusal(SourceRefused(f"{host} says the file has {total} bytes, the Hub says {size}."), True)
    if (start, last + 1) != wanted:
        return Refusal(
            SourceRefused(f"{host} sent bytes {start}-{last} where {wanted[0]}-{wanted[1] - 1} were asked."), True
        )
    return Range()


def _total(head: Head) -> int | None:
    """The size that a 416 tells."""
    match = _NO_RANGE.fullmatch(head.headers.get("content-range", ""))
    return int(match[1]) if match else None


def _denial(head: Head, status: int, address: Address) -> MlxManagerError:
    code, host = head.headers.get("x-error-code", ""), address.host
    if code == "GatedRepo":
        return GatedModel(f"{host} gives this file only to people who were granted access.")
    if status == 401 and address.with_token:
        return TokenRejected(f"{host} does not accept the token ({status}).")
    if code == "RepoNotFound":
        # A stranger is told the same of a model that is gone and of one that he may not see.
        hidden = "" if address.with_token else ", or it is private now and nobody is logged in here"
        return FileGone(f"{host} has no such model any more{hidden} ({status}).")
    if status == 401:
        return TokenMissing(f"{host} wants to know who asks ({status}).")
    if status == 403:
        return AccessDenied(f"{host} does not give this file to this account ({status}).")
    if status in (404, 410):
        return FileGone(f"{host} does not have this file any more ({status}).")
    if status == 416:
        return SourceChanged(f"{host} says the file is shorter than the Hub's listing ({status}).")
    return SourceRejected(f"{host} answered {status}.")


def check_etag(head: Head, expected: str) -> SourceChanged | None:
    """The Hub names the content (X-Linked-ETag, or ETag of a small file): it must be the one that was planned."""
    named = head.headers.get("x-linked-etag") or head.headers.get("etag", "")
    etag = named.removeprefix("W/").strip('"')
    if len(etag) == len(expected) and etag != expected:
        return SourceChanged("The Hub names another content for this file than its listing did.")
    return None
