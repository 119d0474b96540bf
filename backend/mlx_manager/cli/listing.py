"""`mlx-manager ls` and `mlx-manager ps`: they work with and without a running server."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from mlx_manager.cli import picture
from mlx_manager.cli.client import Snapshot
from mlx_manager.cli.columns import Column, table
from mlx_manager.cli.connect import Connector, silence_of
from mlx_manager.cli.terminal import Teller
from mlx_manager.domain import words
from mlx_manager.domain.download import Requeued, apply
from mlx_manager.domain.library import LocalModel
from mlx_manager.domain.snapshot import snapshot
from mlx_manager.domain.states import Status
from mlx_manager.settings import Settings

UNFINISHED = tuple(status for status in Status if status.is_in_flight)


def list_downloads(settings: Settings, *, show_all: bool, as_json: bool) -> None:
    """Raises MlxManagerError. ``--json`` prints one array of snapshots, newest first."""
    states = None if show_all else UNFINISHED
    with Connector(settings) as servers:
        api = servers.find()
        silent = servers.silent
        found = list(api.downloads(states or ())) if api else _from_ledger(settings, states, abandoned=silent is None)
    if silent is not None:
        Teller(sys.stderr).line(f"{silence_of(silent)}. This is what it had written down.")
    if as_json:
        _print_json(found)
        return
    out = Teller(sys.stdout)
    if not found:
        out.line("No downloads." if show_all else "No unfinished downloads; `mlx-manager ps --all` lists the others.")
        return
    columns = [
        Column("MODEL", shrinks=True),
        Column("STATE"),
        Column("", right=True),
        Column("SIZE", right=True),
        Column("LEFT", right=True),
        Column("TASK", yields=True),
    ]
    for line in table(columns, [_download_row(one) for one in found], out.width, out.glyphs):
        out.line(line, whole=True)
    at_rest = ("paused", "completed", "failed", "cancelled")
    if api is None and silent is None and any(one["status"] not in at_rest for one in found):
        out.line("No server is running: they go on with `mlx-manager serve`, or one by one with `mlx-manager pull`.")


def _download_row(one: Snapshot) -> list[str]:
    total = one["total_bytes"]
    size = f"{'~' if one['total_is_estimate'] else ''}{words.size(total)}" if total else "?"
    left = words.duration(one["eta_s"]) if one["eta_s"] else ""
    return [picture.name_of(one), one["status"], f"{one['progress']:.1f} %", size, left, one["task_id"]]


def _from_ledger(settings: Settings, states: tuple[Status, ...] | None, *, abandoned: bool) -> list[Snapshot]:
    """``abandoned``: no server is there, so nobody works on them."""
    from mlx_manager.storage.reading import read_downloads

    now = time.time()
    downloads = read_downloads(settings.database, states)
    # A row says what was when its server died; what is true now is what the next server will make of it.
    return [snapshot(apply(one, Requeued(now)) if abandoned and one.status.is_active else one) for one in downloads]


def list_models(settings: Settings, *, as_json: bool) -> None:
    """Raises DiskError. ``--json`` prints one array, as ``models`` of /api/models/local."""
    from mlx_manager.services.hf_cache import HfCache

    # Looked at here and not asked of a server, which may have another cache than this environment says.
    found = HfCache(settings.hf_hub_cache, memory=settings.library_memory).local()
    if as_json:
        _print_json([one.shown() for one in found])
        return
    out = Teller(sys.stdout)
    if not found:
        out.line(f"No models in {settings.hf_hub_cache}.", whole=True)
        return
    columns = [
        Column("MODEL", shrinks=True),
        Column("COMMIT"),
        Column("ON DISK", right=True),
        Column("STATE"),
        Column("FILES", yields=True),
    ]
    for line in table(columns, [_model_row(one) for one in found], out.width, out.glyphs):
        out.line(line, whole=True)


def _model_row(one: LocalModel) -> list[str]:
    state = "complete" if one.complete else "partial"
    # What is here of a part, only its download knows: the disk gave it all its room before the first byte.
    return [one.model_id, (one.commit or "")[:7], words.size(one.size_bytes), state, _whole_files(one)]


def _whole_files(one: LocalModel) -> str:
    spoken_of = next((revision for revision in one.revisions if revision.commit == one.commit), None)
    if one.complete or spoken_of is None or spoken_of.files_total is None:
        return ""
    return f"{spoken_of.files} of {spoken_of.files_total} whole"


def _print_json(found: list[dict[str, Any]]) -> None:
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
