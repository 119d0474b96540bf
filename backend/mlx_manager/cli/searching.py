"""`mlx-manager search`: what there is on the Hub, and what of it runs here."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from mlx_manager.cli.columns import Column, table
from mlx_manager.cli.connect import Connector
from mlx_manager.cli.terminal import Teller
from mlx_manager.domain import words
from mlx_manager.settings import Settings

MOST = 100
"""Models on one page, as the API has it."""
FITS = {"fits": "fits", "tight": "tight", "no": "too large", "unknown": "?"}


def search(settings: Settings, wish: Mapping[str, Any], *, as_json: bool) -> None:
    """``wish``: the API's parameters, ``limit`` among them. ``--json`` prints the answer of /api/models/search. Raises
    MlxManagerError."""
    with Connector(settings) as servers:
        page = servers.connect().search(wish)
    if as_json:
        sys.stdout.write(json.dumps(page, indent=2) + "\n")
        return
    out, notes = Teller(sys.stdout), Teller(sys.stderr)
    columns = [
        Column("MODEL", shrinks=True),
        Column("PARAMS", right=True),
        Column("QUANT"),
        Column("SIZE", right=True),
        Column("HERE?"),
        Column("ACCESS"),
        Column("DOWNLOADS", right=True, yields=True),
        Column("LICENCE", yields=True),
    ]
    lines = table(columns, [_row(one) for one in page["models"]], out.width, out.glyphs) if page["models"] else []
    for line in lines:
        out.line(line, whole=True)
    if page["note"]:
        notes.line(page["note"])
    if not page["models"] and wish.get("mlx") is not False:
        notes.line("`mlx-manager search --all` looks beyond MLX.")
    if page["models"] and out.width is not None:
        notes.line("`mlx-manager show MODEL` tells all of one, `mlx-manager pull MODEL` downloads it.")
        if any(one["model_id"] not in line for one, line in zip(page["models"], lines[1:], strict=True)):
            notes.line("Some names are shortened: a wider window shows them whole, and so does --json.")
        if page["next_cursor"]:
            larger = "" if wish["limit"] >= MOST else f"--limit {MOST} shows the first hundred; "
            notes.line(f"There are more: {larger}words and filters narrow the list.")


def _row(hit: Mapping[str, Any]) -> list[str]:
    size = "?" if hit["size_bytes"] is None else words.size(hit["size_bytes"])
    here = {"complete": "downloaded", "partial": "partly"}.get(hit["local"] or "", FITS[hit["fit"]["verdict"]])
    return [
        hit["model_id"],
        "" if hit["params"] is None else words.amount(hit["params"]),
        hit["quant"]["label"] if hit["quant"] else "",
        f"~{size}" if hit["size_is_estimate"] else size,
        here,
        "gated" if hit["gated"] else "",
        words.amount(hit["downloads"]),
        hit["licence"] or "",
    ]
