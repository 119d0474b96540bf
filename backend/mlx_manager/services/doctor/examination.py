"""Checks, each bounded in time: one that hangs is told of and left behind, and holds up only those that need it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from mlx_manager.domain.diagnosis import Finding, Level, skipped, wrong
from mlx_manager.errors import MlxManagerError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """``look()`` finds something out, on a thread of its own, within ``within_s`` seconds; what it raises is a finding
    too. ``after``: names of checks that must have gone well enough for this one to make sense. ``timed``: how long it
    took says something."""

    name: str
    title: str
    look: Callable[[], Finding]
    within_s: float
    after: Sequence[str] = ()
    timed: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    check: Check
    finding: Finding
    took_s: float


@dataclass(frozen=True, slots=True)
class Pending:
    """A check that is at work. ``result()`` waits for it, within its limit and those of the ones it comes after."""

    check: Check
    result: Callable[[], Result]


def examine(checks: Sequence[Check]) -> list[Pending]:
    """Begin all of them, side by side; ``after`` names earlier ones."""
    results: dict[str, Future[Result]] = {}
    for check in checks:
        result: Future[Result] = Future()
        before = [results[name] for name in check.after]
        # Daemons: a disk or a resolver that never answers must not keep the process.
        threading.Thread(target=_conduct, args=(check, before, result), name=check.name, daemon=True).start()
        results[check.name] = result
    return [Pending(check, results[check.name].result) for check in checks]


def _conduct(check: Check, before: Sequence[Future[Result]], result: Future[Result]) -> None:
    for earlier in before:
        found = earlier.result()
        if found.finding.level in (Level.WRONG, Level.SKIPPED):
            # Said once, by the one that stands in the way.
            result.set_result(Result(check, skipped(_because(found)), 0.0))
            return
    begun = time.monotonic()
    finding: Future[Finding] = Future()
    threading.Thread(target=_look, args=(check, finding), name=f"{check.name} looks", daemon=True).start()
    try:
        found_out = finding.result(check.within_s)
    except TimeoutError:
        found_out = wrong(f"no answer within {check.within_s:g} s")
    result.set_result(Result(check, found_out, time.monotonic() - begun))


def _because(found: Result) -> str:
    if found.finding.level is Level.SKIPPED:
        return found.finding.said
    return f"not asked, because of {found.check.title}"


def _look(check: Check, finding: Future[Finding]) -> None:
    try:
        found = check.look()
    except MlxManagerError as error:
        found = wrong(error.detail.rstrip("."), error.advice)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        found = wrong(f"{where}{error.strerror or type(error).__name__}")
    except Exception as error:
        log.debug("The check %s broke.", check.name, exc_info=True)
        found = wrong(f"the check itself broke: {type(error).__name__}: {error}")
    finding.set_result(found)
