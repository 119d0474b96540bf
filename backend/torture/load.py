"""`make load`: a thousand watchers and two hundred queued downloads against one server process, over and over.

The hub keeps all bytes back until everybody watches, so that each end is heard live. It ends with 1 when a watcher
missed an end, came too late for it or heard of it more than a second late, when the server holds more
afterwards than before (descriptors, threads, connections, processes), when its memory grew from round to round, or when
one who reads nothing was not given up.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.hub import HubProcess

from api_client import Api, ServerProcess
from torture.census import Census, judged, settled, slope
from torture.crowd import SETTLES_WITHIN_S, LetGo, Round, run_round, watched

LATE_S = 1.0
SLOW_GIVEN_UP_WITHIN_S = 60.0


def model_names(count: int) -> list[str]:
    return [f"load/Tiny-{n:03}" for n in range(count)]


def models_file(names: list[str]) -> dict[str, object]:
    """Small models, each with a content of its own."""
    return {
        name: {"files": {"config.json": "{}", "model.safetensors": {"size": 200_000, "seed": n}}}
        for n, name in enumerate(names)
    }


def held(hub: HubProcess) -> LetGo:
    """Have the hub keep all bytes of files back until this is called."""
    hub.order([{"fault": "delay", "where": "content"}])
    return hub.calm


def main() -> int:
    parser = argparse.ArgumentParser(prog="make load", description=__doc__)
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--downloads", type=int, default=200)
    parser.add_argument("--slow", type=int, default=20, help="watchers that never read")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mlx-manager-load-") as folder:
        root = Path(folder)
        names = model_names(options.downloads)
        described = root / "models.json"
        described.write_text(json.dumps(models_file(names)))
        with (
            HubProcess("--models-file", str(described), "--blob-dir", folder) as hub,
            ServerProcess(root, hub.url, MLX_MANAGER_LOG_LEVEL="INFO") as server,
        ):
            api, pid = server.api(), server.process.pid
            # After it everything has been used once, and is there to stay.
            idle = run_round(api, pid, names, options.watchers, held(hub)).after
            print(f"at rest after a first round: {idle}", flush=True)
            memory: list[float] = []
            for number in range(1, options.rounds + 1):
                shutil.rmtree(root / "hf" / "hub")
                load = run_round(api, pid, names, options.watchers, held(hub), idle)
                memory.append(load.after.rss / 1e6)
                wrong += _tell(f"round {number}", load)
            told = " ".join(f"{mb:.0f}" for mb in memory)
            print(f"memory after each round: {told} MB; {slope(memory):+.2f} MB a round", flush=True)
            verdict, grown = judged(memory, options.downloads)
            print(verdict, flush=True)
            wrong += grown
            if options.slow:
                wrong += _slow_readers(root, api, pid, names, options, held(hub), idle)
    for complaint in wrong:
        print(f"WRONG: {complaint}")
    return 1 if wrong else 0


def _tell(what: str, load: Round) -> list[str]:
    late = sorted(load.watchers.late_s)
    p50, p99, worst = late[len(late) // 2], late[int(len(late) * 0.99)], late[-1]
    heard = f"{p50 * 1000:.0f} ms (p50), {p99 * 1000:.0f} ms (p99), {worst * 1000:.0f} ms (worst)"
    print(
        f"{what}: {load.watchers.connected} watchers saw {len(late)} ends live in {load.took_s:.1f} s, after {heard};",
        end=" ",
    )
    print(f"left over: {', '.join(load.left) or 'nothing'}", flush=True)
    wrong = [f"{what}: {one}" for one in load.left]
    if load.watchers.missed:
        wrong.append(f"{what}: {len(load.watchers.missed)} ends were not seen by somebody")
    if load.watchers.told_later:
        wrong.append(f"{what}: {load.watchers.told_later} ends were over when somebody came, so not heard live")
    if worst > LATE_S:
        wrong.append(f"{what}: somebody heard of an end {worst:.2f} s late")
    return wrong


def _slow_readers(
    root: Path, api: Api, pid: int, names: list[str], options: argparse.Namespace, let_go: LetGo, idle: Census
) -> list[str]:
    """A round beside some who ask and read nothing: nobody else is held up, and they are given up with a reason."""
    shutil.rmtree(root / "hf" / "hub")
    begun = time.monotonic()
    found = watched(api, names, options.watchers, let_go, options.slow)
    took_s = time.monotonic() - begun
    given_up = 0
    while given_up < options.slow and time.monotonic() - begun - took_s < SLOW_GIVEN_UP_WITHIN_S:
        time.sleep(0.5)
        log = (root / "data" / "logs" / "mlx-manager.log").read_text()
        given_up = log.count("was given up: it has not read anything")
    waited_s = time.monotonic() - begun - took_s
    found.close_slow()
    after = settled(pid, idle, SETTLES_WITHIN_S)
    wrong = _tell("beside slow readers", Round(took_s, found, after, after.beyond(idle)))
    print(f"{given_up} of {options.slow} who read nothing were given up {waited_s:.0f} s after the end, with a reason")
    return wrong if given_up == options.slow else [*wrong, f"{options.slow - given_up} slow readers were not given up"]


if __name__ == "__main__":
    sys.exit(main())
