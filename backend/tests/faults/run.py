"""Running rows: each with a machine, a Hub and a server of its own, several at once."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from faults.scene import Outcome, Scene
from faults.table import Row


@dataclass(frozen=True)
class Result:
    """How one row came out: one of ``outcome``, ``skipped`` (why this machine cannot) and ``broken`` (what was not as
    promised) is there."""

    row: Row
    took_s: float
    outcome: Outcome | None = None
    skipped: str = ""
    broken: str = ""

    @property
    def after_s(self) -> float:
        """When the last of what had to be told was told."""
        said = self.outcome.said if self.outcome else []
        return max((seen.after_s for seen in said if seen.after_s is not None), default=0.0)

    @property
    def late(self) -> bool:
        return self.after_s > self.row.promise_s


def run_row(row: Row, root: Path) -> Outcome:
    """Do it, in an empty folder. Raises what was not as promised."""
    scene = Scene(root)
    try:
        row.act(scene)
        outcome = scene.outcome
        assert outcome.end, "the row says nothing of its end"
        assert row.again is None or (outcome.again or 0) <= row.again, f"{outcome.again} bytes came twice"
        return outcome
    finally:
        scene.close()


def run_all(rows: Sequence[Row], jobs: int) -> Iterator[Result]:
    """All of them, so many at once, as they end."""
    with ThreadPoolExecutor(jobs) as pool:
        # Long ones first, so that none of them is waited for alone.
        for done in as_completed(
            pool.submit(_result, one) for one in sorted(rows, key=lambda one: one.lasts_s, reverse=True)
        ):
            yield done.result()


def _result(row: Row) -> Result:
    started = time.monotonic()
    for need in row.needs:
        if not need.met:
            return Result(row, 0.0, skipped=need.value)
    with tempfile.TemporaryDirectory(prefix="fault-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        try:
            outcome = run_row(row, root)
            return Result(row, time.monotonic() - started, outcome)
        except Exception:  # noqa: BLE001 - whatever it was is what the row came to
            said = traceback.format_exc()
            log = root / "data" / "logs" / "mlx-manager.log"
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            tail = [line for line in lines if " DEBUG " not in line][-40:]
            return Result(row, time.monotonic() - started, broken="\n".join([said, *tail]))
