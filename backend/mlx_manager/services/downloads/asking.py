"""Asking the Hub for a download's plan until it answers, with an estimate for those who wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from mlx_manager.domain import words
from mlx_manager.domain.catalog import ModelRequest, estimate_size
from mlx_manager.domain.download import SizeEstimated, Waiting
from mlx_manager.domain.plan import Plan
from mlx_manager.domain.states import Phase
from mlx_manager.errors import DownloadSuperseded, HubRateLimited, HubTimeout, MlxManagerError
from mlx_manager.services.ports import Hub, Report

AGAIN_FIRST_S = 1.0
AGAIN_MAX_S = 10.0
"""A Hub that comes back is noticed within this time."""
SAID_EVERY_S = 1.0
TOLD_AFTER_S = 4.0
"""Silence is told after so long, and from then on each second."""
TOLD_AGAIN_S = 60.0
"""The same trouble is told in the log so often."""


class Asking:
    """One download's question. ``size_check_s``: after so long the watchers get an estimate of the size, and the asking
    goes on; a single question takes no longer either."""

    def __init__(
        self,
        hub: Hub,
        request: ModelRequest,
        report: Report,
        logger: logging.LoggerAdapter[Any],
        *,
        size_check_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._hub = hub
        self._request = request
        self._report = report
        self._logger = logger
        self._size_check_s = size_check_s
        self._clock = clock
        self._begun = clock()
        self._phase = Phase.LISTING
        # What happens next, and when; the name's size, once it is needed.
        self._next_at = self._begun + size_check_s
        self._about = ""
        self._silence: asyncio.TimerHandle | None = None
        self._asked_at = 0.0
        self._told: tuple[str, float] | None = None

    async def until_answered(self) -> Plan:
        """Raises the Hub's answer where it will not pass: a MlxManagerError that is not transient."""
        self._logger.info("asking the Hub for the files of %s at %s", self._request.model_id, self._request.revision)
        timer = asyncio.get_running_loop().call_later(self._size_check_s, self._estimate)
        pause = AGAIN_FIRST_S
        try:
            while True:
                try:
                    return await self._ask()
                except MlxManagerError as error:
                    if not error.transient:
                        raise
                    # Silence has been waited for already, and says nothing of how long it will go on.
                    wait = AGAIN_FIRST_S if isinstance(error, HubTimeout) else pause
                    await self._wait(error, wait)
                    if wait == pause:
                        pause = min(pause * 2, AGAIN_MAX_S)
                self._phase = Phase.WAITING_FOR_HUB
        finally:
            timer.cancel()

    async def _ask(self) -> Plan:
        loop = asyncio.get_running_loop()
        self._asked_at = loop.time()
        if self._about:
            self._next_at = self._clock() + self._size_check_s
        self._say(self._phase, self._question, self._next_at)
        self._silence = loop.call_later(TOLD_AFTER_S, self._tell_silence)
        try:
            return await self._hub.plan(self._request)
        finally:
            if self._silence is not None:
                self._silence.cancel()
                self._silence = None

    @property
    def _question(self) -> str:
        return f"Asking the Hub for the files of {self._request.model_id}."

    def _tell_silence(self) -> None:
        """Now, and each second until the question ends."""
        loop = asyncio.get_running_loop()
        left = self._next_at - self._clock()
        then = "Asked anew" if self._about else "Its size is estimated"
        said = f"{self._question} No full answer for {words.duration(loop.time() - self._asked_at)}{self._about}."
        said += f" {then} in {words.duration(left)}." if left > 0 else ""
        try:
            self._say(Phase.WAITING_FOR_HUB, said, self._next_at if left > 0 else None)
        except DownloadSuperseded:
            self._logger.info("another worker has taken over")
            return
        self._silence = loop.call_later(SAID_EVERY_S, self._tell_silence)

    async def _wait(self, error: MlxManagerError, wait: float) -> None:
        phase = Phase.RETRYING
        if isinstance(error, HubRateLimited):
            phase = Phase.RATE_LIMITED
            wait = max(wait, error.retry_after_s or 0.0)
        self._tell(error.detail, wait)
        loop = asyncio.get_running_loop()
        until, deadline = loop.time() + wait, self._clock() + wait
        # Said anew as the time goes by: a sentence that counts must not stand still.
        while (left := until - loop.time()) > 0:
            said = f"{error.detail} Asked again in {words.duration(left)}."
            self._say(phase, said, deadline, error.advice)
            await asyncio.sleep(min(SAID_EVERY_S, left))

    def _tell(self, what: str, wait: float) -> None:
        """In the log: what is new, and that it lasts."""
        now = self._clock()
        news = self._told is None or self._told[0] != what or now - self._told[1] >= TOLD_AGAIN_S
        self._logger.log(logging.WARNING if news else logging.DEBUG, "%s Asked again in %.0f s", what, wait)
        if news:
            self._told = (what, now)

    def _estimate(self) -> None:
        size = estimate_size(self._request.model_id)
        about = f"by its name it has about {words.size(size)}" if size else "its name does not tell the size"
        self._logger.warning("the Hub has not told the size in %.0f s; %s", self._size_check_s, about)
        self._about = f"; {about}"
        asked_for_s = asyncio.get_running_loop().time() - self._asked_at
        self._next_at = self._clock() + self._size_check_s - asked_for_s
        try:
            self._report(SizeEstimated(self._clock(), size))
        except DownloadSuperseded:
            self._logger.info("another worker has taken over")
            return
        if self._silence is not None:
            self._silence.cancel()
            self._tell_silence()

    def _say(self, phase: Phase, message: str, deadline: float | None, advice: str | None = None) -> None:
        self._report(Waiting(self._clock(), phase, message, deadline, advice))
