"""`mlx-manager serve`."""

from __future__ import annotations

import sys
import threading
import webbrowser
from dataclasses import replace

from mlx_manager.cli import stay
from mlx_manager.cli.terminal import Teller
from mlx_manager.server import serve
from mlx_manager.services.access import make_pass, read_token
from mlx_manager.settings import Settings

BROWSER_STARTS_S = 60.0
"""So long the address that a browser is started with lets it in."""


def run_server(settings: Settings, *, host: str | None, port: int | None, open_page: bool, verbose: bool) -> None:
    """Until a signal ends it. Raises StartError."""
    stay()
    settings = replace(
        settings,
        host=settings.host if host is None else host,
        port=settings.port if port is None else port,
        log_level="DEBUG" if verbose else settings.log_level,
    )
    out = Teller(sys.stdout)
    is_first = settings.needs_token and read_token(settings.home) is None

    def ready(url: str) -> None:
        out.line(f"MLX Manager serves {url}", whole=True)
        if settings.needs_token:
            _tell_of_token(out, settings, is_first=is_first)
        out.line("Ctrl-C stops it; unfinished downloads go on at the next start.")
        sys.stdout.flush()
        if open_page:
            # Some browsers return only when they are closed.
            page = _page(settings, url)
            threading.Thread(target=webbrowser.open, args=(page,), name="browser", daemon=True).start()

    serve(settings, on_ready=ready)


def _tell_of_token(out: Teller, settings: Settings, *, is_first: bool) -> None:
    if not is_first:
        out.line("It asks for the access token, which `mlx-manager token` shows.")
    elif not sys.stdout.isatty():
        # Where it goes is kept, as the journal of a service manager is: no place for a secret.
        out.line("It asks for an access token, which was made just now: `mlx-manager token` shows it.")
    else:
        from mlx_manager.cli.token import tell_token

        out.line("It asks for an access token, which was made just now and is shown this once:")
        tell_token(out, settings)
        out.line("`mlx-manager token` shows it again.")


def _page(settings: Settings, url: str) -> str:
    token = read_token(settings.home) if settings.needs_token else None
    # Not the token: other users of this machine can see what a browser was started with.
    return url if token is None else f"{url}/access?token={make_pass(token, BROWSER_STARTS_S)}"
