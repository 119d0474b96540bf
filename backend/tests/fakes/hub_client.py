"""A client that hides nothing, to look at the hub with: http.client, no redirects, no retries, no decoding."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit


@dataclass
class Answer:
    """One answer, byte for byte; `all` are the answers to a request that was sent several times."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    all: list[Answer] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """Return a header's value."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def fetch(
    url: str,
    *,
    method: str = "GET",
    range: str | None = None,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: str | None = None,
    again: int = 0,
    timeout: float = 20,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send one request and read its answer, `again` and again on the same connection."""
    sent = {"Accept-Encoding": "identity", **(headers or {})}
    if range is not None:
        sent["Range"] = range
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    parts = urlsplit(url)
    assert parts.hostname is not None
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            parts.hostname, parts.port, timeout=timeout, context=tls
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    answers = []
    try:
        for _ in [None] * (again + 1):
            connection.request(method, f"{parts.path}?{parts.query}" if parts.query else parts.path, body, sent)
            response = connection.getresponse()
            answers.append(Answer(response.status, response.getheaders(), response.read()))
    finally:
        connection.close()
    answers[-1].all = list(answers)
    return answers[-1]


def follow(
    url: str, *, tls: ssl.SSLContext | None = None, token: str | None = None, range: str | None = None
) -> Answer:
    """Send a GET and follow redirects; the token goes to the first host alone."""
    for _ in "123456789":
        answer = fetch(url, tls=tls, token=token, range=range)
        location = answer.header("Location")
        if location is None:
            return answer
        target = urljoin(url, location)
        token = token if urlsplit(target).netloc == urlsplit(url).netloc else None
        url = target
    raise RecursionError(url)
