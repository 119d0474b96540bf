"""A download as lines of text: pure, so that what a person sees can be tested without a terminal.

The head never changes its height while bytes move (title, bar, figures, message), so that nothing jumps:

    mlx-community/Qwen3-0.6B-4bit@main  1a2b3c4
    ╍╍╍╍╍╍╍╍╍╍╍╍━━━━━━━━━━━━━━━━─────────────────────────  62.4 %
    219.3 MB of 351.4 MB · 12.1 MB/s · 11 s left
    Receiving 2 files over 8 connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from mlx_manager.cli.client import Snapshot
from mlx_manager.cli.terminal import Glyphs, clean, fit
from mlx_manager.domain import words
from mlx_manager.domain.states import Phase, Status

STALE_AFTER_S = 2.0
"""A last byte that is older is worth a word; a snapshot that is older says nothing of the speed."""
_TROUBLED = (Phase.STALLED, Phase.RETRYING, Phase.RATE_LIMITED, Phase.DISK_FULL)
_WIDEST = 100


@dataclass(frozen=True, slots=True)
class Frame:
    """The place for a picture, in cells."""

    width: int
    height: int
    glyphs: Glyphs


@dataclass(frozen=True, slots=True)
class Scene:
    """What is to be seen. ``age_s``: seconds since the snapshot came; ``now``: seconds since 1970."""

    snapshot: Snapshot
    files: tuple[dict[str, Any], ...] = ()
    note: str | None = None
    age_s: float = 0.0
    now: float = 0.0
    hint: str = ""


def draw(scene: Scene, frame: Frame) -> list[Text]:
    """At most ``height`` lines of at most ``width`` cells. The files get what the rest leaves over."""
    lines = [_title(scene, frame), _bar_line(scene, frame), Text(_figures(scene, frame)), _message(scene, frame)]
    if (here := here_already(scene.snapshot)) and frame.height > len(lines):
        lines.append(Text(here, style="dim"))
    said = ((scene.note, "yellow"), (scene.hint, "dim"))
    tail = [Text(clean(text, frame.glyphs), style=style) for text, style in said if text]
    room = frame.height - len(lines) - len(tail)
    if scene.files and room >= 3:
        lines += [Text(""), *_file_lines(scene.files, frame, room - 1)]
    lines += tail
    for line in lines:
        _shorten(line, frame)
    return lines[: max(1, frame.height)]


def _shorten(line: Text, frame: Frame) -> None:
    line.no_wrap = True
    if line.cell_len > frame.width:
        line.truncate(frame.width - 1, overflow="crop")
        line.append(frame.glyphs.cut)


def name_of(snapshot: Snapshot) -> str:
    """ORG/MODEL@REV as it would be typed."""
    revision = snapshot["revision"]
    return str(snapshot["model_id"]) if revision == "main" else f"{snapshot['model_id']}@{revision}"


def here_already(snapshot: Snapshot) -> str:
    """What was not fetched by this run; empty when there is nothing such."""
    reused = snapshot["reused_bytes"]
    if not reused:
        return ""
    received = snapshot["received_bytes"]
    return f"{words.size(reused)} were here already, {words.size(received)} received now."


def figures(snapshot: Snapshot, separator: str, age_s: float = 0.0) -> str:
    """219.3 MB of 351.4 MB · 12.1 MB/s · 11 s left."""
    total, done = snapshot["total_bytes"], snapshot["downloaded_bytes"]
    if not total:
        return "The size is not known yet."
    if snapshot["total_is_estimate"]:
        return f"About {words.size(total)}, as the model's name suggests."
    parts = [f"{words.size(done)} of {words.size(total)}"]
    # While nothing comes, the rate of the last seconds and what it promises are no longer true.
    if snapshot["phase"] == Phase.TRANSFERRING and age_s <= STALE_AFTER_S:
        if snapshot["speed_bps"]:
            parts.append(f"{words.size(snapshot['speed_bps'])}/s")
        if snapshot["eta_s"]:
            parts.append(f"{words.duration(snapshot['eta_s'])} left")
    if snapshot["files_total"]:
        parts.append(f"{snapshot['files_done']} of {words.count(snapshot['files_total'], 'file')}")
    return f" {separator} ".join(parts)


def message(snapshot: Snapshot, *, now: float, age_s: float = 0.0) -> str:
    """The server's sentence, with what it leaves open: for how much longer, and how old the last byte is."""
    said = str(snapshot["message"])
    phase, deadline = snapshot["phase"], snapshot["deadline"]
    # A transfer's sentences count down by themselves, second by second; what waits for the Hub says it once.
    if deadline and snapshot["status"] == Status.STARTING:
        left = datetime.fromisoformat(deadline).timestamp() - now
        if left > 0:
            said += f" ({words.duration(left)} left)" if phase in _TROUBLED else f" (at most {words.duration(left)})"
    last = snapshot["last_byte_age_s"]
    if last is not None and phase != Phase.STALLED and last + age_s > STALE_AFTER_S:
        said += f" (last byte {words.duration(last + age_s)} ago)"
    return said


def _title(scene: Scene, frame: Frame) -> Text:
    commit = scene.snapshot["commit"]
    short = f"  {commit[:7]}" if commit else ""
    name = fit(clean(name_of(scene.snapshot)), frame.width - len(short), frame.glyphs.cut)
    return Text.assemble((name, "bold"), (short, "dim"))


def _bar_line(scene: Scene, frame: Frame) -> Text:
    snapshot = scene.snapshot
    percent = f" {snapshot['progress']:5.1f} %"
    width = min(frame.width, _WIDEST) - len(percent)
    known = snapshot["total_bytes"] and not snapshot["total_is_estimate"]
    total = snapshot["total_bytes"] if known else 0
    bar = bar_of(snapshot["reused_bytes"], snapshot["downloaded_bytes"], total, width, frame.glyphs)
    return bar.append(percent) if known else bar


def bar_of(reused: int, done: int, total: int, width: int, glyphs: Glyphs) -> Text:
    """What was here, what came now, what is to come, each with a sign of its own: colour is not needed to tell."""
    width = max(width, 4)
    filled = 0 if total <= 0 else min(width, done * width // total)
    here = 0 if total <= 0 else min(filled, reused * width // total)
    return Text.assemble(
        (glyphs.here * here, "blue"),
        (glyphs.received * (filled - here), "cyan"),
        (glyphs.rest * (width - filled), "bright_black"),
    )


def _figures(scene: Scene, frame: Frame) -> str:
    said = figures(scene.snapshot, frame.glyphs.dot, scene.age_s)
    if cell_len(said) > frame.width:
        said = said.rpartition(f" {frame.glyphs.dot} ")[0] or said
    return said


def _message(scene: Scene, frame: Frame) -> Text:
    said = clean(message(scene.snapshot, now=scene.now, age_s=scene.age_s), frame.glyphs)
    return Text(said, style="yellow" if scene.snapshot["phase"] in _TROUBLED else "")


def _file_lines(files: tuple[dict[str, Any], ...], frame: Frame, room: int) -> list[Text]:
    """All files while there is room for them; else those at work, and how many others there are."""
    if len(files) <= room:
        return [_file_line(file, files, frame) for file in files]
    at_work = [file for file in files if file["state"] in ("transferring", "hashing")]
    shown = at_work[: room - 1]
    done = sum(file["state"] == "done" for file in files)
    others = len(files) - done - len(shown)
    counts = [f"{words.count(done, 'file')} done"] if done else []
    counts += [f"{others} more to come"] if others else []
    return [*(_file_line(file, files, frame) for file in shown), Text("  " + ", ".join(counts), style="dim")]


_SIGNS = {"done": ("done", "green"), "transferring": ("active", "cyan"), "hashing": ("checking", "cyan")}


def _file_line(file: dict[str, Any], files: tuple[dict[str, Any], ...], frame: Frame) -> Text:
    sign, colour = _SIGNS.get(file["state"], ("waiting", "dim"))
    mark = str(getattr(frame.glyphs, sign))
    percent = 100 * file["done_bytes"] // file["size"] if file["size"] else 100
    moving = sign in ("active", "checking")
    right = f" {f'{percent:3d} %' if moving else '':>5}  {words.size(file['size']):>8}"
    longest = max(cell_len(clean(one["path"])) for one in files)
    width = max(8, min(longest, frame.width - 2 - len(right), _WIDEST - 2 - len(right)))
    name = fit(clean(file["path"]), width, frame.glyphs.cut)
    name += " " * (width - cell_len(name))
    return Text.assemble((f"{mark} ", colour), (name, "dim" if sign in ("done", "waiting") else ""), (right, "dim"))
