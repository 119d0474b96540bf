"""Who we are to the Hub."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """``token_source``: "HF_TOKEN" or "file"; ``can_read_gated``: the token may, where access was granted; None where
    the Hub does not say. ``error`` with ``advice``: why nobody is logged in although there is a token."""

    logged_in: bool
    name: str | None = None
    kind: str | None = None
    token_source: str | None = None
    can_read_gated: bool | None = None
    error: str | None = None
    advice: str | None = None
