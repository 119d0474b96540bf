"""What the Hub answers, over the way that the product takes: its API, who we are to it, a byte of a file, Xet."""

from __future__ import annotations

import email.utils
import re
import ssl
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote, urljoin, urlsplit

import httpx2

from mlx_manager.domain.diagnosis import Finding, well, wrong
from mlx_manager.domain.hub_checks import NO_TOKEN, Bytes, XetFacts, judge_bytes, judge_clock, judge_token, judge_xet

MODELS = 5
HOPS = 5
_XET_AUTH = re.compile(r'<([^>]+)>\s*;\s*rel="?xet-auth"?')
LOGIN_ADVICE = "A proxy or a login page may answer in the Hub's place: open the Hub in a browser."


class HubAnswers:
    """``token``: the person's, for the Hub alone; it goes with no question but whose it is. ``proxy_for``: the way a
    URL is asked. Each answer is waited for ``timeout_s`` seconds; `api` comes first, the others go by what it found."""

    def __init__(
        self,
        endpoint: str,
        *,
        trust: ssl.SSLContext,
        timeout_s: float,
        token: Callable[[], str | None],
        user_agent: str,
        platform: str,
    ) -> None:
        self._endpoint = endpoint
        self._token = token
        self._platform = platform
        # The environment's proxies are httpx2's own business.
        self._http = httpx2.Client(verify=trust, timeout=timeout_s, headers={"User-Agent": user_agent})
        self._timeout_s = timeout_s
        self._models: list[str] = []
        self._ahead_s: float | None = None
        self._xet: tuple[str, str] | None = None

    def close(self) -> None:
        self._http.close()

    def api(self) -> Finding:
        """A question that the Hub answers to everybody."""
        query = {"filter": "mlx", "sort": "downloads", "limit": str(MODELS), "full": "false"}
        try:
            answer = self._http.get(f"{self._endpoint}/api/models", params=query)
        except httpx2.HTTPError as error:
            return wrong(self._said(error))
        if answer.status_code != 200:
            advice = "Its own page may know more: https://status.huggingface.co" if answer.status_code >= 500 else None
            return wrong(f"it answers with {answer.status_code}", advice or LOGIN_ADVICE)
        try:
            found = answer.json()
            self._models = [str(model["id"]) for model in found if not model.get("gated")]
        except (ValueError, TypeError, KeyError, AttributeError):
            return wrong("what answers is not the Hub's API", LOGIN_ADVICE)
        dated = email.utils.parsedate_tz(answer.headers.get("Date", ""))
        if dated is not None:
            self._ahead_s = time.time() - email.utils.mktime_tz(dated)
        return well("answers")

    def clock(self) -> Finding:
        """This machine's clock against the Hub's answer."""
        if self._ahead_s is None:
            return well("the Hub did not tell its time")
        return judge_clock(self._ahead_s, self._platform)

    def whoami(self) -> Finding:
        """Whose the token is. Raises TokenRejected for one that cannot be read."""
        token = self._token()
        if token is None:
            return NO_TOKEN
        try:
            answer = self._http.get(f"{self._endpoint}/api/whoami-v2", headers=_bearer(token))
        except httpx2.HTTPError as error:
            return wrong(self._said(error))
        try:
            whoami = answer.json()
        except ValueError:
            whoami = None
        return judge_token(answer.status_code, whoami, self._endpoint)

    def file_byte(self) -> Finding:
        """The first byte of a public file, from wherever the Hub sends us."""
        try:
            found = self._a_file()
            return judge_bytes(None if found is None else self._first_byte(found))
        except httpx2.HTTPError as error:
            return wrong(self._said(error), "The Hub answers, but not the place that sends its files.")

    def xet(self, *, off: bool, first: bool) -> Finding:
        """Whether the store for Xet answers, for the file that `file_byte` has asked for."""
        if off or self._xet is None:
            return judge_xet(XetFacts(off=off, offered=False))
        hash_, token_url = self._xet
        asked_whom = self._endpoint
        try:
            told = self._http.get(token_url).json()
            asked_whom, token = str(told["casUrl"]), str(told["accessToken"])
            answer = self._http.get(f"{asked_whom}/v1/reconstructions/{hash_}", headers=_bearer(token))
        except httpx2.HTTPError as error:
            return judge_xet(XetFacts(first=first, problem=f"{_host(asked_whom)}: {self._said(error)}"))
        except (ValueError, KeyError, TypeError):
            return judge_xet(XetFacts(first=first, problem="the Hub gives out no token for it"))
        host = _host(asked_whom)
        problem = None if answer.status_code < 400 else f"{host} answers with {answer.status_code}"
        return judge_xet(XetFacts(first=first, host=host, problem=problem))

    def mirror(self, url: str) -> Finding:
        """Whether a mirror answers at all; what it serves is verified file by file."""
        try:
            answer = self._http.get(url)
        except httpx2.HTTPError as error:
            return wrong(f"{url}: {self._said(error)}", "Correct it in MLX_MANAGER_MIRRORS, or leave it out there.")
        if answer.status_code >= 500:
            return wrong(f"{url} answers with {answer.status_code}", "Ask who runs it.")
        return well(f"{url} answers")

    # -- a file to try with

    def _a_file(self) -> str | None:
        """The URL of the smallest large file of one of the models; its kind is what the CDN and Xet hold."""
        for model in self._models:
            answer = self._http.get(f"{self._endpoint}/api/models/{quote(model)}/tree/main")
            if answer.status_code != 200:
                continue
            try:
                large = [entry for entry in answer.json() if entry.get("lfs")]
                if large:
                    path = str(min(large, key=lambda entry: int(entry["size"]))["path"])
                    return f"{self._endpoint}/{quote(model)}/resolve/main/{quote(path)}"
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return None

    def _first_byte(self, url: str) -> Bytes:
        for _ in range(HOPS):
            asked = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
            with self._http.stream("GET", url, headers=asked) as answer:
                self._note_xet(url, answer.headers)
                status, place = answer.status_code, answer.headers.get("Location")
                if not answer.is_redirect or place is None:
                    return Bytes(_host(url), status, len(next(answer.iter_raw(1), b"")))
            url = urljoin(url, place)
        raise httpx2.TooManyRedirects("in a circle")

    def _note_xet(self, url: str, headers: Mapping[str, str]) -> None:
        hash_, link = headers.get("X-Xet-Hash"), _XET_AUTH.search(headers.get("Link", ""))
        if hash_ and link and re.fullmatch(r"[0-9a-f]{64}", hash_):
            self._xet = hash_, urljoin(url, link[1])

    def _said(self, error: httpx2.HTTPError) -> str:
        """Without an address, which may be signed, and without a proxy's password."""
        if isinstance(error, httpx2.TimeoutException):
            return f"no answer within {self._timeout_s:g} s"
        cause: BaseException = error
        while deeper := cause.__cause__ or cause.__context__:
            cause = deeper
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        if isinstance(error, httpx2.ProxyError):
            return f"the proxy does not let us through: {str(error)[:60]}"
        if isinstance(error, httpx2.TooManyRedirects):
            return "it redirects in a circle"
        if isinstance(error, httpx2.RemoteProtocolError):
            return "it does not speak HTTP as it should"
        return type(error).__name__


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
