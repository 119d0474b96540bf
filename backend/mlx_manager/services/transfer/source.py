"""Where the bytes of one file come from: the Hub's address, and the one that the Hub sends on to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

MAX_REDIRECTS = 8
REFUSAL = 2
"""So many failures in passing one refusal weighs: who has not got a file is asked for it less often."""
REST_S = 30.0
"""So long a place that failed is asked only where no other is well."""


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


class Health:
    """Which of the places that files are to be had from failed lately: what one file finds out counts for all files of
    a download."""

    def __init__(self) -> None:
        self._failed_at: dict[str, float] = {}

    def failed(self, url: str) -> None:
        self._failed_at[urlsplit(url).netloc] = time.monotonic()

    def is_well(self, url: str) -> bool:
        failed_at = self._failed_at.get(urlsplit(url).netloc)
        return failed_at is None or time.monotonic() - failed_at >= REST_S


class Source:
    """Keeps the resolved address until it is refused. The token goes to the Hub's own host, and there only if
    ``token_for(url)`` gives one. ``mirrors``: where else the same file is to be had, in order. After each failure the
    place that has given this file the least trouble is asked, so none is left out for ever. Whatever they send is
    verified like the Hub's."""

    def __init__(
        self,
        url: str,
        token_for: Callable[[str], str | None],
        mirrors: Sequence[str] = (),
        health: Health | None = None,
    ) -> None:
        self._health = health or Health()
        self._hub_url = url
        self._token_for = token_for
        self._places = (url, *mirrors)
        self._place = 0
        self._begun = False
        self._troubles = [0] * len(self._places)
        self._refusals = [0] * len(self._places)
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

    def resolve_again(self, address: Address, *, ailing: bool = False) -> None:
        """``address`` is not good any more: the next place is asked for a new one, unless that has happened already.
        ``ailing``: it is the place that fails, and not this file that it refuses."""
        if address is not self.address:
            return
        place = self._place
        # Where bytes came from, an address has run out, or some were wrong: that may pass too.
        self._troubles[place] += 1 if ailing or address.resolved else REFUSAL
        # What a mirror refuses it seldom has of the other files: they begin elsewhere too.
        if ailing or place:
            self._health.failed(self._places[place])
        # Itself last: another one is at hand, and it needs time.
        order = [(place + step) % len(self._places) for step in range(1, len(self._places) + 1)]
        self._move(min(order, key=lambda other: (self._troubles[other], not self._is_well(other))))

    def refused(self, most: int) -> int | None:
        """It refuses this file, in a row without a range from anywhere. How often that was, when it is the end of it:
        when the Hub has said so more than ``most`` times, or everybody has and all together as often."""
        self._refusals[self._place] += 1
        asked = sum(self._refusals)
        agreed = all(self._refusals) and asked > max(most, len(self._places))
        return asked if agreed or self._refusals[0] > most else None

    def worked(self) -> None:
        """A range came: what was before it counts no longer."""
        self._troubles = [0] * len(self._places)
        self._refusals = [0] * len(self._places)

    def begin(self) -> None:
        """Before the first request, if other files have found out by then that the Hub ails: the first place that is
        well is asked."""
        if self._begun:
            return
        self._begun = True
        well = next(filter(self._is_well, range(len(self._places))), 0)
        if well:
            self._move(well)

    def _is_well(self, place: int) -> bool:
        return self._health.is_well(self._places[place])

    def _move(self, place: int) -> None:
        self._place = place
        # A mirror is another host than the Hub's: it gets no token, and its word on access is not final.
        mirror = place > 0
        self.address = Address(self._places[place], signed=mirror, mirror=mirror)
