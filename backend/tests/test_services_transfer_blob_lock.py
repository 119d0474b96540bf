"""The lock of a blob keeps out, and is kept out by, what huggingface_hub does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.utils._fixes import WeakFileLock

from mlx_manager.errors import CacheFailed
from mlx_manager.services.transfer.blob_lock import BlobLock

HOLDER = """
import sys, time
from pathlib import Path
from mlx_manager.services.transfer.blob_lock import BlobLock
print(BlobLock(Path(sys.argv[1])).try_acquire(), flush=True)
sys.stdin.read()
"""
REMOVED_BETWEEN = """
import os, sys
from pathlib import Path
from mlx_manager.services.transfer.blob_lock import BlobLock
path = Path(sys.argv[1])
def remove(event, arguments):
    # Told of each open before it is done. The one that makes nothing follows on the one that found the file.
    if event == "open" and arguments[0] == str(path) and not arguments[2] & os.O_CREAT:
        path.unlink()
sys.addaudithook(remove)
lock = BlobLock(path)
print(lock.try_acquire(), lock.try_acquire())
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "locks" / "models--org--model" / "abc.lock"


def test_the_library_waits_for_ours(place: Path) -> None:
    ours = BlobLock(place)
    assert ours.try_acquire()
    with pytest.raises(TimeoutError), WeakFileLock(place, timeout=0.01):
        pass
    ours.release()
    with WeakFileLock(place, timeout=0.01):
        assert not BlobLock(place).try_acquire()
    assert ours.try_acquire()
    ours.release()


def test_twice_is_fine(place: Path) -> None:
    lock = BlobLock(place)
    assert lock.try_acquire() and lock.try_acquire()
    lock.release()
    lock.release()
    assert BlobLock(place).try_acquire()


def test_others_of_the_group_can_use_the_file(place: Path) -> None:
    before = os.umask(0o077)
    try:
        assert BlobLock(place).try_acquire()
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o664


def test_it_ends_with_the_process_that_held_it(place: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "True\n"
        lock = BlobLock(place)
        assert not lock.try_acquire()
        holder.kill()
    assert lock.try_acquire()


def test_a_file_that_was_removed_is_made_again(place: Path) -> None:
    old = BlobLock(place)
    assert old.try_acquire()
    place.unlink()
    assert BlobLock(place).try_acquire()
    assert place.exists()


def test_a_link_is_not_followed(place: Path, tmp_path: Path) -> None:
    place.parent.mkdir(parents=True)
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        BlobLock(place).try_acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_is_removed_between_two_looks_is_not_held_yet(place: Path) -> None:
    place.parent.mkdir(parents=True)
    place.touch()
    told = subprocess.run(
        [sys.executable, "-c", REMOVED_BETWEEN, str(place)], capture_output=True, text=True, check=False
    )
    assert told.stdout == "False True\n", told.stderr


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that is there and takes no file")
def test_where_no_file_can_be_made_it_says_so() -> None:
    """procfs answers as a folder that is gone again whenever it was made."""
    with pytest.raises(CacheFailed, match="/proc/self"):
        BlobLock(Path("/proc/self/abc.lock")).try_acquire()


def test_a_link_to_nowhere_in_the_place_of_the_folder_is_an_error_and_no_wait(place: Path) -> None:
    place.parent.parent.mkdir()
    place.parent.symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        BlobLock(place).try_acquire()
