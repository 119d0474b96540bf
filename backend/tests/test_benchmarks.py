"""The benchmarks run, see through a wrong file, and write their page. No figure decides anything here."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = "# Ours\n\nbefore\n\n<!-- benchmarks: begin -->\nold figures\n<!-- benchmarks: end -->\n\nafter\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a tiny run leaves behind: one bit of one shard is wrong, once, for each contender."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "page.md").write_text(PAGE)
    command = [sys.executable, "-m", "benchmarks", "--only", "flipped-bit", "--contenders", "ours,hf,curl"]
    command += ["--scale", "0.002", "--rounds", "1", "--dir", "disk", "--json", "runs.json", "--output", "page.md"]
    paths = [str(folder / word) if word in ("disk", "runs.json", "page.md") else word for word in command]
    ended = subprocess.run(paths, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.fixture(scope="module")
def runs(folder: Path) -> dict[str, dict[str, Any]]:
    """The runs by their contender."""
    return {run["contender"]: run for run in json.loads((folder / "runs.json").read_text())["runs"]}


def test_a_flipped_bit_is_seen_in_the_files_of_one_who_does_not_look(runs: dict[str, dict[str, Any]]) -> None:
    run = runs["hf"]
    assert run["struck"] == 1
    assert run["verdict"] == "wrong file"
    assert run["said"] == "model-00002-of-00004.safetensors has other bytes"


def test_one_who_looks_and_gives_up_has_failed(runs: dict[str, dict[str, Any]]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    assert runs["curl"]["struck"] == 1
    assert runs["curl"]["verdict"] == "failed"


def test_ours_looks_and_fetches_again(runs: dict[str, dict[str, Any]]) -> None:
    assert runs["ours"]["struck"] == 1
    assert runs["ours"]["verdict"] == "ok"
    assert runs["ours"]["wire_bytes"] > runs["hf"]["wire_bytes"]


def test_costs_are_those_of_the_program(runs: dict[str, dict[str, Any]]) -> None:
    for run in runs.values():
        assert run["cpu_s"] > 0
        assert 0 < run["wall_s"] < 60
        assert 1_000_000 < run["peak_rss"] < 1_000_000_000


def test_the_table_replaces_the_old_one_and_nothing_else(folder: Path) -> None:
    page = (folder / "page.md").read_text()
    assert page.startswith("# Ours\n\nbefore\n\n<!-- benchmarks: begin -->\n")
    assert page.endswith("\n<!-- benchmarks: end -->\n\nafter\n")
    assert "old figures" not in page
    line = next(line for line in page.splitlines() if line.startswith("| `hf download` over HTTP"))
    assert "**wrong file**" in line


def test_no_run_leaves_a_download_behind(folder: Path) -> None:
    assert [entry.name for entry in (folder / "disk").iterdir()] == ["models"]


def test_the_library_is_measured_and_its_table_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("benchmarks:", "library:") + PAGE)
    command = [sys.executable, "-m", "benchmarks.library", "--models", "3", "--files", "12", "--rounds", "1"]
    ended = subprocess.run(
        [*command, "--dir", str(tmp_path), "--output", str(page)],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    ours, theirs = page.read_text().split("<!-- library: end -->")
    assert "| `mlx-manager ls`, the whole process | 1 |" in ours and "old figures" not in ours
    assert "| a later look of a running server | 3 |" in ours, "the figures are of all looks, not of the best"
    assert theirs.endswith(PAGE)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["page.md", "shelf", "shelf.made"]
