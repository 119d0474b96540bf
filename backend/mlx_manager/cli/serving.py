"""`mlx-manager serve`."""

from __future__ import annotations

import sys
import threading
import webbrowser
from dataclasses import replace

from mlx_manager.cli.terminal import Teller
from mlx_manager.server import serve
from mlx_manager.settings import Settings


def run_server(settings: Settings, *, host: str | None, port: int | None, open_page: bool, verbose: bool) -> None:
    """Until a signal ends it. Raises StartError."""
    settings = replace(
        settings,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        log_level="DEBUG" if verbose else settings.log_level,
    )
    out = Teller(sys.stdout)

    def ready(url: str) -> None:
        out.line(f"MLX Manager serves {url}", whole=True)
        out.line("Ctrl-C stops it; unfinished downloads go on at the next start.")
        sys.stdout.flush()
        if open_page:
            # Some browsers return only when they are closed.
            threading.Thread(target=webbrowser.open, args=(url,), name="browser", daemon=True).start()

    serve(settings, on_ready=ready)
