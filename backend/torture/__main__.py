"""`make torture`: a hub full of faults, and a server that is killed with SIGKILL at drawn moments until all is there.

Then it proves: every download finished, each byte is the hub's, nothing is left over in the cache, the data folder or
the temporary folder, no row is stuck, what was answered before a blow held after it, and no more came again than what
was on its way. It ends with 1 when one of these is not so, and keeps its folder then.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.hub import HubProcess

from torture import world
from torture.lives import Moment, lives
from torture.ordeal import Ordeal, Tally


def main() -> int:
    options = _options()
    root = Path(options.dir or tempfile.mkdtemp(prefix="mlx-manager-torture-"))
    root.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {text}", flush=True)

    described = root / "models.json"
    described.write_text(json.dumps(world.models(int(options.size * 1e6))))
    engines = (options.engine,) if options.engine else world.ENGINES
    dice = random.Random(options.seed)
    line_bps = int(options.line * 1e6)
    arguments = ["--models-file", str(described), "--blob-dir", str(root), "--xet"]
    with HubProcess(*arguments) as hub:
        say(f"{options.kills} kills, seed {options.seed}, a line of {options.line:g} MB/s, in {root}")
        ordeal = Ordeal(root, hub, lives(options.seed), options.kills, line_bps, say)
        while ordeal.tally.kills < options.kills and not ordeal.tally.complaints:
            ordeal.round(engines[ordeal.tally.rounds % len(engines)], world.faults(dice, line_bps))
    tally = ordeal.tally
    _report(tally)
    if tally.complaints:
        print(f"Kept for a look: {root}")
        return 1
    if options.dir is None:
        shutil.rmtree(root)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="drawn if not given"
    )
    parser.add_argument("--line", type=float, default=10, help="megabytes a second of all connections together")
    parser.add_argument("--size", type=float, default=300, help="megabytes of the models of one round")
    parser.add_argument("--engine", choices=sorted(set(world.ENGINES)), help="in all rounds, instead of each in turn")
    parser.add_argument("--dir", help="an empty folder to work in, which is kept")
    return parser.parse_args()


def _report(tally: Tally) -> None:
    when = ", ".join(f"{tally.at[moment]} at {moment.value}" for moment in Moment)
    print(f"\n{tally.kills} kills ({when}) in {tally.rounds} rounds; {tally.struck} requests met a fault,")
    print(f"{tally.moves} were a person's: pause, resume, request or cancel.")
    print(f"{tally.files} files, {tally.size / 1e6:.0f} MB; on the wire {tally.wire / 1e6:.0f} MB:")
    lost = sorted(loss.lost / 1e6 for loss in tally.losses) or [0.0]
    print(f"of a kill {sum(lost) / len(lost):.1f} MB came again, {lost[-1]:.1f} MB at most, all of it under way then;")
    print(f"without a kill {tally.twice / 1e6:.1f} MB: what was wrong, and what broken connections lost.")
    if tally.complaints:
        print(f"\n{len(tally.complaints)} things are wrong:")
        for complaint in tally.complaints:
            print(f"  {complaint}")
    else:
        print("All downloads finished, every byte right, nothing left over, no row stuck.")


if __name__ == "__main__":
    sys.exit(main())
