"""The fault matrix: its page says what its table says, and its quickest rows run with every other test."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.page import PAGE, listed, names
from faults.run import run_row
from faults.table import GROUPS, Row, rows

ROWS = rows()


def test_the_page_lists_exactly_the_rows_of_the_table() -> None:
    """`make faults` writes it; whoever adds a row or changes one runs that."""
    assert listed(PAGE.read_text(encoding="utf-8")) == names(ROWS)


def test_there_are_rows_in_every_group_and_no_name_is_there_twice() -> None:
    assert {row.group for row in ROWS} == set(GROUPS)
    assert len(ROWS) >= 50
    assert len({row.done for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", [row for row in ROWS if row.quick], ids=lambda row: str(row.key))
def test_a_quick_row(row: Row, tmp_path: Path) -> None:
    run_row(row, tmp_path)
