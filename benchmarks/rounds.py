"""The runs: each workload in rounds, in each round every contender once, in another order each time."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.corpus import Corpus, complaints
from benchmarks.hub import Hub
from benchmarks.job import Contender, Job
from benchmarks.measure import Ending
from benchmarks.results import Report, Row, Run, Verdict
from benchmarks.workloads import WARM_UP, Workload


@dataclass
class Arena:
    """Where the runs take place: a folder of their own on the disk to be measured, and the hubs."""

    folder: Path
    corpus: Corpus
    hubs: Mapping[bool, Hub]
    """By whether they speak TLS."""
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def job(self, workload: Workload) -> Job:
        hub, repo = self.hubs[workload.tls], workload.shape.repo
        folder = self.folder / f"run-{next(self.numbers)}"
        folder.mkdir()
        return Job(
            endpoint=hub.url,
            repo=repo,
            commit=hub.commits[repo],
            sums=self.corpus.sums[repo],
            ca_file=hub.certificate.cert if hub.certificate else None,
            folder=folder,
            bound_s=workload.bound_s,
            to_first_byte=workload.to_first_byte,
        )

    def run(self, workload: Workload, contender: Contender, number: int) -> Run:
        """One run, on a calm machine, under the workload's faults, with a look at every file after it."""
        hub, job = self.hubs[workload.tls], self.job(workload)
        try:
            hub.calm()
            # What others left to be written must not be written on this one's time.
            os.sync()
            ids = hub.order(workload.faults)
            if workload.outage:
                hub.cut_network(workload.outage.seconds, int(workload.total_bytes * workload.outage.share))
            cost = contender.run(job)
            struck = hub.struck(ids) + hub.cuts()
            served = hub.served()
            wrong: list[str] = []
            if cost.ending is Ending.DONE and not job.to_first_byte:
                wrong = complaints(contender.files(job), job.sums)
            return Run(
                workload=workload.name,
                contender=contender.name,
                round=number,
                verdict=Verdict.WRONG_FILE if wrong else VERDICTS[cost.ending],
                wall_s=cost.wall_s,
                cpu_s=cost.cpu_s,
                peak_rss=cost.peak_rss,
                wire_bytes=served.sent,
                requests=served.requests,
                connections=served.connections,
                struck=struck,
                said="; ".join(wrong) if wrong else "" if cost.ending is Ending.DONE else cost.said,
            )
        finally:
            hub.calm()
            # For minutes ext4 looks past each inode that was freed before it takes one: who comes next would pay for
            # the files of who came before. So many small ones stay until the end.
            if not workload.shape.is_small:
                shutil.rmtree(job.folder)


VERDICTS = {Ending.DONE: Verdict.OK, Ending.FAILED: Verdict.FAILED, Ending.HUNG: Verdict.HUNG}


def find_starters(arena: Arena, contenders: Sequence[Contender], report: Report) -> list[Contender]:
    """Who can take part: nothing is missing, and a tiny model arrives. It also has everything compiled and cached."""
    starters = []
    warm_up = Workload("warm-up", "a tiny model", WARM_UP, bound_s=60)
    for contender in contenders:
        job = arena.job(warm_up)
        try:
            reason = contender.missing(job)
        finally:
            shutil.rmtree(job.folder)
        if reason is None:
            run = arena.run(warm_up, contender, 0)
            if run.verdict is not Verdict.OK:
                reason = f"a tiny model with no fault: {run.verdict}"
                tell(f"{contender.name}: {run.verdict}: {run.said}")
        if reason is None:
            starters.append(contender)
            report.versions[contender.title] = contender.version()
        else:
            report.skipped[contender.title] = reason
            tell(f"{contender.name}: skipped: {reason}")
    return starters


def compare(arena: Arena, workload: Workload, contenders: Sequence[Contender], report: Report, seed: int) -> None:
    """All rounds of one workload. Who has hung is not asked again: it would hang again, for the same long time."""
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    dice = random.Random(f"{seed} {workload.name}")
    for number in range(1, report.rounds + 1):
        for contender in dice.sample(list(contenders), len(contenders)):
            before = runs[contender.name]
            if any(run.verdict is Verdict.HUNG for run in before):
                continue
            run = arena.run(workload, contender, number)
            before.append(run)
            said = f" ({run.said})" if run.said else ""
            tell(f"{workload.name} {number}/{report.rounds} {contender.name}: {run.wall_s:.2f} s, {run.verdict}{said}")
    for contender in contenders:
        row = Row(contender.name, contender.title, contender.checks_hash, runs[contender.name])
        report.rows[workload.name, contender.name] = row


def tell(line: str) -> None:
    """To whoever waits; the report itself goes to the standard output."""
    print(line, file=sys.stderr, flush=True)
