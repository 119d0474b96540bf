"""Where the bytes of one file come from: the Hub's address, and the one that the Hub sends on to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_REDIRECTS = 8


@dataclass(slots=True, eq=False)
class Address:
    """One place to ask, and what its answers have shown. A request keeps the address it was sent to, since the file
    may have been given another one before the answer comes."""

    url: str
    signed: bool = False
    """On another host than the Hub's: given out for a while."""
    mirror: bool = False
    """A mirror, or where one sends on to: what it does not give, another place may."""
    redirects: int = 0
    etag: str | None = None
    """Under which bytes came; None until some did."""
    ignores_ranges: bool = False
    with_token: bool = False
    """The person's token went along."""

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def resolved(self) -> bool:
        """An answer has shown that bytes come from here: more requests may go there side by side."""
        return self.etag is not None

    def answered(self, etag: str) -> bool:
        """Bytes came under this ETag; False when it is another one than before."""
        if not self.etag:
            self.etag = etag
        return not etag or self.etag == etag


class Source:
    """Keeps the resolved address until it is refused. The token goes to the Hub's own host, and there only if
    ``token_for(url)`` gives one. ``mirrors``: where else the same file is to be had, in order; each refusal goes on to
    the next, and from the last back to the Hub. Whatever they send is verified like the Hub's."""

    def __init__(self, url: str, token_for: Callable[[str], str | None], mirrors: Sequence[str] = ()) -> None:
        self._hub_url = url
        self._token_for = token_for
        self._places = (url, *mirrors)
        self._place = 0
        self.address = Address(url)

    @property
    def has_mirrors(self) -> bool:
        return len(self._places) > 1

    def headers(self) -> list[str]:
        lines = ["Accept-Encoding: identity", "Accept: */*"]
        if not self.address.signed and (token := self._token_for(self.address.url)):
            lines.append(f"Authorization: Bearer {token}")
            self.address.with_token = True
        return lines

    def follow(self, address: Address, url: str) -> bool:
        """``address`` sends on to ``url``; False, and nothing moves, after too many of these in a row."""
        redirects = 1 if address.resolved else address.redirects + 1
        if redirects > MAX_REDIRECTS:
            return False
        if address is self.address:
            signed = urlsplit(url).netloc != urlsplit(self._hub_url).netloc
            self.address = Address(url, signed, address.mirror, redirects)
        return True

    def resolve_again(self, address: Address) -> None:
        """``address`` is not good any more: the next place is asked for a new one, unless that has happened already."""
        if address is self.address:
            self._place = (self._place + 1) % len(self._places)
            # A mirror is another host than the Hub's: it gets no token, and its word on access is not final.
            mirror = self._place > 0
            self.address = Address(self._places[self._place], signed=mirror, mirror=mirror)
