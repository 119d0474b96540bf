"""Which download the running code works for, so that a line of the log can say it, whoever writes it.

A context variable: tasks and `asyncio.to_thread` take it along by themselves, a thread of one's own by `in_context`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any

_task_id: ContextVar[str | None] = ContextVar("task_id", default=None)


@contextmanager
def working_for(task_id: str) -> Iterator[None]:
    """What is logged while this lasts is about this download, unless it says otherwise."""
    before = _task_id.set(task_id)
    try:
        yield
    finally:
        _task_id.reset(before)


def current_task_id() -> str | None:
    return _task_id.get()


def in_context(call: Callable[[], None]) -> Callable[[], Any]:
    """``call``, to be run once in a thread of its own and to be known as the caller's work there."""
    return partial(copy_context().run, call)
