"""The hash that follows the front: over what the file holds, to its end, whoever else is hashed."""

from __future__ import annotations

import hashlib
import os
import queue
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_manager.domain.plan import Digest
from mlx_manager.services.transfer.hashing import BLOCK, FrontHash, HashThread, new_hash

SHA256 = Digest("sha256", "")


class Bench:
    """A hash thread, the files it reads, and what it said is complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.said: queue.Queue[FrontHash] = queue.Queue()
        self.thread = HashThread("hash", self.said.put)
        self._fds: list[int] = []

    def item(self, data: bytes, size: int | None = None) -> FrontHash:
        path = self._folder / f"{len(self._fds)}"
        path.write_bytes(data)
        fd = os.open(path, os.O_RDONLY)
        self._fds.append(fd)
        return FrontHash(path.name, fd, SHA256, len(data) if size is None else size)

    def next(self) -> FrontHash:
        return self.said.get(timeout=10)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    bench.thread.start()
    yield bench
    bench.thread.stop()
    bench.close()


def test_the_hashes_are_those_of_the_hub() -> None:
    data = b"what is up, doc?"
    git = new_hash(Digest("git-sha1", ""), len(data))
    git.update(data)
    assert git.hexdigest() == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"  # the Git Book's own example
    sha = new_hash(SHA256, 0)
    assert sha.hexdigest() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(ValueError, match="md5"):
        new_hash(Digest("md5", ""), 0)


def test_it_goes_no_further_than_the_front(bench: Bench) -> None:
    data = os.urandom(3 * BLOCK + 7)
    first, second = bench.item(data), bench.item(b"second")
    bench.thread.advance(first, BLOCK + 1)
    bench.thread.advance(second, 6)
    assert bench.next() is second  # the first is through with what it may read
    assert first.hashed <= BLOCK + 1
    bench.thread.advance(first, len(data))
    assert bench.next() is first
    assert first.hash.hexdigest() == hashlib.sha256(data).hexdigest()


def test_an_empty_file_is_complete_at_once(bench: Bench) -> None:
    item = bench.item(b"")
    bench.thread.advance(item, 0)
    assert bench.next().hash.hexdigest() == hashlib.sha256(b"").hexdigest()


def test_many_files_in_turns_each_to_its_end_and_said_once(bench: Bench) -> None:
    contents = [os.urandom(n * 100_000) for n in range(1, 20)]
    items = [bench.item(data) for data in contents]
    for step in range(1, 11):
        for item, data in zip(items, contents, strict=True):
            bench.thread.advance(item, len(data) * step // 10)
    done = {bench.next() for _ in items}
    assert done == set(items)
    for item, data in zip(items, contents, strict=True):
        assert item.hash.hexdigest() == hashlib.sha256(data).hexdigest()
    assert bench.said.empty()


def test_a_front_that_moves_while_others_wait_is_never_lost(bench: Bench) -> None:
    """The thread puts an item back while its owner moves the front on: the later front must hold."""
    data = os.urandom(3 * BLOCK)
    step = BLOCK // 8
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places between any two steps
    try:
        for _ in range(30):
            items = [bench.item(data) for _ in range(3)]
            for front in range(step, len(data) + 1, step):
                for item in items:
                    bench.thread.advance(item, front)
            assert {bench.next() for _ in items} == set(items)
    finally:
        sys.setswitchinterval(before)


def test_a_file_that_ends_early_is_an_error_and_no_hash(bench: Bench) -> None:
    item = bench.item(b"short", size=100)
    bench.thread.advance(item, 100)
    said = bench.next()
    assert said is item
    assert isinstance(said.error, OSError)
    assert not said.complete


def test_a_cancelled_one_is_never_read_again(bench: Bench) -> None:
    data = os.urandom(64 * BLOCK)
    item, other = bench.item(data), bench.item(b"x")
    bench.thread.advance(item, len(data))
    bench.thread.cancel(item)
    stood = item.hashed
    bench.thread.advance(item, len(data))
    bench.thread.advance(other, 1)
    assert bench.next() is other
    assert item.hashed <= stood + BLOCK
    assert bench.said.empty()


def test_it_stops_with_much_left_to_do(tmp_path: Path) -> None:
    stopping = Bench(tmp_path)
    stopping.thread.start()
    items = [stopping.item(b"", size=1 << 33) for _ in range(4)]
    for item in items:
        os.truncate(tmp_path / str(item.owner), item.size)  # sparse: minutes of hashing, no room on the disk
        stopping.thread.advance(item, item.size)
    stopping.thread.stop()
    stopping.close()
    assert all(item.hashed < item.size for item in items)
    assert stopping.said.empty()
