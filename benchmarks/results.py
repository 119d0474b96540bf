"""What was measured: single runs, and what several of them come to."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from benchmarks.workloads import Workload


class Verdict(StrEnum):
    """How a run ended, after a look at the files."""

    OK = "ok"
    FAILED = "failed"
    HUNG = "hung"
    WRONG_FILE = "wrong file"


@dataclass(frozen=True, slots=True)
class Run:
    """`wire_bytes`: what the hub sent for it. `struck`: how many faults it met."""

    workload: str
    contender: str
    round: int
    verdict: Verdict
    wall_s: float
    cpu_s: float
    peak_rss: int
    wire_bytes: int
    requests: int
    connections: int
    struck: int
    said: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """All runs of one contender under one workload. Medians are over the runs that ended well, None without any."""

    contender: str
    title: str
    checks_hash: bool
    runs: Sequence[Run]

    def median(self, of: Callable[[Run], float]) -> float | None:
        good = [of(run) for run in self.runs if run.verdict is Verdict.OK]
        return statistics.median(good) if good else None

    def spread(self, of: Callable[[Run], float]) -> tuple[float, float]:
        """The least and the most over the runs that ended well, of which there must be one."""
        good = [of(run) for run in self.runs if run.verdict is Verdict.OK]
        return min(good), max(good)

    @property
    def wall_s(self) -> float | None:
        return self.median(lambda run: run.wall_s)

    @property
    def cpu_s(self) -> float | None:
        return self.median(lambda run: run.cpu_s)

    @property
    def outcome(self) -> str:
        """One word, or how many runs ended in which way."""
        counts = {verdict: sum(run.verdict is verdict for run in self.runs) for verdict in Verdict}
        met = [(verdict, count) for verdict, count in counts.items() if count]
        if len(met) == 1:
            return str(met[0][0])
        return ", ".join(f"{verdict} {count} of {len(self.runs)}" for verdict, count in met)


@dataclass
class Report:
    """`skipped`: who took no part, and why; by the contender's title, or by the workload's."""

    scale: float
    rounds: int
    workloads: list[Workload] = field(default_factory=list)
    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def row(self, workload: str, contender: str) -> Row | None:
        return self.rows.get((workload, contender))

    def rows_of(self, workload: str) -> list[Row]:
        return [row for (name, _), row in self.rows.items() if name == workload]
