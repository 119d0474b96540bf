"""The story of a download in lines for the log."""

from __future__ import annotations

import logging

from mlx_manager.domain import words
from mlx_manager.domain.download import Download
from mlx_manager.domain.progress import percent

logger = logging.getLogger("mlx_manager.services.downloads")


def accepted(d: Download) -> None:
    asked = d.request
    patterns = "".join(
        f", {name} {' '.join(chosen)}"
        for name, chosen in (("only", asked.allow_patterns), ("without", asked.ignore_patterns))
        if chosen
    )
    place = f"; {words.ordinal(d.place)} in line" if d.place else ""
    _info(d, "Accepted: %s at %s%s%s.", d.model_id, asked.revision, patterns, place)


def begun(d: Download) -> None:
    here = f", {words.size(d.downloaded_bytes)} of it here already" if d.downloaded_bytes else ""
    _info(d, "Begun: %s, attempt %d%s.", d.model_id, d.attempt, here)


def asked_again(d: Download) -> None:
    _info(d, "Asked for again: %s is %s already.", d.model_id, d.status)


def paused(d: Download) -> None:
    _info(d, "Paused: %s at %.1f %%; all that was received is kept.", d.model_id, _percent(d))


def held_up(d: Download) -> None:
    logger.warning("Paused by itself: %s %s", d.error, d.advice, extra={"task_id": d.task_id})


def resumed(d: Download) -> None:
    _info(d, "Resumed: %s at %.1f %%.", d.model_id, _percent(d))


def recovered(d: Download, what: str) -> None:
    _info(d, "Found from before: %s, %s at %.1f %%; %s.", d.model_id, d.status, _percent(d), what)


def cancelled(d: Download) -> None:
    _info(d, "%s %s", d.message, d.model_id)


def completed(d: Download) -> None:
    _info(d, "Done: %s, %s: %s", d.model_id, words.size(d.total_bytes), d.message)


def failed(d: Download) -> None:
    logger.error("Failed: %s: %s (%s) %s", d.model_id, d.error, d.error_code, d.advice, extra={"task_id": d.task_id})


def _percent(d: Download) -> float:
    return percent(d.downloaded_bytes, d.total_bytes)


def _info(d: Download, message: str, *values: object) -> None:
    logger.info(message, *values, extra={"task_id": d.task_id})
