"""What a person sees of a download, without a terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlx_manager.cli.picture import Frame, Scene, bar_of, draw, message
from mlx_manager.cli.terminal import PLAIN_GLYPHS, RICH_GLYPHS, Glyphs
from mlx_manager.domain.catalog import ModelRequest
from mlx_manager.domain.download import Download, FileProgress
from mlx_manager.domain.snapshot import snapshot
from mlx_manager.domain.states import Phase, Status

MB = 1_000_000


def _file(number: int, done: float) -> FileProgress:
    state = "done" if done == 1 else "transferring" if done else "waiting"
    return FileProgress(f"model-{number:05}-of-00012.safetensors", 30 * MB, int(30 * MB * done), state)


DOWNLOAD = Download(
    "t1",
    ModelRequest("mlx-community/Qwen3-0.6B-4bit"),
    created_at=0.0,
    status=Status.DOWNLOADING,
    commit="1a2b3c4d5e6f",
    total_bytes=360 * MB,
    downloaded_bytes=180 * MB,
    reused_bytes=90 * MB,
    received_bytes=90 * MB,
    speed_bps=12.1e6,
    eta_s=15.0,
    files_done=4,
    files_total=12,
    files=(
        *(_file(n, 1.0) for n in range(1, 5)),
        *(_file(n, 0.5) for n in range(5, 8)),
        *(_file(n, 0) for n in range(8, 13)),
    ),
    phase=Phase.TRANSFERRING,
    message="Receiving 3 files over 8 connections.",
    last_byte_age_s=0.1,
)


def _draw(
    download: Download, width: int = 79, height: int = 24, glyphs: Glyphs = RICH_GLYPHS, **scene: object
) -> list[str]:
    shown = snapshot(download, files=True)
    picture = Scene(shown, tuple(shown["files"]), **scene)  # type: ignore[arg-type]
    return [line.plain for line in draw(picture, Frame(width, height, glyphs))]


def test_the_head_says_what_how_far_how_fast_and_why() -> None:
    title, bar, figures, said, here, *_ = _draw(DOWNLOAD)
    assert title == "mlx-community/Qwen3-0.6B-4bit  1a2b3c4"
    assert bar.endswith("  50.0 %")
    assert figures == "180.0 MB of 360.0 MB · 12.1 MB/s · 15 s left · 4 of 12 files"
    assert said == "Receiving 3 files over 8 connections."
    assert here == "90.0 MB were here already, 90.0 MB received now."


def test_the_bar_tells_without_colour_what_was_here_already() -> None:
    assert bar_of(25, 50, 100, 40, PLAIN_GLYPHS).plain == "=" * 10 + "#" * 10 + "." * 20
    assert bar_of(0, 0, 0, 10, PLAIN_GLYPHS).plain == "." * 10


def test_a_revision_other_than_main_is_part_of_the_name() -> None:
    other = replace(DOWNLOAD, request=ModelRequest("a/b", "v1.0"))
    assert _draw(other)[0] == "a/b@v1.0  1a2b3c4"


@pytest.mark.parametrize("width", [20, 39, 59, 79, 200])
@pytest.mark.parametrize("height", [1, 3, 6, 9, 13, 40])
@pytest.mark.parametrize("glyphs", [RICH_GLYPHS, PLAIN_GLYPHS], ids=["utf-8", "ascii"])
def test_it_never_leaves_its_frame(width: int, height: int, glyphs: Glyphs) -> None:
    scene = Scene(snapshot(DOWNLOAD), tuple(snapshot(DOWNLOAD, files=True)["files"]), note="Looking …", hint="Ctrl-C")
    lines = draw(scene, Frame(width, height, glyphs))
    assert 1 <= len(lines) <= height
    assert max(line.cell_len for line in lines) <= width
    if glyphs is PLAIN_GLYPHS:
        assert all(line.plain.isascii() for line in lines)


def test_all_files_are_listed_while_there_is_room() -> None:
    lines = _draw(DOWNLOAD, height=24)
    assert sum("safetensors" in line for line in lines) == 12
    assert any(line.startswith("✓ model-00001") for line in lines)
    assert any(line.startswith("↓ model-00005") and "50 %" in line for line in lines)


def test_in_a_low_terminal_the_files_at_work_are_listed_and_the_others_counted() -> None:
    lines = _draw(DOWNLOAD, height=11)
    assert [line[:13] for line in lines if "safetensors" in line] == [f"↓ model-{n:05}" for n in (5, 6, 7)]
    assert lines[-1].strip() == "4 files done, 5 more to come"


def test_a_hostile_name_stays_text() -> None:
    name = "a[bold]b\x1b[31m\x07\u202egnp.exe\nc"
    hostile = replace(
        DOWNLOAD, files=(FileProgress(name, 10, 5, "transferring"),), message="\x1b]0;title\x07 said [red]"
    )
    lines = _draw(hostile)
    assert all(char.isprintable() for line in lines for char in line)
    assert any("a[bold]b[31mgnp.exe c" in line for line in lines)
    assert "]0;title said [red]" in lines


def test_what_waits_for_the_hub_says_until_when() -> None:
    waiting = replace(
        DOWNLOAD, status=Status.STARTING, phase=Phase.LISTING, message="Asking the Hub.", deadline=130.0, files=()
    )
    assert message(snapshot(waiting), now=108.0) == "Asking the Hub. (at most 22 s)"
    retrying = replace(waiting, phase=Phase.RETRYING)
    assert message(snapshot(retrying), now=128.0) == "Asking the Hub. (2 s left)"
    assert message(snapshot(waiting), now=131.0) == "Asking the Hub."


def test_an_old_last_byte_is_told_and_grows_older_between_events() -> None:
    silent = replace(DOWNLOAD, last_byte_age_s=1.5)
    assert message(snapshot(silent), now=0, age_s=0.2) == DOWNLOAD.message
    assert message(snapshot(silent), now=0, age_s=1.5) == f"{DOWNLOAD.message} (last byte 3 s ago)"


def test_a_rate_is_told_only_while_it_is_true() -> None:
    assert "12.1 MB/s · 15 s left" in _draw(DOWNLOAD, age_s=1.0)[2]
    for figures in (_draw(DOWNLOAD, age_s=3.0)[2], _draw(replace(DOWNLOAD, phase=Phase.STALLED))[2]):
        assert figures == "180.0 MB of 360.0 MB · 4 of 12 files"


def test_before_the_size_is_known_nothing_pretends_to_know_it() -> None:
    unknown = replace(DOWNLOAD, status=Status.STARTING, total_bytes=0, downloaded_bytes=0, reused_bytes=0, files=())
    assert _draw(unknown)[2] == "The size is not known yet."
    assert "%" not in _draw(unknown)[1]
    guessed = replace(unknown, total_bytes=351 * MB, total_is_estimate=True)
    assert _draw(guessed)[2] == "About 351.0 MB, as the model's name suggests."
    assert "%" not in _draw(guessed)[1]
