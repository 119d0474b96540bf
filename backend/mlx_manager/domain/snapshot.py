"""The one object that SSE, polling, the CLI and the page all show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from mlx_manager.domain.download import Download
from mlx_manager.domain.progress import percent
from mlx_manager.domain.states import Status


def snapshot(download: Download, *, files: bool = False) -> dict[str, Any]:
    """JSON-ready. Bytes are bytes, ``*_s`` seconds, ``*_bps`` bytes per second, moments ISO 8601 in UTC."""
    d = download
    shown: dict[str, Any] = {
        "task_id": d.task_id,
        "model_id": d.model_id,
        "status": d.status.value,
        "progress": percent(d.downloaded_bytes, d.total_bytes, finished=d.status is Status.COMPLETED),
        "downloaded_bytes": d.downloaded_bytes,
        "total_bytes": d.total_bytes,
        "error": d.error,
        "revision": d.request.revision,
        "commit": d.commit,
        "total_is_estimate": d.total_is_estimate,
        "phase": d.phase.value if d.phase else None,
        "message": d.message,
        "since": moment(d.since),
        "deadline": moment(d.deadline),
        "last_byte_age_s": None if d.last_byte_age_s is None else round(d.last_byte_age_s, 1),
        "speed_bps": round(d.speed_bps),
        "eta_s": d.eta_s,
        "error_code": d.error_code,
        "advice": d.advice,
        "attempt": d.attempt,
        "files_done": d.files_done,
        "files_total": d.files_total,
        "started_at": moment(d.started_at),
        "finished_at": moment(d.finished_at),
        "created_at": moment(d.created_at),
        "place": d.place,
        "priority": d.priority,
        "reused_bytes": d.reused_bytes,
        "received_bytes": d.received_bytes,
        "connections": d.connections,
        "allow_patterns": list(d.request.allow_patterns) if d.request.allow_patterns else None,
        "ignore_patterns": list(d.request.ignore_patterns) if d.request.ignore_patterns else None,
    }
    if files:
        shown["files"] = [
            {"path": f.path, "size": f.size, "done_bytes": f.done_bytes, "state": f.state} for f in d.files
        ]
    return shown


def moment(at: float | None) -> str | None:
    """Seconds since 1970 as ISO 8601 with milliseconds."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
