"""The command line. Always a client: of the server that runs, over HTTP, or of one that it runs itself."""

from __future__ import annotations

import gc

USUAL_GC = gc.get_threshold()
"""How often Python looks for cycles by itself: for what runs for days."""


def main() -> None:
    """The console script ``mlx-manager``."""
    # A command makes a hundred thousand objects while it imports, nearly all to stay: to look through them for cycles
    # after every few hundred takes a sixth of its start.
    gc.set_threshold(50_000, *USUAL_GC[1:])
    # Imported here so that whoever imports a part of this package does not pay for all of it.
    from mlx_manager.cli.app import run

    run()
