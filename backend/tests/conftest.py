"""What holds for every test: nothing is left running behind it, and nothing leaves this machine.

Async tests run through anyio's pytest plugin on asyncio; `async def test_…` is all it takes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from inspect import iscoroutinefunction
from typing import Any

import pytest

# Read when the library is imported: with it on, its first request asks the real Hub which AI tools there are.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

GRACE_S = 2.0
# One for the life of the process, as a library makes it at its first use.
LASTING_THREADS = frozenset({"tqdm_monitor"})


class Guard:
    """Hears of every address that Python's own sockets are about to reach, and refuses those beyond this machine.

    libcurl has sockets of its own, which it does not see.
    """

    def __init__(self) -> None:
        self.refused: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto"):
            address = arguments[1]
            # A Unix socket's address is a path.
            host = address[0] if isinstance(address, tuple) else "localhost"
        elif event == "socket.getaddrinfo":
            host = arguments[0]
        else:
            return
        if not _is_here(host):
            self.refused.append(f"{event} {host}")
            raise OSError(f"Tests stay on this machine: {event} {host} was refused.")


def _is_here(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    # No name ends in .invalid anywhere (RFC 6761): the way to test a name that can't be found.
    if name == "localhost" or name.endswith((".localhost", ".invalid")):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def pytest_configure(config: pytest.Config) -> None:
    # Whoever runs the tests in the background (nohup, a shell's &) has them ignored, and every process that a test
    # starts inherits that; but the tests are about what these signals do.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    guard = Guard()
    # An audit hook stays for the life of the process, which is this test run.
    sys.addaudithook(guard)
    config.stash[_GUARD] = guard


_GUARD = pytest.StashKey[Guard]()


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Module | pytest.Class, name: str, obj: object) -> None:
    if collector.istestfunction(obj, name) and iscoroutinefunction(obj):
        pytest.mark.usefixtures("no_task_left")(obj)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logged goes from process to process as UTF-8, and tests of hostile names log what that can't hold."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def _tests_tasks() -> set[asyncio.Task[Any]]:
    """All but those of anyio's test runner, which wait for us."""
    tasks = asyncio.all_tasks()
    return {task for task in tasks if not getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")}


@pytest.fixture
async def no_task_left() -> AsyncIterator[None]:
    """Every asyncio task that a test began has ended with it."""
    before = _tests_tasks()
    yield
    until = time.monotonic() + GRACE_S
    while (left := _tests_tasks() - before) and time.monotonic() < until:
        await asyncio.wait(left, timeout=0.05)
    assert not left, f"tasks left running: {', '.join(sorted(task.get_name() for task in left))}"


def _threads_since(before: set[threading.Thread]) -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one not in before and one.name not in LASTING_THREADS]


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every thread that a test began has ended with it, and no address beyond this machine was asked for."""
    guard = request.config.stash[_GUARD]
    guard.refused.clear()
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + GRACE_S
    # Not joined: one that another thread is just about to start can't be.
    while (left := _threads_since(before)) and time.monotonic() < until:
        time.sleep(0.005)
    assert not left, f"threads left running: {', '.join(sorted(thread.name for thread in left))}"
    assert not guard.refused, f"reached beyond this machine: {guard.refused}"
