"""The command line. Always a client of the HTTP API: of the server that runs, or of one that it runs itself."""

from __future__ import annotations


def main() -> None:
    """The console script ``mlx-manager``."""
    # Imported here so that whoever imports a part of this package does not pay for all of it.
    from mlx_manager.cli.app import run

    run()
