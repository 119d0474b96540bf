"""How long the library takes with 1,000 models and 100,000 files: `python -m benchmarks.library`.

Each look is a process of its own, but for the later ones, which are those of a server that runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks import machine, page
from benchmarks.job import KEPT_VARIABLES, ROOT
from benchmarks.shelf import Shelf

MARKS = "library"
LOOK = """
import json, sys, time
from pathlib import Path
from mlx_manager.services.hf_cache import HfCache
cache = HfCache(Path(sys.argv[1]), memory=Path(sys.argv[2]))
took = []
for _ in range(int(sys.argv[3])):
    begun = time.perf_counter()
    library = cache.library()
    took.append(time.perf_counter() - begun)
print(json.dumps([took, len(library.models), sum(one.complete for one in library.models), library.size_bytes]))
"""
FLOOR = """
import os, sys, time
begun = time.perf_counter()
for model in os.scandir(sys.argv[1]):
    for folder, _, files in os.walk(model.path):
        for file in files:
            os.stat(f"{folder}/{file}")
print(time.perf_counter() - begun)
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.library", description=__doc__)
    add = parser.add_argument
    add("--models", type=int, default=1000)
    add("--files", type=int, default=100, help="of each model (100)")
    add("--rounds", type=int, default=5, help="the figures are medians (5)")
    add("--dir", type=Path, default=ROOT / ".cache" / "bench", help="on the disk to be measured; the cache stays there")
    add("--output", type=Path, help="page to write the table into, docs/performance.md for instance")
    options = parser.parse_args()
    shelf = Shelf(options.dir.absolute() / "shelf", options.models, options.files)
    size = shelf.make()
    with tempfile.TemporaryDirectory(prefix="library-", dir=options.dir) as home:
        facts = machine.describe(options.dir)
        figures = _measure(shelf, Path(home), size, options.rounds)
    generated = _table(shelf, figures, facts)
    print(generated)
    if options.output:
        page.write(options.output, generated, MARKS)
    return 0


def _measure(shelf: Shelf, home: Path, size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each run, by what was done."""
    took: dict[str, list[float]] = {}
    memory, changed = home / "library.json", shelf.model(0) / "refs" / "main"
    commit, settled = changed.read_text(), changed.stat().st_mtime

    def look(what: str, looks: int = 1) -> None:
        told = subprocess.run(
            [sys.executable, "-c", LOOK, str(shelf.root), str(memory), str(looks)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        seconds, *seen = json.loads(told)
        if seen != [shelf.models, shelf.models, size]:
            raise RuntimeError(f"{what}: models, complete ones and bytes are {seen}")
        # The first look of a process is another thing than its later ones, and each of those counts.
        took.setdefault(what, []).extend(seconds[1:] or seconds)

    for _ in range(rounds):
        memory.unlink(missing_ok=True)
        look("the very first look, nothing remembered")
        look("the first look of a process that starts")
        look("a later look of a running server", looks=4)
        changed.write_text(commit)
        os.utime(changed, (settled, settled))
        look("the first look after another program changed a model")
        took.setdefault("`mlx-manager ls`, the whole process", []).append(_run("mlx-manager", "ls", shelf, home))
        took.setdefault("`hf cache ls`, the whole process", []).append(_run("hf", "cache ls", shelf, home))
        told = subprocess.run(
            [sys.executable, "-c", FLOOR, str(shelf.root)], capture_output=True, text=True, check=True
        )
        took.setdefault("asking the disk for each file, and no more (`os.walk`, `os.stat`)", []).append(
            float(told.stdout)
        )
    return took


def _run(program: str, words: str, shelf: Shelf, home: Path) -> float:
    env = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    env |= {"HOME": str(home), "MLX_MANAGER_HOME": str(home), "HF_HUB_CACHE": str(shelf.root), "HF_HUB_OFFLINE": "1"}
    command = [str(Path(sys.executable).with_name(program)), *words.split()]
    begun = time.perf_counter()
    subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begun


def _table(shelf: Shelf, figures: Mapping[str, list[float]], facts: Mapping[str, str]) -> str:
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += [f"- models: {shelf.models:,} of {shelf.files} files each; runs: {len(next(iter(figures.values())))}", ""]
    lines += ["| what | times | ms, median | least | most |", "| --- | --- | --- | --- | --- |"]
    for what, seconds in figures.items():
        cells = (statistics.median(seconds), min(seconds), max(seconds))
        lines.append(f"| {what} | {len(seconds)} | {' | '.join(f'{1000 * one:.0f}' for one in cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
