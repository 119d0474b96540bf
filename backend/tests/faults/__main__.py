"""`make faults` runs the matrix: prints how it goes and writes docs/faults.md."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence

from faults.machine import OWN_MOUNTS, unshare_command
from faults.page import PAGE, render
from faults.run import Result, run_all
from faults.table import rows


def main(arguments: Sequence[str]) -> int:
    """0 when every row ended as it must."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--only", default="", help="rows with this in their names; prints, writes no page")
    parser.add_argument("--jobs", type=int, default=3 * (os.cpu_count() or 2), help="rows at once (%(default)s)")
    parser.add_argument("--list", action="store_true", help="the rows")
    options = parser.parse_args(arguments)
    chosen = [row for row in rows() if options.only in row.key]
    if options.list:
        for row in chosen:
            print(f"{row.key:44} {row.done}")
        return 0
    if command := unshare_command(["-m", "faults", *arguments]):
        return subprocess.run(command, env={**os.environ, OWN_MOUNTS: "1"}, check=False).returncode
    began = time.monotonic()
    results = []
    for result in run_all(chosen, options.jobs):
        results.append(result)
        print(_line(result, len(results), len(chosen)), flush=True)
    crowded = [result for result in results if result.broken]
    for result in run_all([result.row for result in crowded], 1):
        # Six rows at once on two processors fill buffers and miss moments. What is wrong alone too is wrong.
        print(f"alone: {_line(result, 1, len(crowded))}", flush=True)
        results[[one.row for one in results].index(result.row)] = result
    results.sort(key=lambda one: chosen.index(one.row))
    took = time.monotonic() - began
    broken = [result for result in results if result.broken]
    late = [result for result in results if result.late]
    skipped = [result for result in results if result.skipped]
    for result in late:
        print(f"late: {result.row.key}: {result.after_s:.1f} s, promised {result.row.promise_s:g} s")
    print(f"{len(results) - len(broken) - len(skipped)} passed, {len(broken)} failed, {len(skipped)} skipped")
    if broken:
        return 1
    if not options.only:
        how = f"On {platform.system()} {platform.machine()} with {os.cpu_count()} processors, in {took:.0f} s."
        PAGE.write_text(render(results, how), encoding="utf-8")
    return 0


def _line(result: Result, number: int, of: int) -> str:
    head = f"[{number}/{of}] {result.row.key}"
    if result.skipped:
        return f"{head}: not run: it {result.skipped}"
    if result.broken:
        return f"{head}: BROKEN\n{result.broken}"
    assert result.outcome is not None
    said = "; ".join(
        f"{seen.after_s or 0:.1f} s {seen.phase}: {seen.message} [{seen.advice}]" for seen in result.outcome.said
    )
    return f"{head} ({result.took_s:.1f} s): {said} -> {result.outcome.end}, again {result.outcome.again}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
