"""The report in Markdown, and its place between two markers of a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.goals import OURS, Figure, judge
from benchmarks.results import Report, Row
from benchmarks.workloads import Workload

MET = {True: ": met", False: ": **not met**", None: ""}


def render(report: Report, machine: Mapping[str, str]) -> str:
    """The whole generated part."""
    parts = [_head(report, machine), _goals(report)]
    parts += [_workload(report, workload) for workload in report.workloads]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(page: Path, generated: str, name: str = "benchmarks") -> None:
    """Put it between the page's markers of this name; all around stays. A page that is not there is made."""
    first, last = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = page.read_text(encoding="utf-8") if page.exists() else f"# Performance\n\n{first}\n{last}\n"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{page} lacks the lines {first} and {last}")
    page.write_text(f"{before}{first}\n\n{generated}\n{last}{after}", encoding="utf-8")


def _head(report: Report, machine: Mapping[str, str]) -> str:
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    lines.append(f"- runs of each contender under each workload: {report.rounds}")
    if report.scale != 1:
        lines.append(f"- **a trial: all sizes times {report.scale:g}; the figures mean nothing**")
    lines += [f"- {title}: {version}" for title, version in report.versions.items()]
    lines += [f"- skipped: {who}: {reason}" for who, reason in report.skipped.items()]
    return "\n".join(lines)


def _goals(report: Report) -> str:
    goals = judge(report)
    rows, tally = [], []
    for goal in goals:
        cells = [_figure(goal.figures[name]) if name in goal.figures else "" for name in OURS]
        rows.append([goal.what, goal.against, goal.limit, *cells])
    for name, title in zip(OURS, ("`pull`", "the server"), strict=True):
        marks = [goal.figures[name].is_met for goal in goals if name in goal.figures]
        tally.append(f"{title} meets {marks.count(True)} and misses {marks.count(False)}")
    table = _table(["workload", "against", "at most", "ours: `pull`", "ours: server"], rows)
    return f"### Goals\n\nOf the goals that could be measured, {', '.join(tally)}.\n\n{table}"


def _figure(figure: Figure) -> str:
    return f"{figure.text}{MET[figure.is_met]}"


def _workload(report: Report, workload: Workload) -> str:
    rows = report.rows_of(workload.name)
    ours = report.row(workload.name, "server" if workload.to_first_byte else "ours")
    struck = bool(workload.faults or workload.outage)
    head = ["contender", "wall s", "CPU s", "peak RSS MB", "wire MB", "checks a hash", "outcome", "ours ÷ this"]
    table = _table(
        [*head, *(["faults met"] if struck else [])],
        [[*_cells(row, ours), *([_struck(row)] if struck else [])] for row in rows],
    )
    return f"### {workload.title}\n\n`{workload.name}`\n\n{table}"


def _cells(row: Row, ours: Row | None) -> list[str]:
    checks = "yes" if row.checks_hash else "no"
    wall, ours_wall = row.wall_s, ours.wall_s if ours else None
    if wall is None:
        return [row.title, "–", "–", "–", "–", checks, f"**{row.outcome}**", "–"]
    low, high = row.spread(lambda run: run.wall_s)
    rss, wire = row.median(lambda run: run.peak_rss) or 0, row.median(lambda run: run.wire_bytes) or 0
    return [
        row.title,
        f"{wall:.2f} ({low:.2f}–{high:.2f})",
        f"{row.cpu_s or 0:.2f}",
        f"{rss / 1e6:.0f}",
        f"{wire / 1e6:.1f}",
        checks,
        row.outcome,
        f"{ours_wall / wall:.2f}" if ours_wall and wall else "–",
    ]


def _struck(row: Row) -> str:
    """How many faults it met, least and most over the runs: none at all would prove nothing."""
    counts = [run.struck for run in row.runs]
    if not counts:
        return "–"
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)}–{max(counts)}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
