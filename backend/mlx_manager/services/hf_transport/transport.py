"""Requests to the Hub over bounded sockets, and the client that huggingface_hub is given."""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import httpcore2
import httpx2

from mlx_manager.domain.waits import asked_wait_s
from mlx_manager.errors import HubBadAnswer, HubError, HubRateLimited, HubServerError, HubTrouble, HubUnreachable
from mlx_manager.services.hf_transport.network import BoundedBackend
from mlx_manager.services.hf_transport.proxies import environment_proxies
from mlx_manager.services.hf_transport.question import Question, origin_of

log = logging.getLogger(__name__)

LARGEST_ANSWER = 32 << 20
"""Bytes of one answer of the API, on the wire. A thousand files make about 0.4 MB; more than this is no listing."""
KEEPALIVE_S = 5.0
PROXY_ADVICE = "Check HTTPS_PROXY, HTTP_PROXY and NO_PROXY, and the proxy's user and password."


def bounded_client() -> httpx2.Client:
    """A client for `huggingface_hub.set_client_factory`. Its requests need a current `Question`. Raises HubError."""
    trust = trusted()
    mounts: dict[str, httpx2.BaseTransport | None] = {
        pattern: None if proxy is None else _proxied(trust, proxy) for pattern, proxy in environment_proxies().items()
    }
    return httpx2.Client(transport=BoundedTransport(trust), mounts=mounts, follow_redirects=True, timeout=None)


def trusted() -> ssl.SSLContext:
    """Whose certificates are believed, by the rules of httpx2 (and so of `hf`). Raises HubError."""
    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        raise HubError(
            f"The certificates that are to be trusted cannot be read: {error.strerror or error}.",
            advice="Correct SSL_CERT_FILE and SSL_CERT_DIR, or unset them, then start again.",
        ) from error


class BoundedTransport(httpx2.BaseTransport):
    """Sends requests for the current question. What would pass by itself (429, 5xx, a broken way) is raised here as a
    HubTrouble: huggingface_hub knows nothing of those, so it does not try again behind its caller's back."""

    def __init__(self, trust: ssl.SSLContext, proxy: httpcore2.Proxy | None = None, proxy_name: str = "") -> None:
        self._proxy_name = proxy_name
        self._pool = httpcore2.ConnectionPool(
            ssl_context=trust,
            proxy=proxy,
            keepalive_expiry=KEEPALIVE_S,
            max_connections=None,
            network_backend=BoundedBackend(proxy_name or None),
        )

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        question = Question.current()
        if question is None:
            raise RuntimeError("the Hub is asked outside of a Question, where nothing would bound it")
        assert isinstance(request.stream, httpx2.SyncByteStream)
        url = request.url
        asked = httpcore2.Request(
            method=request.method,
            url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=_headers(request, question),
            content=request.stream,
            extensions=request.extensions,
        )
        started = time.monotonic()
        with self._failures(url.host):
            answer = self._pool.handle_request(asked)
        body = _BoundedBody(self, answer, url.host)
        response = httpx2.Response(answer.status, headers=answer.headers, stream=body, extensions=answer.extensions)
        took_ms = (time.monotonic() - started) * 1000
        log.debug("%s %s%s: %d in %.0f ms", request.method, url.host, url.path, answer.status, took_ms)
        trouble = self._trouble(response, url.host)
        if trouble is not None:
            response.close()
            raise trouble
        return response

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def _failures(self, host: str) -> Iterator[None]:
        """Name what goes wrong above the sockets."""
        try:
            yield
        except httpcore2.ProxyError as error:
            said = str(error)[:80]
            text = f"The proxy {self._proxy_name} did not let us through to {host}: {said}."
            raise HubUnreachable(text, advice=PROXY_ADVICE) from None
        except httpcore2.RemoteProtocolError as error:
            if "disconnected" in str(error) or "closed" in str(error):
                raise HubUnreachable(f"{host} closed the connection in the middle of its answer.") from error
            raise HubBadAnswer(f"{host} does not speak HTTP as it should.") from error
        except (httpcore2.LocalProtocolError, httpcore2.UnsupportedProtocol):
            # Without its own words: they may quote a header, and a header may be the token.
            raise HubBadAnswer(
                f"{host} cannot be asked: the address or a header of the request is malformed."
            ) from None

    def _trouble(self, response: httpx2.Response, host: str) -> HubTrouble | None:
        status = response.status_code
        if status == 429:
            wait = asked_wait_s(response.headers, time.time())
            asked = "" if wait is None else f" and asks to wait {wait:.0f} s"
            return HubRateLimited(f"{host} limits the rate of requests (429){asked}.", retry_after_s=wait)
        if status == 407:
            name = self._proxy_name or host
            return HubUnreachable(f"The proxy {name} wants a user and a password (407).", advice=PROXY_ADVICE)
        if status == 511:
            return HubBadAnswer("The network wants a login before it lets anything through (511).")
        if status >= 500 or status == 408:
            return HubServerError(f"{host} answered with an error of its own ({status}).")
        return None

    def read(self, answer: httpcore2.Response, host: str) -> Iterator[bytes]:
        """The body, with the failures of the way named and its length bounded."""
        assert isinstance(answer.stream, Iterable)
        size = 0
        with self._failures(host):
            for chunk in answer.stream:
                size += len(chunk)
                if size > LARGEST_ANSWER:
                    most = f"{LARGEST_ANSWER >> 20} MiB"
                    raise HubBadAnswer(f"{host} sent more than {most} where a listing was expected.")
                yield chunk


class _BoundedBody(httpx2.SyncByteStream):
    def __init__(self, transport: BoundedTransport, answer: httpcore2.Response, host: str) -> None:
        self._transport = transport
        self._answer = answer
        self._host = host

    def __iter__(self) -> Iterator[bytes]:
        return self._transport.read(self._answer, self._host)

    def close(self) -> None:
        self._answer.close()


class _NoTransport(httpx2.BaseTransport):
    """Stands for a proxy that cannot be used, and says so when it would be needed."""

    def __init__(self, why: str) -> None:
        self._why = why

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        raise HubUnreachable(self._why, advice=PROXY_ADVICE)


def _proxied(trust: ssl.SSLContext, address: str) -> httpx2.BaseTransport:
    try:
        proxy = httpx2.Proxy(address)
    except (ValueError, httpx2.InvalidURL):
        # Without the value itself: it may hold a password.
        return _NoTransport("The environment names a proxy that is not a URL.")
    url = proxy.url
    name = f"{url.host}:{url.port}" if url.port else url.host
    core = httpcore2.Proxy(
        url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        auth=proxy.raw_auth,
        headers=proxy.headers.raw,
        ssl_context=proxy.ssl_context,
    )
    if url.scheme.startswith("socks") and find_spec("socksio") is None:
        return _NoTransport(f"The SOCKS proxy {name} needs the Python package socksio: `pip install socksio`.")
    return BoundedTransport(trust, core, name)


def _headers(request: httpx2.Request, question: Question) -> list[tuple[bytes, bytes]]:
    """The request's headers; the token only for the Hub's own host, also when a listing's next page lies elsewhere."""
    headers: list[tuple[bytes, bytes]] = list(request.headers.raw)
    if origin_of(str(request.url)) != question.origin:
        headers = [(name, value) for name, value in headers if name.lower() != b"authorization"]
    return headers
