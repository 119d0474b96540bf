"""Words and columns for any terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.cells import cell_len

from mlx_manager.cli.asking import command_for, parse_model
from mlx_manager.cli.columns import Column, table
from mlx_manager.cli.exits import MEANINGS, ExitCode, exit_code_for, exit_code_of
from mlx_manager.cli.terminal import PLAIN_GLYPHS, RICH_GLYPHS, Teller, clean, fit, glyphs_for
from mlx_manager.errors import InvalidModelId, InvalidRevision, InvalidSetting, MlxManagerError, PortInUse


def _stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain", "plain"),
        ("\x1b[2Jgone\x00\x9b", "[2Jgone"),
        ("two\nlines\r\tand\u2028more", "two lines  and more"),
        ("\u202eturned\u2069", "turned"),
        ("模型 ünï", "模型 ünï"),
    ],
)
def test_text_is_made_safe(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


def test_our_own_signs_are_spelled_out_where_there_is_only_ascii() -> None:
    assert glyphs_for(_stream("ascii")) is PLAIN_GLYPHS
    assert glyphs_for(_stream("UTF-8")) is RICH_GLYPHS
    assert clean("It’s … – ×", PLAIN_GLYPHS) == "It's ... - x"


@pytest.mark.parametrize("text", ["model-00001-of-00012.safetensors", "模型模型模型模型模型模型.bin"])
def test_a_name_is_shortened_in_its_middle(text: str) -> None:
    for width in range(cell_len(text)):
        short = fit(text, width, "…")
        assert cell_len(short) <= width
        if width >= 12:
            assert (short[0], short[-3:]) == (text[0], text[-3:])
            assert "…" in short
    assert fit(text, cell_len(text), "…") == text


def test_a_narrow_table_gives_up_what_may_go_and_then_shortens_the_names() -> None:
    columns = [Column("MODEL", shrinks=True), Column("SIZE", right=True), Column("NEVER"), Column("TASK", yields=True)]
    rows = [["mlx-community/a-very-long-name-of-a-model-4bit", "1.0 GB", "", "0123456789"], ["a/b", "12 B", "", "1"]]
    wide = table(columns, rows, None, RICH_GLYPHS)
    assert wide[1] == "mlx-community/a-very-long-name-of-a-model-4bit  1.0 GB  0123456789"
    assert wide[0].split() == ["MODEL", "SIZE", "TASK"]
    middle = table(columns, rows, 60, RICH_GLYPHS)
    assert middle[1] == "mlx-community/a-very-long-name-of-a-model-4bit  1.0 GB"
    narrow = table(columns, rows, 30, RICH_GLYPHS)
    assert max(map(cell_len, narrow)) == 30
    assert narrow[1].startswith("mlx-comm")
    assert narrow[1].endswith("  1.0 GB")


def test_a_told_line_is_never_markup_and_stays_whole_in_a_pipe() -> None:
    stream = _stream("utf-8")
    Teller(stream).line("[red]x[/red] :smile: " + "word " * 60, mark="arrow")
    stream.seek(0)
    assert stream.read() == "→ [red]x[/red] :smile: " + "word " * 60 + "\n"


def test_a_model_is_parsed_with_its_revision() -> None:
    assert parse_model("a/b").revision == "main"
    assert parse_model("a/b@refs/pr/1").revision == "refs/pr/1"
    with pytest.raises(InvalidRevision):
        parse_model("a/b@")
    with pytest.raises(InvalidModelId):
        parse_model("b")


def test_the_command_to_go_on_can_be_pasted_into_a_shell() -> None:
    wanted = parse_model("a/b@v1", ["*.json", "it's"], ["x y"])
    assert command_for(wanted) == (
        """mlx-manager pull a/b@v1 --include '*.json' --include 'it'"'"'s' --exclude 'x y'"""
    )
    assert parse_model("a/b@v1", ["it's", "*.json"], ["x y"]) == wanted


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1), ("paused", 3), ("cancelled", 4)])
def test_each_end_has_its_exit_code(status: str, code: int) -> None:
    assert exit_code_of(status) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [(InvalidModelId("x"), ExitCode.USAGE), (InvalidSetting("x"), ExitCode.FAILED), (PortInUse("x"), ExitCode.FAILED)],
)
def test_a_wrong_question_is_told_from_a_failure(error: MlxManagerError, code: ExitCode) -> None:
    assert exit_code_for(error) == code


def test_the_readme_tells_the_exit_codes() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for code, meaning in MEANINGS.items():
        assert f"| {code.value} | {meaning} |" in readme


def test_one_very_long_name_does_not_push_the_other_columns_out() -> None:
    columns = [Column("MODEL", shrinks=True), Column("DOWNLOADS", yields=True), Column("LICENCE", yields=True)]
    lines = table(columns, [["org/" + "name" * 30, "12.3k", "mit"], ["org/short", "3", "mit"]], 70, RICH_GLYPHS)
    assert lines[0].split() == ["MODEL", "DOWNLOADS", "LICENCE"]
    assert all(cell_len(line) <= 70 for line in lines)
    # The last goes first where there is no room for all.
    narrower = table(columns, [["org/" + "name" * 30, "12.3k", "mit"]], 60, RICH_GLYPHS)
    assert narrower[0].split() == ["MODEL", "DOWNLOADS"]
