"""Exit codes: a script can tell how it ended without reading a word."""

from __future__ import annotations

from enum import IntEnum

from mlx_manager.domain.states import Status
from mlx_manager.errors import InvalidSetting, MlxManagerError


class ExitCode(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    PAUSED = 3
    CANCELLED = 4
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "complete, every byte verified",
    ExitCode.FAILED: "failed; stderr says why, and what to do",
    ExitCode.USAGE: "wrong usage: no such option, id, revision or pattern can be",
    ExitCode.PAUSED: "paused by somebody else or by a full disk; all is kept",
    ExitCode.CANCELLED: "cancelled by somebody else; nothing partial was kept",
    ExitCode.INTERRUPTED: "paused by Ctrl-C; the same command goes on",
    ExitCode.TERMINATED: "ended by SIGTERM (129: SIGHUP); all is kept, `serve` goes on",
}
"""Of `mlx-manager pull`. The other commands know 0, 1, 2 and 130."""


def exit_code_of(status: str) -> ExitCode:
    """What `pull` ends with when its download is at rest in ``status``."""
    return {
        Status.COMPLETED: ExitCode.OK,
        Status.PAUSED: ExitCode.PAUSED,
        Status.CANCELLED: ExitCode.CANCELLED,
    }.get(Status(status), ExitCode.FAILED)


def exit_code_for(error: MlxManagerError) -> ExitCode:
    """2 for what was asked wrongly, 1 for what went wrong."""
    asked_wrongly = error_code(error).startswith("invalid_") and not isinstance(error, InvalidSetting)
    return ExitCode.USAGE if asked_wrongly else ExitCode.FAILED


def error_code(error: MlxManagerError) -> str:
    """The error's code; of an error that a server told, the code that the server gave it."""
    return str(getattr(error, "told_code", error.code))


def help_text() -> str:
    """For the end of a help page; the first line keeps click from filling the lines up."""
    return "\n".join(["\b", "Exit codes:", *(f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())])
