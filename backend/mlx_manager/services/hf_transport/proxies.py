"""The proxies of the environment, by the rules of httpx2 (and so of `hf`), as mounts of a client."""

from __future__ import annotations

import ipaddress
import urllib.request

import httpx2

SCHEMES = ("http", "https", "all")


def environment_proxies() -> dict[str, str | None]:
    """URL pattern → URL of the proxy, None where the way is direct.

    HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY in either case; on macOS the system's settings where those are
    unset. A client that is given a transport looks at none of them, hence this.
    """
    found = urllib.request.getproxies()
    mounts: dict[str, str | None] = {}
    for scheme in SCHEMES:
        if proxy := found.get(scheme):
            mounts[f"{scheme}://"] = proxy if "://" in proxy else f"http://{proxy}"
    if not mounts:
        return {}
    for entry in (host.strip() for host in found.get("no", "").split(",")):
        if entry == "*":
            return {}
        pattern = _direct(entry)
        if pattern is not None and _is_pattern(pattern):
            mounts[pattern] = None
    return mounts


def _direct(entry: str) -> str | None:
    """The pattern of an entry of NO_PROXY: ``example.com`` means its subdomains too, ``.example.com`` only those."""
    if "://" in entry:
        return entry
    host, slash, prefix = entry.partition("/")
    host = host.removeprefix("[").removesuffix("]")
    try:
        network = ipaddress.ip_network(f"{host}/{prefix}" if slash else host, strict=False)
    except ValueError:
        if slash or not entry:
            return None
        exact = entry.lower() == "localhost" or entry.startswith("*.")
        return f"all://{entry}" if exact else f"all://*{entry}"
    host = f"[{host}]" if network.version == 6 else host
    return f"all://{host}/{prefix}" if slash else f"all://{host}"


def _is_pattern(pattern: str) -> bool:
    """Entries that cannot be understood are passed over, as curl does."""
    try:
        httpx2.Client(transport=httpx2.BaseTransport(), mounts={pattern: None}).close()
    except httpx2.InvalidURL:
        return False
    return True
