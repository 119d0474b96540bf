"""`mlx-manager token`: what lets a browser or a script in where a server asks for it."""

from __future__ import annotations

import sys

from mlx_manager.cli.connect import Connector, silence_of
from mlx_manager.cli.terminal import Teller
from mlx_manager.errors import MlxManagerError
from mlx_manager.services.access import make_token
from mlx_manager.services.data_dir import running_server
from mlx_manager.settings import Settings


def show_token(settings: Settings, *, renew: bool, quiet: bool) -> None:
    """Made where there is none yet, so that it can be known before the first start. Raises MlxManagerError."""
    make_token(settings.home, renew=renew)
    out = Teller(sys.stdout)
    if quiet:
        out.line(make_token(settings.home), whole=True)
        return
    tell_token(out, settings)
    if renew:
        out.line("The one from before is worth nothing any more: browsers have to sign in again.")
        _have_it_noticed(settings)
    server = running_server(settings.home)
    if server is None and not settings.needs_token:
        out.line("A server asks for it once it listens beyond this machine (MLX_MANAGER_HOST or serve --host).")
    elif server is not None and not server.token_needed:
        out.line("The server that runs listens on this machine alone and asks for no token.")


def tell_token(out: Teller, settings: Settings) -> None:
    """The token, and how to use it with the server that runs."""
    token = make_token(settings.home)
    server = running_server(settings.home)
    urls = [] if server is None or not server.token_needed else [*server.others, server.url]
    out.line(f"Access token: {token}", whole=True)
    for url in dict.fromkeys(urls):
        out.line(f"In a browser: {url}/access?token={token}", whole=True)
    out.line('In a script:  curl -H "Authorization: Bearer $(mlx-manager token -q)" …', whole=True)


def _have_it_noticed(settings: Settings) -> None:
    """A running server looks at the file with each request, so one is made: streams that are open end now."""
    try:
        with Connector(settings) as servers:
            servers.find()
            if servers.silent is not None:
                Teller(sys.stderr).line(f"{silence_of(servers.silent)}: its open streams go on until it does.")
    except MlxManagerError as error:
        Teller(sys.stderr).line(f"The server that runs does not answer: {error.detail}")
