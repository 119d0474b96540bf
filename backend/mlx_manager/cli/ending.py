"""What `mlx-manager pull` says at the end: where the model is and how to use it, or why not and how to go on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mlx_manager.cli import picture
from mlx_manager.cli.asking import command_for
from mlx_manager.cli.client import Snapshot
from mlx_manager.cli.exits import ExitCode, exit_code_of
from mlx_manager.cli.terminal import Teller
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.states import Status
from mlx_manager.errors import MlxManagerError


@dataclass(frozen=True, slots=True)
class End:
    """How the watching ended. ``snapshot`` is the last one, if there was any; ``is_at_rest``: nothing moves any more.
    ``signal`` is the one that ended it."""

    snapshot: Snapshot | None
    signal: int | None = None
    is_at_rest: bool = True


def tell_end(end: End, wanted: ModelRequest, cache: Callable[[], str], *, as_json: bool, quiet: bool) -> int:
    """The exit code. ``cache``: where the models are, asked only when there is something to show."""
    snapshot = end.snapshot
    if snapshot is not None and snapshot["status"] == Status.COMPLETED:
        if not as_json:
            _tell_complete(snapshot, _folder(cache(), snapshot), quiet=quiet)
        return ExitCode.OK
    if end.signal is not None:
        _tell_interrupted(end, wanted)
        return 128 + end.signal
    assert snapshot is not None, "it is at rest"
    _tell_stopped(snapshot, wanted)
    return exit_code_of(snapshot["status"])


def _folder(cache: str, snapshot: Snapshot) -> Path:
    """The snapshot of a complete model in the standard cache's layout."""
    return Path(cache) / f"models--{snapshot['model_id'].replace('/', '--')}" / "snapshots" / str(snapshot["commit"])


def _tell_complete(snapshot: Snapshot, folder: Path, *, quiet: bool) -> None:
    if quiet:
        sys.stdout.write(f"{folder}\n")
        return
    out = Teller(sys.stdout)
    out.line(f"{picture.name_of(snapshot)} is complete.", mark="done", style="green")
    out.line(f"  {snapshot['message']}")
    out.line(f"  {folder}", whole=True)
    if not snapshot["allow_patterns"] and not snapshot["ignore_patterns"]:
        model = snapshot["model_id"] if snapshot["revision"] == "main" else str(folder)
        out.line(f'  Try it: mlx_lm.generate --model {shlex.quote(model)} --prompt "Hello"', whole=True)


def _tell_interrupted(end: End, wanted: ModelRequest) -> None:
    err = Teller(sys.stderr)
    at = f" at {end.snapshot['progress']} %" if end.snapshot is not None else ""
    if end.is_at_rest and end.snapshot is not None and end.snapshot["status"] == Status.PAUSED:
        err.line(f"Paused{at}. All that was received is kept.")
    elif end.snapshot is not None and end.is_at_rest:
        err.line(f"{wanted.model_id} is {end.snapshot['status']}: {end.snapshot['message']}")
    else:
        err.line(f"Ended{at}. All that was received is kept.")
    err.line(f"Go on with: {command_for(wanted)}", mark="arrow", whole=True)


def _tell_stopped(snapshot: Snapshot, wanted: ModelRequest) -> None:
    """It came to rest without completing, and not by us."""
    err = Teller(sys.stderr)
    status = Status(snapshot["status"])
    if status is Status.FAILED or snapshot["error"]:
        err.line(f"Error: {snapshot['error'] or snapshot['message']}", style="red")
        err.line(snapshot["advice"] or MlxManagerError.default_advice, mark="arrow")
    elif status is Status.CANCELLED:
        err.line(f"{wanted.model_id} was cancelled from elsewhere. Nothing partial was kept.")
    else:
        err.line(
            f"{wanted.model_id} was paused from elsewhere at {snapshot['progress']} %. All received bytes are kept."
        )
    if status is not Status.FAILED:
        again = "Go on with" if status is Status.PAUSED else "Begin again with"
        err.line(f"{again}: {command_for(wanted)}", mark="arrow", whole=True)
