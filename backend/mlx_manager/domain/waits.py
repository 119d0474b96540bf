"""How long a server asks its clients to wait, out of the headers of its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST_S = 86_400.0
_RATE_LIMIT = re.compile(r'"[^"]*"((?:\s*;\s*\w+\s*=\s*\d+)+)')
_PARAMETER = re.compile(r";\s*(\w+)\s*=\s*(\d+)")


def asked_wait_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait, a day at most; None when nothing was asked. ``now`` in seconds since 1970.

    ``headers`` must find names whatever their case. ``Retry-After`` may be a number of seconds or an HTTP date; the
    Hub says it in ``RateLimit: "api";r=0;t=55``, which counts only when nothing remains (``r=0``). Of two, the longer.
    """
    waits = [
        wait
        for wait in (_retry_after(headers.get("retry-after", ""), now), _rate_limit(headers.get("ratelimit", "")))
        if wait is not None
    ]
    return min(max(waits), LONGEST_S) if waits else None


def _retry_after(value: str, now: float) -> float | None:
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _rate_limit(value: str) -> float | None:
    """The longest ``t`` of the limits with nothing left; there may be several, parted by commas."""
    waits = []
    for parameters in _RATE_LIMIT.findall(value):
        fields = dict(_PARAMETER.findall(parameters))
        if fields.get("r") == "0" and "t" in fields:
            waits.append(float(fields["t"][:9]))
    return max(waits, default=None)
