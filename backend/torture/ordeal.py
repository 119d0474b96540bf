"""One round: the models are asked for, the server is killed until they are there, and what is left is judged."""

from __future__ import annotations

import http.client
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from benchmarks.hub import HubProcess

from api_client import MODELS, Api, ServerProcess
from torture.again import Lived, Loss, came_twice, losses
from torture.lives import Life, Moment
from torture.verdict import ask_truth, left_by_server, orphans, wrong_bytes
from torture.world import KEPT, LIES, LYING_FILE, WITHDRAWN

Row = dict[str, Any]

BECOMES_READY_S = 30.0
"""A person's patience, not a measure: the machine may be busy."""
ENDS_WITHIN_S = 240.0
CHILDREN_END_S = 10.0
DROPPED = 64 << 10
"""Bytes that a broken connection may have had in its buffers, over all that the faults struck."""
UNANSWERED = (OSError, http.client.HTTPException)


@dataclass
class Tally:
    """What the rounds come to. Bytes of the models that are kept: ``size`` as the hub has them, ``wire`` as they went
    out, ``twice`` those that went out twice within one life: what was lied about, and what broken connections lost in
    the kernels' buffers. ``losses``: what each blow cost."""

    kills: int = 0
    rounds: int = 0
    files: int = 0
    size: int = 0
    wire: int = 0
    twice: int = 0
    losses: list[Loss] = field(default_factory=list)
    struck: int = 0
    at: dict[Moment, int] = field(default_factory=lambda: dict.fromkeys(Moment, 0))
    moves: int = 0
    complaints: list[str] = field(default_factory=list)


class Ordeal:
    """``root``: the folder that holds data, cache and the temporary folder of the server. ``kills``: how many in all.
    ``line_bps``: bytes per second that the hub sends at most."""

    def __init__(
        self,
        root: Path,
        hub: HubProcess,
        lives: Iterator[Life],
        kills: int,
        line_bps: int,
        say: Callable[[str], None],
    ) -> None:
        self.tally = Tally()
        self._root = root
        self._cache = root / "hf" / "hub"
        self._temporary = root / "tmp"
        self._temporary.mkdir()
        self._hub = hub
        self._lives = lives
        self._kills = kills
        self._engine = "auto"
        self._line_bps = line_bps
        self._say = say
        self._lived: list[Lived] = []
        self._truths = [ask_truth(hub.url, model) for model in KEPT]
        self._old: set[str] = set()
        self._promised: dict[str, str] = {}
        self._rests: set[str] = set()

    def round(self, engine: str, faults: Sequence[Mapping[str, Any]]) -> None:
        """From an empty cache to whole models, with these faults of the hub on meanwhile."""
        self._hub.order(faults)
        self._engine = engine
        self.tally.rounds += 1
        first = self.tally.kills
        try:
            while self.tally.kills < self._kills and not self._live(next(self._lives)):
                pass
            self._last_life()
        except AssertionError as error:
            # A server that does not start, or says no to what it must do.
            self._complain(str(error))
            return
        self._say(f"round {self.tally.rounds}, engine {engine}: {self.tally.kills - first} kills, all there and judged")
        shutil.rmtree(self._cache)

    # -- lives

    def _live(self, life: Life) -> bool:
        """Live until the blow; True when everything was there before it fell, and nobody was hurt."""
        born_at = time.monotonic()
        with self._server() as server:
            try:
                if life.moment is Moment.BIRTH:
                    time.sleep(life.after_s)
                elif self._work(server.api(), life):
                    server.send(signal.SIGTERM)
                    server.ended()
                    self._lived.append(Lived(life.number, born_at, time.monotonic(), killed=False))
                    return True
            except UNANSWERED as error:
                self._complain(f"life {life.number}: the server did not answer: {type(error).__name__} {error}")
            self._kill(server, life, born_at)
        return False

    def _work(self, api: Api, life: Life) -> bool:
        rows = self._look(api)
        self._set_going(api, rows)
        if life.moment is Moment.VERIFYING:
            return self._until(api, 4.0, lambda: any(_is_at_the_end(row) for row in _rows(api))) or _nap(life.after_s)
        if life.move is None:
            return self._until(api, life.after_s)
        self.tally.moves += 1
        if life.moment is Moment.MOVE:
            threading.Thread(target=self._move_unheard, args=(api, life, rows), daemon=True).start()
            return _nap(life.after_s)
        self._move(api, life, rows)
        return self._until(api, life.after_s)

    def _until(self, api: Api, limit_s: float, reached: Callable[[], bool] = lambda: False) -> bool:
        """Wait for so long, or for what is to be reached. True when all models are there."""
        until = time.monotonic() + limit_s
        while not reached():
            if self._all_there(_rows(api)):
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, 0.05))
        return False

    def _last_life(self) -> None:
        """No blow in this one. What was promised is kept, what was cancelled is gone, and all that is left is right."""
        born_at = time.monotonic()
        with self._server() as server:
            api = server.api()
            self._set_going(api, self._look(api), everything=True)
            if not self._until(api, ENDS_WITHIN_S):
                for model, row in self._newest(_rows(api)).items():
                    self._complain(f"{model} does not come to its end: {row['status']}, {row['message']}")
            self._withdraw(api)
            self._old = {row["task_id"] for row in _rows(api)}
            self._lived.append(Lived(0, born_at, time.monotonic(), killed=False))
            self._count_wire()
            # With the server there: its locks must be free while it rests.
            for truth in self._truths:
                self._complain(*wrong_bytes(self._hub.url, self._cache, truth))
            self._complain(*orphans(self._cache, self._truths))
            self._stuck(_rows(api))
            server.send(signal.SIGTERM)
            code, said = server.ended()
            if code != 0:
                self._complain(f"SIGTERM ended the server with {code}: {said[-500:]}")
        self._complain(*left_by_server(self._root / "data", self._temporary))
        self._promised.clear()

    def _server(self) -> ServerProcess:
        return ServerProcess(
            self._root,
            self._hub.url,
            TMPDIR=str(self._temporary),
            MLX_MANAGER_ENGINE=self._engine,
            MLX_MANAGER_LOG_LEVEL="INFO",
            MLX_MANAGER_STALL_S="1.5",
            MLX_MANAGER_HUB_TIMEOUT_S="2",
            MLX_MANAGER_SIZE_CHECK_S="2",
        )

    def _kill(self, server: ServerProcess, life: Life, born_at: float) -> None:
        if server.process.poll() is not None:
            self._complain(f"life {life.number}: the server ended by itself: {server.ended()}")
            return
        children = psutil.Process(server.process.pid).children(recursive=True)
        server.send(signal.SIGKILL)
        self._lived.append(Lived(life.number, born_at, time.monotonic()))
        server.process.wait()
        self.tally.kills += 1
        self.tally.at[life.moment] += 1
        _, alive = psutil.wait_procs(children, CHILDREN_END_S)
        for child in alive:
            self._complain(f"life {life.number}: a process outlived the server: {child.cmdline()}")
            child.kill()
        if self.tally.kills % 20 == 0:
            self._say(f"{self.tally.kills} kills of {self._kills}")

    # -- what is asked, and what was answered

    def _look(self, api: Api) -> dict[str, Row]:
        """The newest row of each model after a restart; what was answered before the blow must hold."""
        newest = self._newest(_rows(api))
        for model, promised in self._promised.items():
            status = newest[model]["status"] if model in newest else "missing"
            if status != promised:
                self._complain(f"{model} was answered to be {promised} and is {status} after the restart")
        self._promised.clear()
        for model, row in newest.items():
            if row["status"] == "failed":
                self._complain(f"{model} failed: {row['error']}")
        return newest

    def _set_going(self, api: Api, rows: dict[str, Row], *, everything: bool = False) -> None:
        """Ask for each model that nobody has asked for, and for what has failed; what is paused rests for a life."""
        for model in KEPT:
            row = rows.get(model)
            rests = row is not None and row["status"] == "paused" and model not in self._rests and not everything
            if row is None or (row["status"] in ("failed", "paused") and not rests):
                api.download(model)
            self._rests.discard(model)
            if rests:
                self._rests.add(model)

    def _move(self, api: Api, life: Life, rows: dict[str, Row]) -> None:
        """Send the move and note what its answer promises."""
        row = rows.get(life.model)
        if life.move == "request":
            api.download(life.model)
        elif life.move is not None and row is not None:
            answer = api.move(row["task_id"], life.move)
            # 409: it had come to rest before.
            if answer.status == 200 and life.move in ("pause", "cancel"):
                self._promised[life.model] = answer.json["status"]

    def _move_unheard(self, api: Api, life: Life, rows: dict[str, Row]) -> None:
        # The blow falls meanwhile. An answer that came before it promises nothing here: we did not wait for it.
        with suppress(*UNANSWERED, AssertionError):
            row = rows.get(life.model)
            if life.move == "request":
                api.download(life.model)
            elif life.move is not None and row is not None:
                api.move(row["task_id"], life.move)

    def _withdraw(self, api: Api) -> None:
        row = self._newest(_rows(api)).get(WITHDRAWN)
        if row is not None and row["status"] != "cancelled":
            api.move(row["task_id"], "cancel")

    # -- the end

    def _newest(self, rows: list[Row]) -> dict[str, Row]:
        """Of this round. Rows come newest first."""
        return {row["model_id"]: row for row in reversed(rows) if row["task_id"] not in self._old}

    def _all_there(self, rows: list[Row]) -> bool:
        newest = self._newest(rows)
        return all(model in newest and newest[model]["status"] == "completed" for model in KEPT)

    def _stuck(self, rows: list[Row]) -> None:
        for row in rows:
            if row["status"] not in ("completed", "cancelled"):
                self._complain(f"{row['model_id']} is left {row['status']}: {row['message']}")

    def _count_wire(self) -> None:
        records = self._hub.records()
        struck = sum(bool(record["faults"]) for record in records)
        self.tally.struck += struck
        kept = [
            record
            for record in records
            if "content" in record["labels"] and (record["repo"] in KEPT or "xorb" in record["labels"])
        ]
        self.tally.wire += sum(record["sent"] for record in kept)
        # The clock is the machine's, the same in every process.
        twice = came_twice(kept, self._lived)
        self.tally.twice += twice
        lied = next(truth for truth in self._truths if truth.model == LIES).files[LYING_FILE][1]
        if twice > lied + struck * DROPPED:
            self._complain(f"{twice} bytes came twice without a kill")
        # What was wrong has to come again, whenever that was found out.
        true = [record for record in kept if (record["repo"], record["file"]) != (LIES, LYING_FILE)]
        for loss in losses(true, self._lived):
            self._say(
                f"life {loss.life.number}: {loss.lost / 1e6:.1f} MB came again of {loss.brought / 1e6:.1f} MB that "
                f"{loss.pieces} pieces under way had brought, {loss.settled} bytes of what was older"
            )
            self._complain(*loss.beyond(self._line_bps))
            self.tally.losses.append(loss)
        self._lived.clear()
        self.tally.size += sum(truth.size for truth in self._truths)
        self.tally.files += sum(len(truth.files) for truth in self._truths)
        self._hub.calm()

    def _complain(self, *complaints: str) -> None:
        for complaint in complaints:
            self._say(f"WRONG: {complaint}")
        self.tally.complaints.extend(complaints)


def _rows(api: Api) -> list[Row]:
    found: list[Row] = api.get(f"{MODELS}/downloads?limit=500").json["downloads"]
    return found


def _is_at_the_end(row: Row) -> bool:
    return "verifying" in row["status"] or row["phase"] == "linking"


def _nap(seconds: float) -> bool:
    time.sleep(seconds)
    return False
