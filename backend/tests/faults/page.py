"""The page docs/faults.md: what the run saw, row by row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from faults.run import Result
from faults.table import GROUPS, STALL_S, TOLD_S, Row
from mlx_manager.domain import words

PAGE = Path(__file__).resolve().parents[3] / "docs" / "faults.md"
_HEAD = f"""# What can go wrong, and what you are told

`make faults` does each of these to a real server (`mlx-manager serve`, a process of its own) over real sockets, with a
real cache on a real disk, and writes this page. Nothing here is written by hand.

- **You see** is what the event stream says: the phase, *the message* and the advice, where there is one.
- **After** is how long after the cause could be known: the moment at which the fault struck, or the last byte came. The
  promise is {TOLD_S:g} s for a cause, and {STALL_S:g} s for silence, which becomes news only by lasting.
- **End** says how it ended. *Completed* means that every file was compared, byte by byte, with what the Hub holds, and
  that nothing partial was left in the cache. After an error, everything that the cache holds under a final name was
  hashed.
- **Again** is what the Hub sent beyond the size of the model, so also what was lost on the way in the kernels' buffers.

The waits are shortened by the product's own settings: `MLX_MANAGER_HUB_TIMEOUT_S` and `MLX_MANAGER_STALL_S` are 6,
`MLX_MANAGER_SIZE_CHECK_S` is 8. Models are a few megabytes large, and every row has a Hub and a server of its own.
"""
_LISTED = re.compile(r"^\| \*\*(.+?)\*\* \|", re.MULTILINE)


def render(results: Sequence[Result], how: str) -> str:
    """The whole page. ``how``: on what machine, in how long."""
    parts = [_HEAD, f"{_summary(results)} {how}\n"]
    for group, title in GROUPS.items():
        parts.append(f"## {title}\n")
        table = ["| What is done | You see | After | End | Again |", "|---|---|---|---|---|"]
        table += [_line(result) for result in results if result.row.group == group]
        parts.append("\n".join(table) + "\n")
    return "\n".join(parts)


def listed(page: str) -> list[str]:
    """What the rows of a page say is done, in its order."""
    return [_unescaped(found) for found in _LISTED.findall(page)]


def names(rows: Sequence[Row]) -> list[str]:
    """What a page of these rows must list."""
    return [row.done for row in rows]


def _summary(results: Sequence[Result]) -> str:
    done = [result for result in results if result.outcome]
    late = [result for result in done if result.late]
    skipped = [result for result in results if result.skipped]
    said = f"{words.count(len(results), 'fault')}: {len(done)} ended as they must"
    said += f", {len(late)} of them told late" if late else ", every one told in time"
    return f"{said}; {len(skipped)} not run on this machine." if skipped else f"{said}."


def _line(result: Result) -> str:
    name = f"**{_escaped(result.row.done)}**"
    if result.outcome is None:
        return f"| {name} | not run here: it {_escaped(result.skipped)} | – | – | – |"
    outcome = result.outcome
    seen = "<br>".join(
        f"`{seen.phase}` *{_escaped(seen.message)}*" + (f" {_escaped(seen.advice)}" if seen.advice else "")
        for seen in outcome.said
    )
    after = "<br>".join("–" if seen.after_s is None else f"{seen.after_s:.1f} s" for seen in outcome.said) + (
        " **late**" if result.late else ""
    )
    end = "<br>".join([*map(_escaped, outcome.then), outcome.end])
    again = "–" if outcome.again is None else "0" if not outcome.again else words.size(outcome.again)
    return f"| {name} | {seen or 'nothing: it goes on at once'} | {after or '–'} | {end} | {again} |"


def _escaped(text: str) -> str:
    # What is another at each run says nothing.
    text = re.sub(r"((?:127\.0\.0\.1|localhost):|\(process )\d+", r"\1…", text)
    text = re.sub(r"/tmp/fault-\w+", "…", text)
    return text.replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def _unescaped(text: str) -> str:
    return text.replace("\\|", "|").replace("\\*", "*")
