"""How a transfer's thread ends, told to the future that others wait for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from mlx_manager.errors import CacheFailed, MlxManagerError


def settle(result: Future[None], run: Callable[[], bool]) -> None:
    """Call ``run`` and put its end into ``result``: done when it returns True, cancelled when it was stopped before,
    else what it raised. Never raises."""
    error: BaseException | None = None
    complete = False
    try:
        complete = run()
    except MlxManagerError as known:
        error = known
    except OSError as trouble:
        error = CacheFailed(f"The cache's disk failed: {trouble.strerror or trouble}.")
    except BaseException as bug:  # noqa: BLE001 - it ends in the future, and there in the log
        error = bug
    if error is not None:
        result.set_exception(error)
    elif complete:
        result.set_result(None)
    else:
        result.cancel()
