"""`mlx-manager rm`: says what would go, asks, and removes it."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from mlx_manager.cli.connect import Connector
from mlx_manager.cli.terminal import Teller
from mlx_manager.domain import words
from mlx_manager.domain.catalog import check_revision
from mlx_manager.errors import ModelInUse
from mlx_manager.settings import Settings


def remove(settings: Settings, spec: str, *, leftovers: bool, yes: bool, as_json: bool) -> None:
    """``spec``: ORG/MODEL[@REV]. Raises MlxManagerError. ``--json`` prints what was removed, as the API answers."""
    model_id, at, revision = spec.partition("@")
    if at and leftovers:
        raise click.BadParameter("--leftovers belong to no revision: leave @REV out.")
    if not yes and not sys.stdin.isatty():
        raise click.BadParameter("Nobody is there to be asked: give --yes to delete without a question.")
    params = {"revision": check_revision(revision)} if at else {"leftovers": "true"} if leftovers else {}
    out = Teller(sys.stderr if as_json else sys.stdout)
    with Connector(settings) as servers:
        api = servers.connect()
        plan = api.deletion(model_id, params)
        if plan["blocked"]:
            raise ModelInUse(plan["blocked"])
        if not plan["files"] and not plan["whole_model"]:
            out.line(plan["note"] or "There is nothing to delete.")
        elif yes or _agreed(out, plan, leftovers=leftovers):
            plan = api.delete(model_id, params)
            out.line(f"{_what(plan, leftovers=leftovers)} deleted, {words.size(plan['freed_bytes'])} freed.")
            if plan["note"]:
                out.line(plan["note"])
        else:
            out.line("Nothing was deleted.")
            raise click.exceptions.Exit(1)
    if as_json:
        sys.stdout.write(json.dumps(plan, indent=2) + "\n")


def _agreed(out: Teller, plan: dict[str, Any], *, leftovers: bool) -> bool:
    what = _what(plan, leftovers=leftovers)
    out.line(f"{what} would go: {words.count(plan['files'], 'file')}, {words.size(plan['freed_bytes'])} freed.")
    if plan["note"]:
        out.line(plan["note"])
    try:
        return click.confirm("Delete?", err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None  # ends like everywhere else
        raise


def _what(plan: dict[str, Any], *, leftovers: bool) -> str:
    if leftovers:
        return f"The leftovers of {plan['model_id']}"
    if plan["whole_model"]:
        return str(plan["model_id"])
    return f"{plan['model_id']} at {plan['revisions'][0][:7]}"
