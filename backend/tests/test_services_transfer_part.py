"""The partial file: what counts was written, what is journaled is durable, and nothing is written twice."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_manager.services.transfer.journal import Journal, journal_path
from mlx_manager.services.transfer.part import Part, macos_room

ETAG, SIZE = "e" * 40, 10_000


def opened(folder: Path, size: int = SIZE) -> Part:
    part = Part(folder / "blob.part", ETAG, size)
    part.open()
    return part


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    part = opened(tmp_path)
    yield part
    part.close()


def sync(part: Part) -> None:
    part.sync(list(part.have), part.changes)


def test_it_has_its_size_and_its_room_at_once(part: Part) -> None:
    stat = part.path.stat()
    assert stat.st_size == SIZE
    assert stat.st_blocks * 512 >= SIZE
    assert part.have.total == 0
    assert not part.dirty


def test_the_order_for_room_on_macos_is_its_struct() -> None:
    order = macos_room(5 << 30)
    assert len(order) == 32
    assert int.from_bytes(order[16:24], sys.byteorder) == 5 << 30


def test_an_empty_file_is_a_file(tmp_path: Path) -> None:
    part = opened(tmp_path, 0)
    part.close()
    assert part.path.stat().st_size == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 900), st.lists(st.integers(0, 60), min_size=1, max_size=5)), min_size=1, max_size=12
    )
)
def test_the_first_bytes_of_a_place_stay(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[int, list[int]]]
) -> None:
    """Each write brings bytes of its own kind: what the file holds is who came first."""
    part = opened(tmp_path_factory.mktemp("part"), 2000)
    model: dict[int, int] = {}
    for kind, (offset, lengths) in enumerate(writes, 1):
        part.write([bytes([kind]) * length for length in lengths], offset)
        for at in range(offset, offset + sum(lengths)):
            model.setdefault(at, kind)
    data = part.path.read_bytes()
    part.close()
    assert part.have.total == len(model)
    assert {at: data[at] for at in model} == model
    assert not any(byte for at, byte in enumerate(data) if at not in model)


def test_more_chunks_than_one_system_call_takes(part: Part) -> None:
    data = os.urandom(5000)
    part.write([data[n : n + 1] for n in range(len(data))], 100)
    assert part.path.read_bytes()[100:5100] == data
    assert list(part.have) == [(100, 5100)]


def test_what_was_synced_is_taken_up_and_no_more(part: Part, tmp_path: Path) -> None:
    part.write([b"a" * 100], 0)
    sync(part)
    part.write([b"b" * 100], 100)
    part.close()
    again = opened(tmp_path)
    assert list(again.have) == [(0, 100)]
    assert again.resumed_bytes == 100
    again.close()


def test_what_the_disk_could_not_make_durable_is_not_claimed(part: Part) -> None:
    part.write([b"a" * 100], 0)
    sync(part)
    part.write([b"b" * 100], 100)
    unsyncable, other = os.pipe()
    os.dup2(unsyncable, part.fd)
    os.close(unsyncable)
    os.close(other)
    with pytest.raises(OSError, match="Invalid argument"):
        sync(part)
    assert list(Journal(part.path, ETAG, SIZE).load()) == [(0, 100)]
    assert part.dirty


def test_dirty_means_the_journal_is_behind(part: Part) -> None:
    part.write([b"a" * 100], 0)
    have, changes = list(part.have), part.changes
    part.write([b"b" * 100], 100)
    part.sync(have, changes)
    assert list(Journal(part.path, ETAG, SIZE).load()) == have  # what was true when the sync was asked for, no more
    seen = [part.dirty]
    sync(part)
    seen.append(part.dirty)
    part.write([b"c" * 100], 50)  # all of it is here already
    seen.append(part.dirty)
    part.forget()
    seen.append(part.dirty)
    assert seen == [True, False, False, True]


def test_a_sync_that_was_under_way_does_not_hide_that_all_was_forgotten(part: Part) -> None:
    part.write([b"a" * 100], 0)
    have, changes = list(part.have), part.changes
    part.forget()
    part.sync(have, changes)
    part.write([b"b" * 100], 0)
    assert part.dirty


@pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
def test_a_part_of_another_size_is_begun_anew_and_its_journal_goes_at_once(
    part: Part, tmp_path: Path, size: int
) -> None:
    part.write([b"a" * 100], 0)
    sync(part)
    part.close()
    os.truncate(part.path, size)
    again = opened(tmp_path)
    again.close()
    assert again.have.total == 0
    # A crash right now must not find the old journal beside the new part, which is full of zeros.
    assert not journal_path(part.path).exists()
    third = opened(tmp_path)
    third.close()
    assert third.have.total == 0
    assert third.path.read_bytes() == bytes(SIZE)


def test_a_part_that_was_removed_is_begun_anew(part: Part, tmp_path: Path) -> None:
    part.write([b"a" * 100], 0)
    sync(part)
    part.close()
    part.path.unlink()
    again = opened(tmp_path)
    again.close()
    assert again.have.total == 0
    assert Journal(part.path, ETAG, SIZE).load().total == 0


def test_a_folder_that_cannot_be_written_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(list(Path("/dev/fd").iterdir()))
    part = Part(tmp_path / "missing" / "blob.part", ETAG, SIZE)
    with pytest.raises(FileNotFoundError):
        part.open()
    assert part.fd == -1
    assert len(list(Path("/dev/fd").iterdir())) == before


def test_no_room_gives_back_what_was_found(tmp_path: Path) -> None:
    part = Part(tmp_path / "blob.part", ETAG, 1 << 60)
    with pytest.raises(OSError, match=r"space|large"):
        part.open()
    assert part.fd == -1
    assert part.path.stat().st_blocks == 0


def test_published_it_is_in_its_place_alone(part: Part, tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    part.write([data], 0)
    sync(part)
    target = tmp_path / "blob"
    part.publish(target)
    part.journal.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["blob"]
    assert target.read_bytes() == data


def test_publishing_over_a_link_does_not_write_through_it(part: Part, tmp_path: Path) -> None:
    shared, target = tmp_path / "shared", tmp_path / "blob"
    shared.write_bytes(b"of others")
    target.symlink_to(shared)
    part.write([b"x" * SIZE], 0)
    part.publish(target)
    assert shared.read_bytes() == b"of others"
    assert not target.is_symlink()


def test_removed_it_is_gone(part: Part, tmp_path: Path) -> None:
    part.write([b"a"], 0)
    sync(part)
    part.remove()
    part.remove()
    assert list(tmp_path.iterdir()) == []
