"""The log: its two forms, where it goes, and what can never get into it. Set up once, by whoever starts the process.

People read ``<home>/logs/mlx-manager.log`` (three files of 5 MB at most: it needs no care and never fills a disk), and
stderr beside it when the server runs in their terminal or under a service manager. Both get the same lines.

Secrets are taken out of the finished line, as the last step before it is written: whatever way a token came in, as an
argument, in a traceback, from a library's logger, it passes here.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from mlx_manager.errors import DataDirNotWritable
from mlx_manager.task_context import current_task_id

HIDDEN = "[hidden]"
FILE_ONLY = {"file_only": True}
"""``extra`` of a line that whoever looks at stderr is told in another way."""
NO_TASK = "-"
_FILE_BYTES, _OLD_FILES = 5_000_000, 2

# What a secret looks like when nobody told us of it. Each pattern keeps what stands in its first group.
_SHAPES = (
    # Tokens of the Hub. Ten characters and more: hf_client or hf_transfer are names, not tokens.
    re.compile(r"(\bhf_|\bapi_org_)[A-Za-z0-9]{10,}"),
    # Headers, as text, as a dict's repr and as JSON, up to the end of the value.
    re.compile(
        r"(\b(?:proxy-)?authorization['\"]?\s*[:=,]\s*(?:b?['\"])?(?:(?:bearer|basic|token)\s+)?)[^\s'\",;)}\]]+",
        re.IGNORECASE,
    ),
    re.compile(r"(\bbearer\s+)[^\s'\",;)}\]]{8,}", re.IGNORECASE),
    re.compile(r"(\b(?:set-)?cookie['\"]?\s*[:=,]\s*['\"]?)[^'\"\r\n]+", re.IGNORECASE),
    re.compile(r"(\b(?:x-xet-)?access-?token['\"]?\s*[:=,]\s*['\"]?)[^\s'\",;)}\]]+", re.IGNORECASE),
    # A signed URL is a key to the file for an hour: what follows such a name in a query goes, whatever the order.
    re.compile(
        r"([?&;](?:X-(?:Amz|Goog)-[A-Za-z-]+|Signature|Key-Pair-Id|Policy|Expires|AWSAccessKeyId|sig|token)=)[^&\s'\"<>)]+",
        re.IGNORECASE,
    ),
    # user:password@ of a proxy.
    re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]+(?=@)", re.IGNORECASE),
)
# Control characters would let a hostile file name write lines of its own or repaint the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


class Redactor:
    """Takes secrets out of text: everything that looks like one, and the values it was told to hide."""

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()

    def hide(self, value: str | None) -> None:
        """Never let this value pass from now on. From any thread."""
        # Short ones would blacken ordinary words; no real token is that short.
        if value and len(value) >= 8 and value not in self._values:
            self._values = (*self._values, value)

    def clean(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, HIDDEN)
        for shape in _SHAPES:
            text = shape.sub(rf"\g<1>{HIDDEN}", text)
        return text


class TextFormatter(logging.Formatter):
    """``2026-11-23 07:12:27.123 INFO    3f2a9c message``: local time, and a line for each message whatever it holds."""

    def __init__(self, redactor: Redactor) -> None:
        super().__init__()
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(sep=" ", timespec="milliseconds")
        line = _visible(f"{record.levelname:<7} {_task_id(record)} {record.getMessage()}")
        traces = (f"\n{_visible(one)}" for trace in self._traces(record) for one in trace.split("\n"))
        return self._redactor.clean(f"{at[:23]} {line}{''.join(traces)}")

    def _traces(self, record: logging.LogRecord) -> Iterator[str]:
        if record.exc_info:
            yield self.formatException(record.exc_info)
        if record.stack_info:
            yield self.formatStack(record.stack_info)


class JsonFormatter(TextFormatter):
    """One JSON object a line: ``time`` (UTC), ``level``, ``logger``, ``task_id`` (null when none), ``message`` and,
    where there is one, ``traceback``."""

    def format(self, record: logging.LogRecord) -> str:
        task = _task_id(record)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line: dict[str, Any] = {
            "time": at,
            "level": record.levelname,
            "logger": record.name,
            "task_id": None if task == NO_TASK else task,
            # Before it is JSON: escaping would break the shapes up.
            "message": self._redactor.clean(record.getMessage()),
        }
        if traces := list(self._traces(record)):
            line["traceback"] = self._redactor.clean("\n".join(traces))
        return json.dumps(line, ensure_ascii=False)


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def _task_id(record: logging.LogRecord) -> str:
    return str(getattr(record, "task_id", None) or current_task_id() or NO_TASK)


class _Calm(logging.Handler):
    """A log that cannot be written is told once, on stderr. The standard handler would print the record as it came,
    arguments and all, past the redaction."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:
        if self._told or sys.stderr is None:
            return
        self._told = True
        error = sys.exc_info()[1]
        reason = f"{type(error).__name__}: {error.strerror}" if isinstance(error, OSError) else type(error).__name__
        sys.stderr.write(f"mlx-manager: a log line could not be written ({reason}); this is said once.\n")

    def close(self) -> None:
        # A full disk refuses what is still in the buffer. That must not hide why the process ends.
        with suppress(OSError):
            super().close()


class CalmStreamHandler(_Calm, logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to stderr as it is at that moment."""


class CalmFileHandler(_Calm, RotatingFileHandler):
    """Writes to the log file, and begins a new one when it is full."""


@contextmanager
def logging_to(
    *, level: str = "INFO", form: str = "text", file: Path | None = None, stderr: bool = True, redactor: Redactor
) -> Iterator[None]:
    """Log to ``file`` and stderr while inside; afterwards everything is flushed and closed. ``form``: text or json.

    Raises DataDirNotWritable when the file cannot be made.
    """
    # Not by dictConfig: it closes every handler there is, those of a program that embeds us too.
    handlers: list[logging.Handler] = []
    if stderr:
        screen = CalmStreamHandler()
        screen.addFilter(lambda record: not getattr(record, "file_only", False))
        handlers.append(screen)
    if file is not None:
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A name that is no UTF-8 is told as far as it goes, as on stderr.
            kept = CalmFileHandler(
                file, maxBytes=_FILE_BYTES, backupCount=_OLD_FILES, encoding="utf-8", errors="backslashreplace"
            )
            handlers.append(kept)
        except OSError as error:
            raise DataDirNotWritable(f"The log {file} cannot be written: {error.strerror or error}.") from error
    formatter = JsonFormatter(redactor) if form == "json" else TextFormatter(redactor)
    for handler in handlers:
        handler.setFormatter(formatter)
    levels = _levels(level)
    before = {name: logging.getLogger(name).level for name in levels}
    root = logging.getLogger()
    for name, its_level in levels.items():
        logging.getLogger(name).setLevel(its_level)
    for handler in handlers:
        root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()
        for name, its_level in before.items():
            logging.getLogger(name).setLevel(its_level)


def _levels(level: str) -> dict[str, str | int]:
    """The level of each logger that is not left to its parent; "" is the root."""
    loud = level == "DEBUG"
    return {
        "": "INFO" if loud else level,
        "mlx_manager": level,
        # Their stories are not ours: what they do for a request is told in our own words.
        **dict.fromkeys(("uvicorn", "huggingface_hub", "alembic"), "DEBUG" if loud else "WARNING"),
        # Below what anybody needs: each step of a connection, each SQL statement, each poll of a lock; and requests,
        # which are told by those who send and answer them.
        **dict.fromkeys(("asyncio", "filelock", "httpcore2", "httpx2", "sqlalchemy", "uvicorn.access"), "WARNING"),
    }
