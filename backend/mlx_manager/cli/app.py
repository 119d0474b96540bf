"""The commands and their options. What they do is imported when they are called: `--help` must be quick."""

from __future__ import annotations

import gc
import io
import sys

import click

from mlx_manager import __version__
from mlx_manager.cli import exits
from mlx_manager.domain.presets import Preset, ignored_by
from mlx_manager.errors import MlxManagerError
from mlx_manager.settings import Settings


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they stand here, and not by the alphabet."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(exits.ExitCode.INTERRUPTED) from None


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Download MLX models from the Hugging Face Hub: verified to the last byte, resumed from where they stood.",
)
def app() -> None: ...


model_argument = click.argument(
    "model", metavar="ORG/MODEL[@REV]", help="As on the model's page; REV is a branch, a tag or a commit."
)
which_argument = click.argument("which", metavar="TASK_ID|ORG/MODEL", help="From `mlx-manager ps`.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for programs.")
verbose_option = click.option("--verbose", "-v", is_flag=True, help="Each step of the work on stderr.")


def run() -> None:
    """The console script: runs the command and leaves the process with its exit code."""
    _never_fail_to_print()
    try:
        app()
    except MlxManagerError as error:
        from mlx_manager.cli.terminal import show_error

        show_error(error)
        raise SystemExit(exits.exit_code_for(error)) from None
    finally:
        # The interpreter would search all there is for cycles before it ends: a tenth of a second for nothing.
        gc.freeze()


def _never_fail_to_print() -> None:
    """A character that the locale lacks becomes ``?`` instead of an exception."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


@app.command()
@click.option("--host", help="Address to listen on [default: MLX_MANAGER_HOST]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes any free one [default: MLX_MANAGER_PORT]")
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@verbose_option
def serve(host: str | None, port: int | None, open_page: bool, verbose: bool) -> None:
    """Run the server with its web page until Ctrl-C.

    Unfinished downloads go on by themselves.
    """
    from mlx_manager.cli.serving import run_server

    run_server(Settings.load(), host=host, port=port, open_page=open_page, verbose=verbose)


@app.command(epilog=exits.help_text())
@model_argument
@click.option("--include", multiple=True, metavar="PATTERN", help="Only files that match; may be given again.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="No files that match; may be given again.")
@click.option(
    "--preset",
    type=click.Choice([preset.value for preset in Preset]),
    help="mlx: what MLX needs, no twins in other formats; all: everything.",
)
@click.option("--json", "as_json", is_flag=True, help="Each event as a line of JSON on stdout.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing on stdout but the model's folder.")
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    default=0,
    show_default=True,
    help="Higher waits less for a free slot.",
)
@verbose_option
def pull(
    model: str,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    preset: str | None,
    as_json: bool,
    quiet: bool,
    priority: int,
    verbose: bool,
) -> None:
    """Download a model into the Hugging Face cache.

    It goes on where it stood; Ctrl-C pauses it. Uses the server that runs; without one it works just as well.
    """
    from mlx_manager.cli.asking import parse_model

    if as_json and quiet:
        raise click.BadParameter("--json and --quiet exclude each other.")
    wanted = parse_model(model, include, [*exclude, *((preset and ignored_by(Preset(preset))) or ())])
    from mlx_manager.cli.pull import PullOptions
    from mlx_manager.cli.pull import pull as run_pull

    options = PullOptions(as_json=as_json, quiet=quiet, verbose=verbose, priority=priority)
    raise click.exceptions.Exit(run_pull(Settings.load(), wanted, options))


@app.command()
@click.argument("text", nargs=-1, metavar="[WORDS]...", help="Words of the model's name.")
@click.option("--author", help="Only of this user or organisation.")
@click.option("--sort", default="trending", show_default=True, help="trending, downloads, likes, updated or size.")
@click.option("--family", help="qwen, llama, gemma, …")
@click.option("--quant", multiple=True, help="4-bit, 8, mxfp4, DWQ, …; may be given again.")
@click.option("--fits", is_flag=True, help="Only what runs on this machine.")
@click.option("--can", multiple=True, help="vision, tools, thinking, embedding or audio; may be given again.")
@click.option("--all", "-a", "everything", is_flag=True, help="Not only models in MLX's format.")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@click.option("--cursor", help="Go on from there: `next_cursor` of the --json before.")
@json_option
def search(
    text: tuple[str, ...],
    author: str | None,
    sort: str,
    family: str | None,
    quant: tuple[str, ...],
    fits: bool,
    can: tuple[str, ...],
    everything: bool,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """Look for models on the Hub, and whether they run here."""
    from mlx_manager.cli.searching import search as look

    wish: dict[str, object] = {"q": " ".join(text), "author": author, "sort": sort, "family": family}
    wish |= {"quant": quant or None, "capability": can or None, "limit": limit, "cursor": cursor}
    wish |= {"fits": fits or None, "mlx": False if everything else None}
    look(Settings.load(), {name: value for name, value in wish.items() if value not in (None, "")}, as_json=as_json)


@app.command()
@model_argument
@click.option(
    "--context", type=click.IntRange(min=1), help="Tokens of the conversation that has to fit [default: 4096]"
)
@click.option("--card", is_flag=True, help="The model's card too.")
@json_option
def show(model: str, context: int | None, card: bool, as_json: bool) -> None:
    """Show one model: what it is, what it needs, what is here of it, and whether it runs on this machine."""
    from mlx_manager.cli.asking import parse_model
    from mlx_manager.cli.showing import show_model

    show_model(Settings.load(), parse_model(model), context=context, card=card, as_json=as_json)


@app.command()
@json_option
def ls(as_json: bool) -> None:
    """List the models of the Hugging Face cache."""
    from mlx_manager.cli.listing import list_models

    list_models(Settings.load(), as_json=as_json)


@app.command()
@click.argument("model", metavar="ORG/MODEL[@REV]", help="As in `mlx-manager ls`; with @REV only that commit.")
@click.option("--leftovers", is_flag=True, help="Only partial files, and what cancelled work has left.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@json_option
def rm(model: str, leftovers: bool, yes: bool, as_json: bool) -> None:
    """Delete a model from the Hugging Face cache.

    Says first what goes and what stays, and asks. Never deletes what is being downloaded.
    """
    from mlx_manager.cli.removing import remove

    remove(Settings.load(), model, leftovers=leftovers, yes=yes, as_json=as_json)


@app.command()
@click.option("--all", "-a", "show_all", is_flag=True, help="Finished, failed and cancelled ones too.")
@json_option
def ps(show_all: bool, as_json: bool) -> None:
    """List the downloads that are not finished."""
    from mlx_manager.cli.listing import list_downloads

    list_downloads(Settings.load(), show_all=show_all, as_json=as_json)


@app.command()
@which_argument
def pause(which: str) -> None:
    """Pause a download; all that was received is kept."""
    _move("pause", which)


@app.command()
@which_argument
def resume(which: str) -> None:
    """Have a paused or failed download go on."""
    _move("resume", which)


@app.command()
@which_argument
def cancel(which: str) -> None:
    """Cancel a download and delete what is only partly there."""
    _move("cancel", which)


@app.command()
@click.option("--renew", is_flag=True, help="Make a new one: everybody has to sign in again.")
@click.option("--quiet", "-q", is_flag=True, help="Nothing but the token.")
def token(renew: bool, quiet: bool) -> None:
    """Show the access token that a server on the network asks for."""
    from mlx_manager.cli.token import show_token

    show_token(Settings.load(), renew=renew, quiet=quiet)


@app.command(
    epilog="\b\nExit codes:\n  0  nothing is wrong\n  1  something is wrong; its line says what to do\n  2  wrong usage"
)
@json_option
def doctor(as_json: bool) -> None:
    """Check this machine and the way to the Hub, and say what to do.

    It looks and changes nothing; a command that it shows is for you to run.
    """
    from mlx_manager.cli.doctor import doctor as check

    raise click.exceptions.Exit(check(Settings.load(), as_json=as_json))


@app.command()
def version() -> None:
    """Show the version."""
    click.echo(f"mlx-manager {__version__}")


def _move(verb: str, which: str) -> None:
    from mlx_manager.cli.control import move

    move(Settings.load(), verb, which)
