"""What is to be reached: ratios of medians within one run, and one absolute number.

Ours has two rows. `pull` in a process of its own pays for its start, as `hf download` does; a server that runs is what
the page and the API use. The goals are held against both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.results import Report, Row

SERVER_RSS_LIMIT = 200_000_000
OURS = ("ours", "server")
PEERS = {
    "hf": "`hf download` (HTTP)",
    "hf-xet": "`hf download` with Xet",
    "aria2c": "`aria2c -x8 -s8`",
    "curl": "`curl -Z` and `sha256sum`",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """`is_met` is None where nothing was measured; `text` then says why."""

    text: str
    is_met: bool | None


@dataclass(frozen=True, slots=True)
class Judged:
    """One line of the table of goals; `figures` by which of ours they are."""

    what: str
    against: str
    limit: str
    figures: Mapping[str, Figure]


@dataclass(frozen=True, slots=True)
class AgainstPeer:
    """Ours divided by the peer's, wall time or CPU seconds, at most `limit`."""

    workload: str
    peer: str
    limit: float
    measure: str = "wall"

    def judge(self, report: Report) -> Judged:
        what = f"{_title(report, self.workload)}, {'CPU seconds' if self.measure == 'cpu' else 'wall'}"
        return Judged(what, PEERS[self.peer], f"{self.limit:g}", {name: self._figure(report, name) for name in OURS})

    def _figure(self, report: Report, name: str) -> Figure:
        ours, theirs = (self._value(report.row(self.workload, one)) for one in (name, self.peer))
        if not ours or not theirs:
            return Figure(_why(report, self.workload, (name, self.peer)), None)
        return Figure(f"{ours / theirs:.2f}", ours / theirs <= self.limit)

    def _value(self, row: Row | None) -> float | None:
        if row is None:
            return None
        return row.cpu_s if self.measure == "cpu" else row.wall_s


@dataclass(frozen=True, slots=True)
class AgainstClean:
    """Ours under trouble, at most `factor` times ours on the clean link and `plus_s` seconds more."""

    workload: str
    factor: float
    plus_s: float
    clean: str = "clean-4x64"

    def judge(self, report: Report) -> Judged:
        times = "" if self.factor == 1 else f"{self.factor:g} × "
        limit = f"{times}clean + {self.plus_s:g} s"
        figures = {name: self._figure(report, name) for name in OURS}
        return Judged(f"{_title(report, self.workload)}, wall", "ours, clean", limit, figures)

    def _figure(self, report: Report, name: str) -> Figure:
        walls = []
        for workload in (self.workload, self.clean):
            row = report.row(workload, name)
            if row is None or row.wall_s is None:
                return Figure(_why(report, workload, (name,)), None)
            walls.append(row.wall_s)
        troubled, clean = walls
        limit = self.factor * clean + self.plus_s
        return Figure(f"{troubled:.2f} of {limit:.2f} s", troubled <= limit)


@dataclass(frozen=True, slots=True)
class ServerMemory:
    """The highest peak of the whole server over all runs of all workloads."""

    limit: int = SERVER_RSS_LIMIT

    def judge(self, report: Report) -> Judged:
        peaks = [run.peak_rss for row in report.rows.values() if row.contender == "server" for run in row.runs]
        figure = Figure("not measured", None)
        if any(peaks):
            figure = Figure(f"{max(peaks) / 1e6:.0f} MB", max(peaks) <= self.limit)
        return Judged("highest peak RSS", "absolute", f"{self.limit / 1e6:.0f} MB", {"server": figure})


Goal = AgainstPeer | AgainstClean | ServerMemory

GOALS: tuple[Goal, ...] = (
    AgainstPeer("clean-4x64", "hf", 0.4),
    AgainstPeer("clean-8x256", "hf", 0.5),
    AgainstPeer("clean-4x64", "hf-xet", 0.7),
    AgainstPeer("clean-8x256", "hf-xet", 0.7),
    AgainstPeer("clean-8x256", "aria2c", 0.7),
    AgainstPeer("clean-8x256", "curl", 1.0),
    AgainstPeer("clean-8x256", "hf", 0.55, measure="cpu"),
    AgainstPeer("small", "hf", 0.25),
    AgainstPeer("small-50ms", "hf", 0.2),
    AgainstPeer("cap-4x64", "hf", 0.3),
    AgainstPeer("cap-1x1024", "hf", 0.15),
    AgainstClean("slow-shard", 1.5, 1),
    AgainstClean("stalled-shard", 1.5, 1),
    AgainstClean("resets", 1.5, 1),
    AgainstClean("network-gone", 1, 8),
    AgainstPeer("first-byte", "hf", 0.5),
    ServerMemory(),
)


def judge(report: Report) -> list[Judged]:
    """Every goal about a workload that was run."""
    ran = {workload.name for workload in report.workloads}
    goals = [goal for goal in GOALS if isinstance(goal, ServerMemory) or goal.workload in ran]
    return [goal.judge(report) for goal in goals]


def _title(report: Report, name: str) -> str:
    return next(workload.title for workload in report.workloads if workload.name == name)


def _why(report: Report, workload: str, contenders: Iterable[str]) -> str:
    """Why there is no figure: who did not run, or ran and did not end well."""
    reasons = []
    for name in contenders:
        row = report.row(workload, name)
        if row is None:
            reasons.append(f"no run of {name} in `{workload}`")
        elif row.wall_s is None:
            reasons.append(f"{name} in `{workload}`: {row.outcome}")
    return "; ".join(reasons)
