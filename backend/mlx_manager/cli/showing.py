"""`mlx-manager show`: one model on one screen."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mlx_manager.cli.connect import Connector
from mlx_manager.cli.searching import FITS
from mlx_manager.cli.terminal import Teller
from mlx_manager.domain import words
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.settings import Settings

_ACCESS = {
    "granted": "gated; this account has access",
    "ask": "gated; ask for access on {url}",
    "login": "gated; ask for access on {url} and log in with `hf auth login`",
    "pending": "gated; access was asked for on {url} and is not granted yet",
}
_INDENT = 11
_BREAKS = re.compile(r"</(?:p|h[1-6]|li|tr|pre|div|blockquote)>|<br ?/?>|<hr ?/?>")


def show_model(settings: Settings, wanted: ModelRequest, *, context: int | None, card: bool, as_json: bool) -> None:
    """Raises MlxManagerError. ``--json`` prints the answer of /api/models/info."""
    with Connector(settings) as servers:
        info = servers.connect().info(wanted, context)
    if as_json:
        sys.stdout.write(json.dumps(info, indent=2) + "\n")
        return
    out = Teller(sys.stdout)
    out.line(info["model_id"], style="bold", whole=True)
    for name, value in _facts(info):
        out.fact(name, value, _INDENT)
    variants = [one for one in info["variants"] if one["fit"]["verdict"] in ("fits", "tight")][:5]
    if variants:
        out.line("The same model, running here:" if info["fit"]["verdict"] == "no" else "Its sisters that run here:")
        for one in variants:
            size = "?" if one["size_bytes"] is None else words.size(one["size_bytes"])
            out.line(f"  {one['model_id']}  {size}, {FITS[one['fit']['verdict']]}", whole=True)
    if card:
        for line in _plain(info["card_html"] or info["card_note"] or ""):
            out.line(line)
    if info["note"]:
        Teller(sys.stderr).line(info["note"])


def _facts(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    chosen = sum(file["size"] for file in info["files"] if file["chosen"])
    params = None if info["params"] is None else f"{words.amount(info['params'])} parameters"
    quant = info["quant"]["label"] if info["quant"] else None
    context = None if info["context_length"] is None else f"{info['context_length']:,} tokens"
    yield "what", ", ".join(filter(None, (info["family"], params, quant, context, info["task"]))) or "unknown"
    if info["capabilities"]:
        yield "can", ", ".join(info["capabilities"])
    left_out = info["size_bytes"] - chosen
    more = f", and {words.size(left_out)} that MLX does not need" if left_out else ""
    yield "size", f"{words.size(chosen)} in {words.count(sum(f['chosen'] for f in info['files']), 'file')}{more}"
    yield "runs here", f"{FITS[info['fit']['verdict']]}: {info['fit']['why']}"
    if info["fit"]["max_context"]:
        yield "longest", f"{info['fit']['max_context']:,} tokens fit on {info['fit']['machine']}"
    yield "here", _here(info)
    yield "licence", info["licence"] or "not told"
    if info["access"] != "open":
        yield "access", _ACCESS[info["access"]].format(url=info["access_url"])
    yield "commit", f"{info['commit'][:12]} of {(info['updated_at'] or 'an unknown day')[:10]}"
    yield "page", info["hub_url"]
    if _is_whole(info):
        yield "use it", info["use"]["mlx_lm"]
    elif info["access"] in ("open", "granted"):
        yield "get it", f"mlx-manager pull {info['model_id']}"


def _is_whole(info: Mapping[str, Any]) -> bool:
    return bool(info["local"] and info["local"]["complete"])


def _here(info: Mapping[str, Any]) -> str:
    local = info["local"]
    if local is None:
        return "nothing yet"
    state = "complete" if local["complete"] else "partly"
    newer = "; the Hub has a newer commit" if local["commit"] != info["commit"] else ""
    return f"{state}, {words.size(local['size_bytes'])} on the disk{newer}"


def _plain(card: str) -> list[str]:
    """The words of a card, line by line."""
    text = html.unescape(re.sub(r"<[^>]*>", "", _BREAKS.sub("\n", card)))
    return [line for line in (part.strip() for part in text.splitlines()) if line]
