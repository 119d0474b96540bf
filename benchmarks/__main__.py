"""`make bench`: ours and the peers in turn, against one hub on this machine; medians, ratios, goals."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import machine, page
from benchmarks.corpus import Corpus
from benchmarks.hub import Hub, make_certificate
from benchmarks.job import ROOT, Contender
from benchmarks.programs import aria2c, curl, hf, ours, pypi_mlx_manager, wget
from benchmarks.results import Report
from benchmarks.rounds import Arena, compare, find_starters, tell
from benchmarks.running_server import RunningServer
from benchmarks.workloads import WARM_UP, WORKLOADS, Workload

NAMES = {"ours", "server", "hf", "hf-xet", "aria2c", "curl", "wget", "pypi", *(w.name for w in WORKLOADS)}
PAGE = ROOT / "docs" / "performance.md"


def main() -> int:
    options = _options()
    workloads = [w.scaled(options.scale) for w in WORKLOADS if _chosen(w.name, options.only)]
    if options.list or not workloads:
        for workload in WORKLOADS:
            print(f"{workload.name:14} {workload.title}")
        return 0 if options.list else 2
    report = Report(scale=options.scale, rounds=options.rounds)
    options.dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=options.dir)))
        facts = machine.describe(folder)
        tell("Making and hashing the files …")
        arena, workloads = _arena(stack, folder, options.dir / "models", workloads, report)
        contenders = _contenders(arena.hubs[False], options.pypi_python)
        asked = [one for one in contenders if _chosen(one.name, options.contenders)]
        if not options.contenders:
            asked = [one for one in asked if not one.is_optional]
        starters = find_starters(arena, asked, report)
        for workload in workloads:
            report.workloads.append(workload)
            compare(arena, workload, starters, report, options.seed)
    generated = page.render(report, facts)
    print(generated)
    if options.json:
        runs = [asdict(run) for row in report.rows.values() for run in row.runs]
        options.json.write_text(json.dumps({"runs": runs, "skipped": report.skipped}, indent=1))
    _write(options, report, generated)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench",
        description=__doc__,
        epilog="Who and what is chosen by names, parts of names or patterns, with commas: clean,small or *-4x64.",
    )
    add = parser.add_argument
    add("--only", type=_words, default=[], metavar="NAMES", help="workloads to run (all)")
    add("--contenders", type=_words, default=[], metavar="NAMES", help="contenders (all but the optional wget)")
    add("--rounds", type=int, default=3, help="how often each runs each (3)")
    add("--scale", type=float, default=1.0, help="sizes times this, to try things out (1)")
    add("--seed", type=int, default=1, help="of the order within the rounds (1)")
    add("--dir", type=Path, default=ROOT / ".cache" / "bench", help="on the disk to be measured; models stay there")
    add("--pypi-python", type=Path, help="python of an environment that has PyPI's mlx-manager")
    add("--json", type=Path, help="every single run, for programs")
    add("--output", type=Path, help="page to write into (docs/performance.md, for a full run with all workloads)")
    add("--list", action="store_true", help="list the workloads")
    return parser.parse_args()


def _words(text: str) -> list[str]:
    return [word for word in text.split(",") if word]


def _chosen(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is meant. One that is somebody's whole name means nobody else: hf is not hf-xet."""
    return not patterns or any(
        name == pattern or (pattern not in NAMES and (pattern in name or fnmatchcase(name, pattern)))
        for pattern in patterns
    )


def _contenders(hub: Hub, pypi_python: Path | None) -> list[Contender]:
    peers = [hf(xet=False, hub=hub), hf(xet=True, hub=hub), aria2c(), curl(), wget(), pypi_mlx_manager(pypi_python)]
    return [ours(), RunningServer(), *peers]


def _arena(
    stack: ExitStack, folder: Path, kept: Path, workloads: list[Workload], report: Report
) -> tuple[Arena, list[Workload]]:
    """The place, and the workloads that can run in it."""
    corpus = Corpus(kept.absolute(), folder / "models")
    certificate = make_certificate(folder) if any(workload.tls for workload in workloads) else None
    if certificate is None:
        for workload in workloads:
            if workload.tls:
                report.skipped[workload.title] = "openssl not found"
        workloads = [workload for workload in workloads if not workload.tls]
    for shape in (WARM_UP, *(workload.shape for workload in workloads)):
        corpus.add(shape)
    hubs = {False: stack.enter_context(Hub(corpus.served))}
    if certificate is not None:
        hubs[True] = stack.enter_context(Hub(corpus.served, certificate))
    return Arena(folder, corpus, hubs), workloads


def _write(options: argparse.Namespace, report: Report, generated: str) -> None:
    is_full = len(report.workloads) == len(WORKLOADS) and not options.contenders and options.scale == 1
    target = options.output or (PAGE if is_full and options.rounds >= 3 else None)
    if target is None:
        tell("Not a full run of three rounds or more: no page was written. --output names one to write all the same.")
        return
    page.write(target, generated)
    tell(f"Written into {target}.")


if __name__ == "__main__":
    sys.exit(main())
