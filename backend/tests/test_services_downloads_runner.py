"""What any engine owes the manager; the engine of one process is held to it here, another can join."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mlx_manager.services.downloads import InProcessRunner
from mlx_manager.services.ports import Runner, Ticket

MakeRunner = Callable[[int], Runner]
RUNNERS: list[MakeRunner] = [InProcessRunner]
PATIENCE_S = 10


@pytest.fixture(params=RUNNERS, ids=lambda make: make.__name__)
def make_runner(request: pytest.FixtureRequest) -> MakeRunner:
    made: MakeRunner = request.param
    return made


class Work:
    """Runs that last until they are told to end; what happened is in ``log``."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.running: set[str] = set()
        self.most_at_once = 0
        self.cleaning: asyncio.Event | None = None
        self._ends: dict[str, asyncio.Future[None]] = {}
        self._changed = asyncio.Event()

    async def __call__(self, download_id: str) -> None:
        self._note(f"begin {download_id}")
        self.running.add(download_id)
        self.most_at_once = max(self.most_at_once, len(self.running))
        self._ends[download_id] = asyncio.get_running_loop().create_future()
        try:
            await self._ends[download_id]
            self._note(f"end {download_id}")
        except asyncio.CancelledError:
            self._note(f"stop {download_id}")
            if self.cleaning is not None:
                await self.cleaning.wait()
                self._note(f"clean {download_id}")
            raise
        finally:
            self.running.discard(download_id)

    def finish(self, download_id: str, error: Exception | None = None) -> None:
        if error:
            self._ends[download_id].set_exception(error)
        else:
            self._ends[download_id].set_result(None)

    async def logged(self, *lines: str) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.log != list(lines):
                assert self.log == list(lines)[: len(self.log)]
                self._changed.clear()
                await self._changed.wait()

    def _note(self, line: str) -> None:
        self.log.append(line)
        self._changed.set()


async def started(make_runner: MakeRunner, capacity: int = 1) -> tuple[Runner, Work]:
    runner, work = make_runner(capacity), Work()
    await runner.start(work)
    return runner, work


async def test_so_many_run_at_once_and_the_others_wait_in_order(make_runner: MakeRunner) -> None:
    runner, work = await started(make_runner, capacity=2)
    for name in "abcd":
        runner.submit(Ticket(name))
    assert runner.waiting() == ("c", "d")
    await work.logged("begin a", "begin b")
    work.finish("b")
    await work.logged("begin a", "begin b", "end b", "begin c")
    assert runner.waiting() == ("d",)
    work.finish("a")
    await work.logged("begin a", "begin b", "end b", "begin c", "end a", "begin d")
    assert work.most_at_once == 2
    await runner.stop()


async def test_whether_a_slot_was_free_is_known_at_once(make_runner: MakeRunner) -> None:
    runner, _ = await started(make_runner)
    runner.submit(Ticket("a"))
    assert "a" not in runner.waiting()
    runner.submit(Ticket("b"))
    assert "b" in runner.waiting()
    await runner.stop()


async def test_the_higher_priority_comes_first_then_the_earlier(make_runner: MakeRunner) -> None:
    runner, _ = await started(make_runner)
    for name, priority in (("runs", 0), ("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0)):
        runner.submit(Ticket(name, priority))
    assert runner.waiting() == ("b", "d", "a", "e", "c")
    await runner.stop()


async def test_twice_the_same_is_once(make_runner: MakeRunner) -> None:
    runner, work = await started(make_runner)
    for name in ("a", "a", "b", "b"):
        runner.submit(Ticket(name))
    assert runner.waiting() == ("b",)
    await work.logged("begin a")
    runner.submit(Ticket("a"))
    assert runner.waiting() == ("b",)
    await runner.stop()


async def test_what_was_submitted_before_the_start_runs_after_it(make_runner: MakeRunner) -> None:
    runner, work = make_runner(1), Work()
    runner.submit(Ticket("a"))
    runner.submit(Ticket("b", 1))
    assert runner.waiting() == ("b", "a")
    await runner.start(work)
    await work.logged("begin b")
    await runner.stop()


async def test_one_that_has_ended_can_be_submitted_again(make_runner: MakeRunner) -> None:
    runner, work = await started(make_runner)
    runner.submit(Ticket("a"))
    await work.logged("begin a")
    work.finish("a")
    await work.logged("begin a", "end a")
    await runner.cancel("a")
    runner.submit(Ticket("a"))
    await work.logged("begin a", "end a", "begin a")
    await runner.stop()


async def test_a_cancel_returns_when_it_is_still(make_runner: MakeRunner) -> None:
    runner, work = await started(make_runner)
    work.cleaning = asyncio.Event()
    runner.submit(Ticket("a"))
    runner.submit(Ticket("b"))
    await work.logged("begin a")
    cancel = asyncio.ensure_future(runner.cancel("a"))
    await work.logged("begin a", "stop a")
    assert not cancel.done()
    work.cleaning.set()
    await asyncio.wait_for(cancel, PATIENCE_S)
    assert work.log[:3] == ["begin a", "stop a", "clean a"]
    await work.logged("begin a", "stop a", "clean a", "begin b")
    await runner.stop()


async def test_a_second_cancel_does_not_disturb_the_cleaning_up(make_runner: MakeRunner) -> None:
    runner, work = await started(make_runner)
    work.cleaning = asyncio.Event()
    runner.submit(Ticket("a"))
    await work.logged("begin a")
    cancels = [asyncio.ensure_future(runner.cancel("a")) for _ in range(3)]
    await work.logged("begin a", "stop a")
    cancels.append(asyncio.ensure_future(runner.cancel("a")))
    stop = asyncio.ensure_future(runner.stop())
    impatient = asyncio.ensure_future(runner.cancel("a"))
    await asyncio.sleep(0)
    impatient.cancel()
    await asyncio.wait([impatient])
    assert not any(one.done() for one in (*cancels, stop))
    work.cleaning.set()
    await asyncio.wait_for(asyncio.gather(*cancels, stop), PATIENCE_S)
    assert work.log == ["begin a", "stop a", "clean a"]


async def test_one_that_waits_is_taken_out_of_the_line(make_runner: MakeRunner) -> None:
    runner, work = await started(make_runner)
    for name in "abc":
        runner.submit(Ticket(name))
    await work.logged("begin a")
    await runner.cancel("b")
    assert runner.waiting() == ("c",)
    work.finish("a")
    await work.logged("begin a", "end a", "begin c")
    await runner.stop()


async def test_one_that_is_cancelled_before_its_first_step_frees_its_slot(make_runner: MakeRunner) -> None:
    runner, work = await started(make_runner)
    runner.submit(Ticket("a"))
    await runner.cancel("a")
    runner.submit(Ticket("b"))
    await work.logged("begin b")
    runner.submit(Ticket("a"))
    assert runner.waiting() == ("a",)
    await runner.stop()


async def test_cancelling_an_unknown_one_is_fine(make_runner: MakeRunner) -> None:
    runner, _ = await started(make_runner)
    await runner.cancel("nobody")
    await runner.stop()


async def test_a_stop_interrupts_all_and_forgets_the_line(make_runner: MakeRunner) -> None:
    runner, work = await started(make_runner, capacity=2)
    for name in "abc":
        runner.submit(Ticket(name))
    await work.logged("begin a", "begin b")
    await asyncio.wait_for(runner.stop(), PATIENCE_S)
    assert sorted(work.log) == ["begin a", "begin b", "stop a", "stop b"]
    assert runner.waiting() == ()
    await runner.stop()


async def test_more_capacity_begins_more_and_less_interrupts_none(make_runner: MakeRunner) -> None:
    runner, work = await started(make_runner)
    for name in "abcd":
        runner.submit(Ticket(name))
    runner.set_capacity(3)
    await work.logged("begin a", "begin b", "begin c")
    runner.set_capacity(1)
    work.finish("a")
    work.finish("b")
    await work.logged("begin a", "begin b", "begin c", "end a", "end b")
    assert runner.waiting() == ("d",)
    work.finish("c")
    await work.logged("begin a", "begin b", "begin c", "end a", "end b", "end c", "begin d")
    await runner.stop()


@pytest.mark.parametrize("capacity", [0, -1])
async def test_no_capacity_is_a_mistake(make_runner: MakeRunner, capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        make_runner(capacity)
    runner, _ = await started(make_runner)
    with pytest.raises(ValueError, match="capacity"):
        runner.set_capacity(capacity)
    await runner.stop()


async def test_a_run_that_breaks_does_not_hold_the_line_up(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    runner, work = await started(make_runner)
    runner.submit(Ticket("a"))
    runner.submit(Ticket("b"))
    await work.logged("begin a")
    work.finish("a", RuntimeError("broken"))
    await work.logged("begin a", "begin b")
    assert "RuntimeError: broken" in caplog.text
    await runner.stop()
