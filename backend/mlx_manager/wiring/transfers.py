"""How the bytes of a download are fetched: engines, limits, mirrors, and whose token goes where."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from mlx_manager.errors import HubTrouble, TokenRejected
from mlx_manager.services.hf_client import HubClient
from mlx_manager.services.ports import FileJob, Transfer, VerifiedBlobs
from mlx_manager.services.transfer import (
    Caps,
    ConnectionPool,
    CurlTransfer,
    FailoverTransfer,
    Policy,
    TransferLimits,
    WireOptions,
    XetOptions,
    XetTransfer,
    asks_the_system,
    ca_bundle,
    sweep_xet,
)
from mlx_manager.settings import Settings

logger = logging.getLogger(__name__)

TOKEN_KEPT_S = 1.0
"""A login counts after this time for the bytes too: they are asked for up to a thousand times a second."""


class Transfers:
    """Makes the transfer of each download; all share one pool of connections and one cap. ``hide`` is told each secret
    that must not get into the log."""

    def __init__(
        self,
        settings: Settings,
        hub: HubClient,
        verified: VerifiedBlobs,
        *,
        user_agent: str,
        hide: Callable[[str | None], None],
    ) -> None:
        self.caps = Caps(settings.bandwidth or None)
        self._settings = settings
        self._hub = hub
        self._verified = verified
        self._user_agent = user_agent
        self._hide = hide
        self._pool = ConnectionPool(settings.total_connections)
        self._token: str | None = None
        self._token_read_at = -TOKEN_KEPT_S

    def make(self, task_id: str, jobs: Sequence[FileJob]) -> Transfer:
        """`services.ports.MakeTransfer`."""
        wire = WireOptions(
            user_agent=self._user_agent,
            connect_timeout_s=self._settings.hub_timeout_s,
            proxy_for=self._hub.proxy_for,
            ca_file=ca_bundle(),
            native_ca=asks_the_system(),
        )
        limits = TransferLimits(connections=self._settings.connections, stall_s=self._settings.stall_s)
        throttles = (self.caps.all, self.caps.of(task_id))

        def by_ranges(some: Sequence[FileJob]) -> Transfer:
            return CurlTransfer(
                task_id,
                some,
                limits=limits,
                wire=wire,
                token_for=self._token_for,
                verified=self._verified,
                pool=self._pool,
                throttles=throttles,
                mirrors_of=self._mirrors_of,
            )

        def by_xet(some: Sequence[FileJob]) -> Transfer:
            return XetTransfer(
                task_id,
                some,
                limits=limits,
                options=xet_options(self._settings),
                token_for=self._token_for,
                verified=self._verified,
                scratch=self._settings.xet_folder,
                throttles=throttles,
            )

        policy = Policy(
            xet=self._settings.engine != "http" and not self._settings.hf_hub_disable_xet,
            xet_first=self._settings.engine == "xet",
        )
        return FailoverTransfer(task_id, jobs, by_ranges=by_ranges, by_xet=by_xet, policy=policy)

    def sweep(self) -> None:
        """Remove what engines may have left that were killed. While no transfer is under way."""
        sweep_xet(self._settings.xet_folder)

    def _mirrors_of(self, url: str) -> list[str]:
        """The same file at each of the mirrors, which lay their files out as the Hub does."""
        place = url.removeprefix(self._hub.endpoint)
        return [mirror + place for mirror in self._settings.mirrors]

    def _token_for(self, url: str) -> str | None:
        """The person's token, where the URL lies on the Hub itself; a CDN never gets it."""
        if not self._hub.owns(url):
            return None
        now = time.monotonic()
        if now - self._token_read_at < TOKEN_KEPT_S:
            return self._token
        try:
            self._token = self._hub.token()
            self._token_read_at = now
        except HubTrouble as error:
            # It was to be renewed and could not: the one from before may still do.
            logger.warning("%s %s", error.detail, error.advice)
        self._hide(self._token)
        return self._token

    def hide_token(self) -> None:
        try:
            self._hide(self._hub.token())
        except (TokenRejected, HubTrouble) as error:
            # What needs it will fail, and what needs none works.
            logger.warning("%s %s", error.detail, error.advice)


def xet_options(settings: Settings) -> XetOptions:
    """hf_xet gives up on a connection before we give up on it."""
    return XetOptions(
        connect_timeout_s=min(5.0, settings.hub_timeout_s),
        read_timeout_s=min(5.0, settings.stall_s / 2),
        patience_s=settings.stall_s * 1.5,
        telemetry=not settings.hf_hub_disable_telemetry,
    )
