"""`mlx-manager pause`, `resume` and `cancel`."""

from __future__ import annotations

import re
import sys

from mlx_manager.cli.asking import command_for, parse_model
from mlx_manager.cli.client import ApiClient, Snapshot
from mlx_manager.cli.connect import Connector, silence_of
from mlx_manager.cli.picture import name_of
from mlx_manager.cli.terminal import Teller
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.states import Status
from mlx_manager.errors import DownloadNotFound, MoveNotAllowed, ServerUnreachable
from mlx_manager.settings import Settings

_WAITING = tuple(status for status in Status if status.is_in_flight)
_MOVABLE = {
    "pause": tuple(status for status in _WAITING if status is not Status.PAUSED),
    "resume": (Status.PAUSED, Status.FAILED),
    "cancel": (*_WAITING, Status.FAILED),
}


_TASK_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


def move(settings: Settings, verb: str, which: str) -> None:
    """``which`` is a task id or ORG/MODEL[@REV]. Raises MlxManagerError.

    Pausing and cancelling need no server: what they change is the ledger and the disk. Going on needs somebody who
    does the work.
    """
    with Connector(settings) as servers:
        api = servers.find() if verb == "resume" else servers.connect()
        if servers.silent is not None:
            raise ServerUnreachable(f"{silence_of(servers.silent)}.", advice="Wait for it or end it, then try again.")
        if api is None:
            raise ServerUnreachable(
                "No server is running, so nobody is there who would go on with it.",
                advice=f"Go on with it here: {_command(which)}; or start `mlx-manager serve` first.",
            )
        before = _look_up(api, verb, which)
        after = api.move(str(before["task_id"]), verb)
    Teller(sys.stdout).line(f"{name_of(after)}: {after['message']}")


def _command(which: str) -> str:
    return command_for(parse_model(which)) if "/" in which else "mlx-manager pull ORG/MODEL"


def _look_up(api: ApiClient, verb: str, which: str) -> Snapshot:
    if "/" not in which:
        if not _TASK_ID.fullmatch(which):
            # Never sent: as a part of an address it would be another one.
            raise DownloadNotFound(
                f"{which[:80]!r} is neither a task id nor ORG/MODEL.",
                advice="`mlx-manager ps --all` lists all that are known.",
            )
        return api.status(which)
    wanted = parse_model(which)
    same = [one for one in api.downloads() if _is_about(one, wanted, exactly="@" in which)]
    if not same:
        raise DownloadNotFound(
            f"There is no download of {which}.", advice="`mlx-manager ps --all` lists all that are known."
        )
    movable = [one for one in same if one["status"] in _MOVABLE[verb]]
    if not movable:
        raise MoveNotAllowed(f"The download of {which} is {same[0]['status']}; there is nothing to {verb}.")
    # Of those that failed the newest is meant, and only if none is under way.
    under_way = [one for one in movable if one["status"] != Status.FAILED]
    if len(under_way) > 1:
        ids = ", ".join(str(one["task_id"]) for one in under_way)
        raise MoveNotAllowed(
            f"{len(under_way)} downloads of {which} could be meant: {ids}.", advice="Name one by its task id."
        )
    return (under_way or movable)[0]


def _is_about(download: Snapshot, wanted: ModelRequest, *, exactly: bool) -> bool:
    same_model = download["model_id"].lower() == wanted.model_id.lower()
    return same_model and (not exactly or download["revision"] == wanted.revision)
