"""The ledger of downloads in SQL: rows of what is desired and how it stands, and the plans beside them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download
from mlx_manager.domain.plan import Plan
from mlx_manager.domain.states import Desire, Phase, Status
from mlx_manager.errors import DownloadInFlight, DownloadNotFound, InvalidRequest, LedgerFailed
from mlx_manager.storage.database import reason_of, writing
from mlx_manager.storage.tables import downloads as t
from mlx_manager.storage.tables import plans

_TERMINAL = [status.value for status in Status if status.is_terminal]

# Columns that hold a field of Download as it is. The live figures (speed, age, per file) are not worth a row.
_PLAIN = (
    "priority",
    "epoch",
    "attempt",
    "commit",
    "total_bytes",
    "total_is_estimate",
    "downloaded_bytes",
    "reused_bytes",
    "received_bytes",
    "files_done",
    "files_total",
    "message",
    "since",
    "error",
    "error_code",
    "advice",
    "started_at",
    "finished_at",
)


class SqlDownloadStore:
    """A `DownloadStore` over any engine of `open_database`. Every call is one transaction; any thread may call."""

    def __init__(self, engine: Engine) -> None:
        self._reading_engine = engine
        self._writing_engine = writing(engine)

    def insert(self, download: Download, node: str | None = None) -> None:
        asked = download.request
        fixed = {
            "task_id": download.task_id,
            "request_key": _request_key(asked),
            "model_id": asked.model_id,
            "revision": asked.revision,
            "allow_patterns": _list(asked.allow_patterns),
            "ignore_patterns": _list(asked.ignore_patterns),
            "created_at": download.created_at,
            "desire": download.desire.value,
            "node": node,
            "last_event_id": 0,
        }
        with self._writing() as connection:
            connection.execute(insert(t).values(**fixed, **_state(download)))

    def save(self, download: Download, event_id: int) -> bool:
        mine = (t.c.task_id == download.task_id) & (t.c.epoch == download.epoch)
        with self._writing() as connection:
            saved = connection.execute(update(t).where(mine).values(**_state(download), last_event_id=event_id))
        return saved.rowcount == 1

    def set_desire(self, task_id: str, desire: Desire) -> None:
        with self._writing() as connection:
            connection.execute(update(t).where(t.c.task_id == task_id).values(desire=desire.value))

    def claim(self, task_id: str, node: str) -> int:
        with self._writing() as connection:
            taken = update(t).where(t.c.task_id == task_id).values(epoch=t.c.epoch + 1, node=node)
            if connection.execute(taken).rowcount != 1:
                raise DownloadNotFound(f"There is no download {task_id} in the ledger.")
            return int(connection.execute(select(t.c.epoch).where(t.c.task_id == task_id)).scalar_one())

    def get(self, task_id: str) -> tuple[Download, int] | None:
        with self._reading() as connection:
            row = connection.execute(select(t).where(t.c.task_id == task_id)).first()
        return _entry(row) if row else None

    def find_in_flight(self, request: ModelRequest) -> Download | None:
        same = (t.c.request_key == _request_key(request)) & t.c.status.not_in(_TERMINAL)
        with self._reading() as connection:
            row = connection.execute(select(t).where(same)).first()
        return _entry(row)[0] if row else None

    def unfinished(self) -> list[tuple[Download, int]]:
        with self._reading() as connection:
            rows = connection.execute(select(t).where(t.c.status.not_in(_TERMINAL)).order_by(t.c.number)).all()
        return [_entry(row) for row in rows]

    def page(
        self, states: Collection[Status] | None, limit: int, before: str | None
    ) -> tuple[list[tuple[Download, int]], str | None]:
        wanted = select(t).order_by(t.c.number.desc()).limit(limit + 1)
        if states is not None:
            wanted = wanted.where(t.c.status.in_([status.value for status in states]))
        if before is not None:
            wanted = wanted.where(t.c.number < _cursor(before))
        with self._reading() as connection:
            rows = connection.execute(wanted).all()
        following = str(rows[limit - 1].number) if len(rows) > limit else None
        return [_entry(row) for row in rows[:limit]], following

    def save_plan(self, task_id: str, plan: Plan) -> None:
        with self._writing() as connection:
            connection.execute(delete(plans).where(plans.c.task_id == task_id))
            connection.execute(insert(plans).values(task_id=task_id, commit=plan.commit, plan=plan.to_json()))

    def plan(self, task_id: str) -> Plan | None:
        with self._reading() as connection:
            data = connection.execute(select(plans.c.plan).where(plans.c.task_id == task_id)).scalar()
        return None if data is None else Plan.from_json(data)

    def last_event_id(self) -> int:
        with self._reading() as connection:
            return int(connection.execute(select(func.max(t.c.last_event_id))).scalar() or 0)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with _as_ours("read"), self._reading_engine.connect() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with _as_ours("written"), self._writing_engine.begin() as connection:
            yield connection


@contextmanager
def _as_ours(verb: str) -> Iterator[None]:
    """SQL's errors in our words."""
    try:
        yield
    except IntegrityError as error:
        if "request_key" in str(error.orig) or "in_flight" in str(error.orig):
            raise DownloadInFlight("The same model, revision and patterns are in flight already.") from error
        raise LedgerFailed(f"The list of downloads could not be {verb}: {error.orig}.") from error
    except SQLAlchemyError as error:
        raise LedgerFailed(f"The list of downloads could not be {verb}: {reason_of(error)}.") from error


def _request_key(request: ModelRequest) -> str:
    asked = [request.model_id, request.revision, request.allow_patterns, request.ignore_patterns]
    return sha256(json.dumps(asked).encode()).hexdigest()


def _state(download: Download) -> dict[str, Any]:
    state = {name: getattr(download, name) for name in _PLAIN}
    return {**state, "status": download.status.value, "phase": download.phase.value if download.phase else None}


def _entry(row: Row[Any]) -> tuple[Download, int]:
    r = row._mapping
    request = ModelRequest(r["model_id"], r["revision"], _tuple(r["allow_patterns"]), _tuple(r["ignore_patterns"]))
    download = Download(
        task_id=r["task_id"],
        request=request,
        created_at=r["created_at"],
        status=Status(r["status"]),
        desire=Desire(r["desire"]),
        phase=Phase(r["phase"]) if r["phase"] else None,
        **{name: r[name] for name in _PLAIN},
    )
    return download, r["last_event_id"]


def _cursor(before: str) -> int:
    if not before.isascii() or not before.isdigit() or len(before) > 18:
        raise InvalidRequest(f"{before[:40]!r} is not a page's cursor.", advice="Use `next` of the page before.")
    return int(before)


def _list(patterns: tuple[str, ...] | None) -> list[str] | None:
    return None if patterns is None else list(patterns)


def _tuple(patterns: list[str] | None) -> tuple[str, ...] | None:
    return None if patterns is None else tuple(patterns)
