"""The journal never says more than was durable, whatever happened to its file."""

from __future__ import annotations

import json
import logging
import resource
import signal
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlx_manager.services.transfer.journal import COMPACT_ABOVE, FORMAT, Journal, journal_path

ETAG, SIZE = "e" * 40, 1000
TRUTHS = [[(0, 10)], [(0, 10), (20, 30)], [(0, 30)], [(0, 30), (500, 1000)]]


def a_journal(folder: Path) -> Journal:
    return Journal(folder / "blob.part", ETAG, SIZE)


def load(folder: Path, etag: str = ETAG, size: int = SIZE) -> list[tuple[int, int]]:
    return list(Journal(folder / "blob.part", etag, size).load())


def written(folder: Path) -> bytes:
    journal = a_journal(folder)
    for truth in TRUTHS:
        journal.append(truth)
    return journal.path.read_bytes()


def test_the_last_line_counts(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    assert load(tmp_path) == []
    for truth in TRUTHS:
        journal.append(truth)
        assert load(tmp_path) == truth
    assert [path.name for path in tmp_path.iterdir()] == ["blob.part.journal"]


def test_a_crash_at_any_byte_of_a_write_leaves_an_earlier_truth(tmp_path: Path) -> None:
    text = written(tmp_path)
    path = journal_path(tmp_path / "blob.part")
    ends = [n + 1 for n, byte in enumerate(text) if byte == ord("\n")]
    for length in range(len(text) + 1):
        path.write_bytes(text[:length])
        # Only a line's own line feed may be missing for it to count.
        whole = sum(1 for end in ends if length >= end - 1) - 1
        assert load(tmp_path) == (TRUTHS[whole - 1] if whole > 0 else []), length


def test_after_a_crash_it_is_written_on_from_a_whole_line(tmp_path: Path) -> None:
    text = written(tmp_path)
    path = journal_path(tmp_path / "blob.part")
    for length in range(len(text)):
        path.write_bytes(text[:length])
        journal = a_journal(tmp_path)
        journal.load()
        journal.append([(1, 2)])
        journal.append([(1, 3)])
        assert load(tmp_path) == [(1, 3)], length


def test_a_damaged_byte_never_makes_a_truth_of_its_own(tmp_path: Path) -> None:
    text = written(tmp_path)
    path = journal_path(tmp_path / "blob.part")
    for at in range(len(text)):
        for mask in (1, 3, 9, 128):  # digits become other digits, letters, line feeds, noise
            path.write_bytes(text[:at] + bytes([text[at] ^ mask]) + text[at + 1 :])
            assert load(tmp_path) in [[], *TRUTHS], (at, mask)


def test_one_of_another_content_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert load(tmp_path, etag="f" * 40) == []
        assert load(tmp_path, size=SIZE + 1) == []
    assert "fetched again" in caplog.text


def test_one_of_another_format_says_nothing(tmp_path: Path) -> None:
    lines = [{"format": FORMAT + 1, "etag": ETAG, "size": SIZE}, {"have": [[0, 10]]}]
    text = b""
    for line in lines:
        record = json.dumps(line, separators=(",", ":")).encode()
        text += b"%08x %s\n" % (zlib.crc32(record), record)
    journal_path(tmp_path / "blob.part").write_bytes(text)
    assert load(tmp_path) == []
    # The same lines with the format that is known do count, so it was the format that was refused.
    journal_path(tmp_path / "blob.part").unlink()
    a_journal(tmp_path).append([(0, 10)])
    assert load(tmp_path) == [(0, 10)]


def test_ranges_beyond_the_file_do_not_count(tmp_path: Path) -> None:
    a_journal(tmp_path).append([(0, 10), (SIZE - 1, SIZE + 1), (30, 20)])
    assert load(tmp_path) == [(0, 10)]


def test_it_is_compacted_and_stays_the_truth(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    truth = [(n, n + 1) for n in range(0, SIZE, 2)]
    longest = 0
    for n in range(200):
        journal.append(truth[: n + 300])
        longest = max(longest, journal.path.stat().st_size)
        if n % 20 == 0:
            assert load(tmp_path) == truth[: n + 300]
    assert COMPACT_ABOVE // 2 < longest <= COMPACT_ABOVE
    assert journal.path.stat().st_size < longest


def test_removed_it_begins_anew(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    journal.append([(0, 10)])
    journal.remove()
    journal.remove()
    assert list(tmp_path.iterdir()) == []
    journal.append([(5, 6)])
    assert load(tmp_path) == [(5, 6)]


def test_a_line_that_did_not_fit_is_an_error_and_costs_only_itself(tmp_path: Path) -> None:
    journal = a_journal(tmp_path)
    journal.append([(0, 10)])
    with no_file_above(journal.path.stat().st_size + 5), pytest.raises(OSError, match=r"space|large"):
        journal.append([(0, 30)])
    assert load(tmp_path) == [(0, 10)]
    journal.append([(0, 40)])
    assert load(tmp_path) == [(0, 40)]


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The kernel writes what fits below ``size`` and no more, as on a disk that fills up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
