"""The command line. Always a client: of the server that runs, over HTTP, or of one that it runs itself."""

from __future__ import annotations

import gc


def main() -> None:
    """The console script ``mlx-manager``."""
    # A command makes a hundred thousand objects while it imports, nearly all to stay: to look through them for cycles
    # takes a tenth of its start and finds a few hundred.
    gc.disable()
    # Imported here so that whoever imports a part of this package does not pay for all of it.
    from mlx_manager.cli.app import run

    run()


def stay() -> None:
    """The start is over, and what comes may last for hours: from here on memory counts. What the start has made is not
    looked through again."""
    gc.freeze()
    gc.enable()
