"""What a transfer says of itself: the phase, and a sentence that tells what it waits for and what comes next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_manager.domain import words
from mlx_manager.domain.states import Phase
from mlx_manager.services.transfer.gathering import Gathering, Stage, Trouble
from mlx_manager.services.transfer.limits import TransferLimits


@dataclass(frozen=True, slots=True)
class Moment:
    """What the narrator looks at. ``now`` and the moments in it are of the steady clock, in seconds.

    ``silent_s``: for how long bytes were owed on open connections and none came. ``waits_for``: what keeps files from
    being asked for now. ``crawls_at``: bytes per second of all connections, where that is none to speak of;
    ``measured_at``: when those are replaced that crawl.
    """

    now: float
    files: Sequence[Gathering]
    connections: int
    received: int
    silent_s: float
    replace_at: float
    waits_for: Trouble | None
    crawls_at: float | None = None
    measured_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Saying:
    """``deadline`` on the steady clock: when it will do something of itself. ``advice``: what the person can do."""

    phase: Phase
    message: str
    deadline: float | None = None
    advice: str | None = None


def narrate(m: Moment, limits: TransferLimits) -> Saying:
    stages: set[Stage] = {file.stage for file in m.files if file.stage is not Stage.DONE}
    if m.connections == 0 and m.waits_for is not None:
        return _waiting(m.waits_for, m.now)
    if stages and stages <= {Stage.LOCKED_OUT}:
        name = next(file.job.path for file in m.files if file.stage is Stage.LOCKED_OUT)
        return Saying(Phase.WAITING_FOR_LOCK, f"Another program is fetching {name}; waiting until it is done.")
    if m.connections == 0:
        return _quiet(m, stages)
    active = [file for file in m.files if file.active]
    trouble = next((file.trouble for file in active if file.trouble is not None), None)
    went = f" Before that: {trouble.reason}" if trouble else ""
    went += _came_wrong(active, limits)
    advice = trouble.advice if trouble else None
    if m.silent_s >= limits.told_after_s:
        again = max(0.0, m.replace_at - m.now)
        return Saying(
            Phase.STALLED,
            f"No byte for {words.duration(m.silent_s)}; a new connection in {words.duration(again)}.{went}",
            m.replace_at,
            advice,
        )
    if m.crawls_at is not None:
        again = max(0.0, m.measured_at - m.now)
        return Saying(
            Phase.STALLED,
            f"Only {words.size(m.crawls_at)}/s over {words.count(m.connections, 'connection')}; "
            f"new ones in {words.duration(again)}.{went}",
            m.measured_at,
            advice,
        )
    what = active[0].job.path if len(active) == 1 else words.count(len(active), "file")
    # After its wait a file is connecting until a byte of it came.
    if m.received == 0 or all(file.trouble is not None and file.trouble.until <= m.now for file in active):
        return Saying(Phase.CONNECTING, f"Connecting to fetch {what}.{went}", advice=advice)
    over = words.count(m.connections, "connection")
    return Saying(Phase.TRANSFERRING, f"Receiving {what} over {over}.{_came_wrong(active, limits)}")


def _came_wrong(files: Sequence[Gathering], limits: TransferLimits) -> str:
    """Why bytes that were here are fetched again."""
    wrong = next((file for file in files if file.hash_failures), None)
    if wrong is None:
        return ""
    tried = f"{words.ordinal(wrong.hash_failures + 1)} try of {limits.hash_attempts}"
    return f" {wrong.job.path} had wrong bytes (its hash differs): they are found and fetched again, {tried}."


def _waiting(trouble: Trouble, now: float) -> Saying:
    wait = max(0.0, trouble.until - now)
    if trouble.rate_limited:
        goes_on = f"{trouble.reason} Goes on in {words.duration(wait)}."
        return Saying(Phase.RATE_LIMITED, goes_on, trouble.until, trouble.advice)
    tries = f" ({words.ordinal(trouble.tries)} try in a row)" if trouble.tries > 1 else ""
    again = f"{trouble.reason} Tried again in {words.duration(wait)}{tries}."
    return Saying(Phase.RETRYING, again, trouble.until, trouble.advice)


def _quiet(m: Moment, stages: set[Stage]) -> Saying:
    if not stages:
        return Saying(Phase.HASHING, "Everything is here and its bytes are right.")
    if owed := next((file for file in m.files if file.owed), None):
        return Saying(Phase.CONNECTING, f"Connecting to fetch {owed.job.path}.")
    if checking := next((file for file in m.files if file.stage is Stage.CHECKING), None):
        return Saying(Phase.HASHING, f"{checking.job.path} is here already; checking its bytes.")
    if stages & {Stage.FETCHING, Stage.PUBLISHING}:
        return Saying(Phase.HASHING, "Checking and putting away what was received.")
    return Saying(Phase.CONNECTING, "Looking at what is here already.")
