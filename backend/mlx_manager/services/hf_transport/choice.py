"""Which proxy a URL is fetched through, for those who fetch without httpx2 and must choose as it does."""

from __future__ import annotations

import httpx2

from mlx_manager.services.hf_transport.proxies import environment_proxies
from mlx_manager.services.hf_transport.question import origin_of


class ProxyChoice:
    """``choice(url)``: the URL of the proxy (it may hold a password), or None for the direct way. From any thread.

    The environment is looked at once, when this is made. httpx2 itself chooses: it sends a request that is answered
    before it gets anywhere. What it chose for a scheme, host and port holds for all their URLs.
    """

    def __init__(self) -> None:
        mounts: dict[str, httpx2.BaseTransport | None] = {
            pattern: _Sign(proxy) for pattern, proxy in environment_proxies().items()
        }
        self._client = httpx2.Client(transport=_Sign(None), mounts=mounts, trust_env=False)
        self._chosen: dict[tuple[str, str, int], str | None] = {}

    def __call__(self, url: str) -> str | None:
        origin = origin_of(url)
        if origin not in self._chosen:
            self._chosen[origin] = self._client.get(url).extensions["proxy"]
        return self._chosen[origin]


class _Sign(httpx2.BaseTransport):
    """Stands where a way begins, and says which it is."""

    def __init__(self, proxy: str | None) -> None:
        self._proxy = proxy

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, extensions={"proxy": self._proxy})
