"""The commands and their options. What they do is imported when they are called: `--help` must be quick."""

from __future__ import annotations

import gc
import io
import sys
from typing import Annotated

import typer

from mlx_manager import __version__
from mlx_manager.cli import exits
from mlx_manager.domain.presets import Preset, ignored_by
from mlx_manager.errors import MlxManagerError
from mlx_manager.settings import Settings

app = typer.Typer(
    name="mlx-manager",
    no_args_is_help=True,
    add_completion=False,
    # An error that nobody expected is shown as Python shows it, without the values of variables: one may be a token.
    pretty_exceptions_enable=False,
    # Docstrings are plain text.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Download MLX models from the Hugging Face Hub: verified to the last byte, resumed from where they stood.",
)

ModelArgument = Annotated[
    str, typer.Argument(metavar="ORG/MODEL[@REV]", help="As on the model's page; REV is a branch, a tag or a commit.")
]
WhichArgument = Annotated[str, typer.Argument(metavar="TASK_ID|ORG/MODEL", help="From `mlx-manager ps`.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", "-v", help="Each step of the work on stderr.")]


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
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: MLX_MANAGER_HOST]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; 0 takes any free one [default: MLX_MANAGER_PORT]")
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the server with its web page until Ctrl-C.

    Unfinished downloads go on by themselves.
    """
    from mlx_manager.cli.serving import run_server

    run_server(Settings.load(), host=host, port=port, open_page=open_page, verbose=verbose)


@app.command(epilog=exits.help_text())
def pull(
    model: ModelArgument,
    include: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Only files that match; may be given again.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="No files that match; may be given again.")
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="mlx: what MLX needs, no twins in other formats; all: everything.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Each event as a line of JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stdout but the model's folder.")] = False,
    priority: Annotated[int, typer.Option(min=-100, max=100, help="Higher waits less for a free slot.")] = 0,
    verbose: VerboseOption = False,
) -> None:
    """Download a model into the Hugging Face cache.

    It goes on where it stood; Ctrl-C pauses it. Uses the server that runs; without one it works just as well.
    """
    from mlx_manager.cli.asking import parse_model

    if as_json and quiet:
        raise typer.BadParameter("--json and --quiet exclude each other.")
    wanted = parse_model(model, include or (), [*(exclude or ()), *((preset and ignored_by(preset)) or ())])
    from mlx_manager.cli.pull import PullOptions
    from mlx_manager.cli.pull import pull as run_pull

    options = PullOptions(as_json=as_json, quiet=quiet, verbose=verbose, priority=priority)
    raise typer.Exit(run_pull(Settings.load(), wanted, options))


@app.command()
def search(
    text: Annotated[list[str] | None, typer.Argument(metavar="[WORDS]", help="Words of the model's name.")] = None,
    author: Annotated[str | None, typer.Option(help="Only of this user or organisation.")] = None,
    sort: Annotated[str, typer.Option(help="trending, downloads, likes, updated or size.")] = "trending",
    family: Annotated[str | None, typer.Option(help="qwen, llama, gemma, …")] = None,
    quant: Annotated[list[str] | None, typer.Option(help="4-bit, 8, mxfp4, DWQ, …; may be given again.")] = None,
    fits: Annotated[bool, typer.Option("--fits", help="Only what runs on this machine.")] = False,
    can: Annotated[
        list[str] | None, typer.Option(help="vision, tools, thinking, embedding or audio; may be given again.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Not only models in MLX's format.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on from there: `next_cursor` of the --json before.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Look for models on the Hub, and whether they run here."""
    from mlx_manager.cli.searching import search as look

    wish: dict[str, object] = {"q": " ".join(text or ()), "author": author, "sort": sort, "family": family}
    wish |= {"quant": quant, "capability": can, "limit": limit, "cursor": cursor}
    wish |= {"fits": fits or None, "mlx": False if everything else None}
    look(Settings.load(), {name: value for name, value in wish.items() if value not in (None, "")}, as_json=as_json)


@app.command()
def show(
    model: ModelArgument,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the conversation that has to fit [default: 4096]")
    ] = None,
    card: Annotated[bool, typer.Option("--card", help="The model's card too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one model: what it is, what it needs, what is here of it, and whether it runs on this machine."""
    from mlx_manager.cli.asking import parse_model
    from mlx_manager.cli.showing import show_model

    show_model(Settings.load(), parse_model(model), context=context, card=card, as_json=as_json)


@app.command()
def ls(as_json: JsonOption = False) -> None:
    """List the models of the Hugging Face cache."""
    from mlx_manager.cli.listing import list_models

    list_models(Settings.load(), as_json=as_json)


@app.command()
def rm(
    model: Annotated[
        str, typer.Argument(metavar="ORG/MODEL[@REV]", help="As in `mlx-manager ls`; with @REV only that commit.")
    ],
    leftovers: Annotated[
        bool, typer.Option("--leftovers", help="Only partial files, and what cancelled work has left.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete a model from the Hugging Face cache.

    Says first what goes and what stays, and asks. Never deletes what is being downloaded.
    """
    from mlx_manager.cli.removing import remove

    remove(Settings.load(), model, leftovers=leftovers, yes=yes, as_json=as_json)


@app.command()
def ps(
    show_all: Annotated[bool, typer.Option("--all", "-a", help="Finished, failed and cancelled ones too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the downloads that are not finished."""
    from mlx_manager.cli.listing import list_downloads

    list_downloads(Settings.load(), show_all=show_all, as_json=as_json)


@app.command()
def pause(which: WhichArgument) -> None:
    """Pause a download; all that was received is kept."""
    _move("pause", which)


@app.command()
def resume(which: WhichArgument) -> None:
    """Have a paused or failed download go on."""
    _move("resume", which)


@app.command()
def cancel(which: WhichArgument) -> None:
    """Cancel a download and delete what is only partly there."""
    _move("cancel", which)


@app.command()
def token(
    renew: Annotated[bool, typer.Option("--renew", help="Make a new one: everybody has to sign in again.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but the token.")] = False,
) -> None:
    """Show the access token that a server on the network asks for."""
    from mlx_manager.cli.token import show_token

    show_token(Settings.load(), renew=renew, quiet=quiet)


@app.command(
    epilog="\b\nExit codes:\n  0  nothing is wrong\n  1  something is wrong; its line says what to do\n  2  wrong usage"
)
def doctor(as_json: JsonOption = False) -> None:
    """Check this machine and the way to the Hub, and say what to do.

    It looks and changes nothing; a command that it shows is for you to run.
    """
    from mlx_manager.cli.doctor import doctor as check

    raise typer.Exit(check(Settings.load(), as_json=as_json))


@app.command()
def version() -> None:
    """Show the version."""
    typer.echo(f"mlx-manager {__version__}")


def _move(verb: str, which: str) -> None:
    from mlx_manager.cli.control import move

    move(Settings.load(), verb, which)
