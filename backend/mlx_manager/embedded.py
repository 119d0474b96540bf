"""The server in a thread of a program that goes on with other things.

The program asks the core itself, without HTTP. The web framework takes longer to import than a small model to download,
so it is imported when somebody else comes to the door: until then the kernel lets them wait in the line of the
listening socket.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.errors import DataDirNotWritable, ServerUnreachable
from mlx_manager.process import Door, Process, end_core
from mlx_manager.settings import Settings
from mlx_manager.wiring import Core

if TYPE_CHECKING:
    from mlx_manager.connections import Patience

logger = logging.getLogger(__name__)

T = TypeVar("T")


class EmbeddedServer:
    """As `serve`, but in a thread of this process, and no signal is touched.

    Its log goes to the file alone: the terminal belongs to the program. Downloads that an earlier process left behind
    rest until they are asked for: the program came for its own.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        stderr: bool = False,
        patience: Patience | None = None,
        comes_for: ModelRequest | None = None,
    ) -> None:
        """``settings.port`` 0 takes any free port. ``stderr``: the program wants the log on its terminal too.
        ``comes_for``: what it will ask for first.
        ``patience``: with whoever comes to the door, the usual one where it is None."""
        self._patience = patience
        self._ready: Future[str] = Future()
        self._process = Process(
            settings, self._answer, on_ready=self._ready.set_result, serving=False, stderr=stderr, comes_for=comes_for
        )
        # A daemon: a program that dies of something else must not be held by it; all bytes are safe at any moment.
        self._thread = threading.Thread(target=self._run, name="mlx-manager-server", daemon=True)
        self._inside: tuple[Core, asyncio.AbstractEventLoop] | None = None

    def start(self, timeout_s: float = 30.0) -> str:
        """The URL, once others can come. Raises StartError, and TimeoutError when it takes over ``timeout_s``."""
        self._thread.start()
        return self._ready.result(timeout_s)

    def ask(self, work: Callable[[Core], Coroutine[Any, Any, T]], within_s: float) -> T:
        """What the core answers, asked on its own loop; from any thread but that one, once it has started. Raises what
        ``work`` raises, TimeoutError, and ServerUnreachable when it has ended."""
        assert self._inside is not None, "it was started"
        core, loop = self._inside
        question = work(core)
        try:
            answer = asyncio.run_coroutine_threadsafe(question, loop)
        except RuntimeError as error:
            question.close()
            raise ServerUnreachable("The server inside this command has ended.") from error
        try:
            return answer.result(within_s)
        except CancelledError as error:
            raise ServerUnreachable("The server inside this command has ended.") from error
        except TimeoutError:
            answer.cancel()
            raise

    def stop(self) -> None:
        """End as `serve` does at SIGTERM, and wait for it. Twice is fine."""
        self._process.stop()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._process.run()
        except BaseException as error:
            if self._ready.done():
                logger.exception("The server ended by an error.")
                raise
            self._ready.set_exception(error)

    async def _answer(self, door: Door) -> None:
        """A `process.Answer`."""
        self._inside = door.core, asyncio.get_running_loop()
        door.open()
        if await _somebody_comes(door):
            logger.debug("Somebody has come; they are answered from now on.")
            try:
                answer = await asyncio.to_thread(_import_answer)
                await (answer(door) if self._patience is None else answer(door, patience=self._patience))
            except Exception:
                # An upgrade under a long download may have taken the code away, for example. The program came for its
                # download, not for visitors.
                logger.exception("Others cannot be answered: from now on this process works for its own command alone.")
                _wall_up(door)
                await door.closing.wait()
            else:
                return
        await end_core(door.core)


async def _somebody_comes(door: Door) -> bool:
    """True when somebody waits at the door, False when it closes before."""
    loop, comes = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(door.listener, comes.set)
    waits = [asyncio.create_task(event.wait()) for event in (comes, door.closing)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        loop.remove_reader(door.listener)
        for wait in waits:
            wait.cancel()
    return not door.closing.is_set()


def _wall_up(door: Door) -> None:
    try:
        door.wall_up()
    except DataDirNotWritable as error:
        # Whoever reads it is refused.
        logger.warning("The address of this process is still announced: %s", error.detail)


def _import_answer() -> Callable[..., Coroutine[Any, Any, None]]:
    from mlx_manager.server import answer

    return answer


def embedded(settings: Settings, *, stderr: bool = False, comes_for: ModelRequest | None = None) -> EmbeddedServer:
    """A server for one program's own use, on a loopback port of its own."""
    return EmbeddedServer(replace(settings, host="127.0.0.1", port=0, names=()), stderr=stderr, comes_for=comes_for)
