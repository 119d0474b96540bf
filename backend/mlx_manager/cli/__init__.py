"""The command line. Always a client: of the server that runs, over HTTP, or of one that it runs itself."""

from __future__ import annotations

import gc

_USUAL_GC = gc.get_threshold()


def main() -> None:
    """The console script ``mlx-manager``."""
    # A command makes a hundred thousand objects while it imports, nearly all to stay: to look through them for cycles
    # after every few hundred takes a sixth of its start.
    gc.set_threshold(50_000, *_USUAL_GC[1:])
    # Imported here so that whoever imports a part of this package does not pay for all of it.
    from mlx_manager.cli.app import run

    run()


def stay() -> None:
    """The start is over, and what comes may last for hours: from here on memory counts, not the start."""
    gc.set_threshold(*_USUAL_GC)
