"""The rows of the matrix, and the groups that they stand in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from faults.machine import Need

if TYPE_CHECKING:
    from faults.scene import Scene

Act = Callable[["Scene"], None]

TOLD_S = 2.0
"""The promise: the real cause, so many seconds after it can be known."""
LITTLE = 256 * 1024
"""What may come twice where two connections share the rest of a file."""
STALL_S = 5.0
"""The promise: silence is told as such, so many seconds after the last byte."""


@dataclass(frozen=True)
class Row:
    """One fault. ``done``: what is done, for people; it names the row. ``act`` does it, and says of each thing that
    must be told or come true. ``promise_s``: within so many seconds of its being knowable the person must be told;
    later than that is reported as late. ``again``: at most so many bytes may come twice, None where that says nothing.
    ``lasts_s``: about so long, for the order in which they are run. ``quick``: `make test` runs it too."""

    group: str
    done: str
    act: Act
    promise_s: float
    again: int | None
    needs: tuple[Need, ...]
    lasts_s: float
    quick: bool

    @property
    def key(self) -> str:
        """The row's name for the command line: its function's."""
        return f"{self.group}.{self.act.__name__}"


GROUPS = {
    "metadata": "The Hub's answers",
    "content": "The bytes",
    "disk": "The disk and the machine",
    "people": "People",
}

_rows: dict[str, Row] = {}


def row(
    done: str,
    *,
    promise_s: float = TOLD_S,
    again: int | None = LITTLE,
    needs: Sequence[Need] = (),
    lasts_s: float = 5.0,
    quick: bool = False,
) -> Callable[[Act], Act]:
    """Put a function into the table; its module names the group."""

    def enter(act: Act) -> Act:
        group = act.__module__.rsplit(".", 1)[-1].partition("_")[0]
        one = Row(group, done, act, promise_s, again, tuple(needs), lasts_s, quick)
        assert group in GROUPS, group
        assert one.key not in _rows, one.key
        _rows[one.key] = one
        return act

    return enter


def rows() -> list[Row]:
    """All rows, in the order of the page."""
    from faults import load

    load()
    order = list(GROUPS)
    return sorted(_rows.values(), key=lambda one: order.index(one.group))
