"""What came again after each blow, to the byte: from the hub's log of what it sent, and when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from fakes.hub_message import parse_range

SYNCED_S = 2.0
"""Bytes are made durable once a second (see transfer/limits.py), and the disk needs its time for that: what came longer
ago than so many seconds must be there after a blow."""
BUFFERED = 4 << 20
"""Bytes that the hub has sent and that lie in the buffers of connections."""
UNREAD = 512 << 10
"""Bytes that the hub has sent and nobody took, of a connection that was let go before its end: half of its range was
given to another one, or it was too slow, or it broke."""

Record = Mapping[str, Any]
Spans = dict[str, list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Lived:
    """One life of the server, on the machine's steady clock; the hub's log has the same. ``killed``: it ended with a
    blow. ``number``: 0 for the last of a round, which nobody hurts."""

    number: int
    born_at: float
    died_at: float
    killed: bool = True

    def own(self, records: Iterable[Record]) -> list[Record]:
        """Those that were asked for in this life."""
        return [record for record in records if self.born_at <= record["at"] <= self.died_at]


@dataclass(frozen=True, slots=True)
class Loss:
    """Of one blow, in bytes. ``pieces``: requests that were under way at the blow or not long before; ``brought``: what
    they had brought by then; ``lost``: what of it came again; ``settled``: what came again of all that had come
    before them, which is nothing where nothing is forgotten."""

    life: Lived
    pieces: int
    brought: int
    lost: int
    settled: int
    forgotten: Sequence[str] = ()
    """The files that the settled bytes belong to, each with how many of them."""

    def beyond(self, line_bps: int) -> list[str]:
        """What of it should not be, in words. ``line_bps``: bytes per second that can come at most."""
        allowed = min(self.brought, int(SYNCED_S * line_bps) + BUFFERED)
        wrong = []
        if self.lost > allowed:
            wrong.append(f"life {self.life.number}: {self.lost} bytes came again, and {allowed} had been on their way")
        if self.settled:
            wrong.append(
                f"life {self.life.number}: {self.settled} bytes came again that had been here for long"
                f" ({', '.join(self.forgotten)})"
            )
        return wrong


def losses(records: Sequence[Record], lives: Sequence[Lived]) -> list[Loss]:
    """Of each life that ended with a blow; ``records``: of files' bytes, in all lives until everything was there."""
    found = []
    for life in lives:
        if not life.killed:
            continue
        own = life.own(records)
        under_way = [record for record in own if record["sent"] and _is_under_way(record, life.died_at)]
        later = spans(record for record in records if record["at"] > life.died_at)
        lost = common(spans(under_way), later)
        brought = total(spans(under_way))
        taken = spans(chain(under_way, map(_as_taken, own)))
        settled = common(taken, later) - lost
        forgotten = _forgotten(taken, spans(under_way), later) if settled else ()
        found.append(Loss(life, len(under_way), brought, lost, settled, forgotten))
    return found


def _forgotten(own: Spans, under_way: Spans, later: Spans) -> Sequence[str]:
    def of(some: Spans, name: str) -> Spans:
        return {name: some[name]} if name in some else {}

    counts = {name: common(of(own, name), later) - common(of(under_way, name), later) for name in own}
    return [f"{name}: {count}" for name, count in counts.items() if count]


def came_twice(records: Sequence[Record], lives: Iterable[Lived]) -> int:
    """Bytes that came again within one life, whatever became of it: no blow explains them."""
    each = (life.own(records) for life in lives)
    return sum(sum(record["sent"] for record in own) - total(spans(own)) for own in each)


def spans(records: Iterable[Record]) -> Spans:
    """What they brought of each file or xorb: from, to, in order, without overlap."""
    found: Spans = defaultdict(list)
    for record in records:
        if not record["sent"]:
            continue
        start, _ = (record["status"] == 206 and parse_range(record["range"], record["size"])) or (0, 0)
        # A xorb has no repo: it is known by its address.
        found[f"{record['repo']} {record['file']}" if record["repo"] else record["path"]].append(
            (start, start + record["sent"])
        )
    return {name: _merged(some) for name, some in found.items()}


def total(of: Spans) -> int:
    return sum(stop - start for start, stop in chain.from_iterable(of.values()))


def common(one: Spans, other: Spans) -> int:
    """Bytes that are in both."""
    both = {name: _merged([*some, *other.get(name, ())]) for name, some in one.items()}
    theirs = {name: other[name] for name in one if name in other}
    return total(one) + total(theirs) - total(both)


def _merged(some: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for start, stop in sorted(some):
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


def _as_taken(record: Record) -> Record:
    """Less what of it may never have been read."""
    if record["outcome"] == "sent":
        return record
    return {**record, "sent": max(0, record["sent"] - UNREAD)}


def _is_under_way(record: Record, died_at: float) -> bool:
    # A piece of Xet's is several xorbs, which hf_xet holds until the last of them is there; when that was we are not
    # told. So all of them count, against the bound on how much can have come.
    if "xorb" in record["labels"] or record["ended_at"] is None:
        return True
    return bool(record["ended_at"] > died_at - SYNCED_S)
