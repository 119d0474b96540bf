"""Files of the data folder are whole for whoever reads them, whenever their writer dies, and nothing is left of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from hub_cache import everything
from mlx_manager.services.data_dir import DataDir
from mlx_manager.services.drafts import replace_whole, sweep

# The kernel kills it at the tenth byte.
WRITER = """
    import resource, signal, sys
    from pathlib import Path
    from mlx_manager.services.access import make_token
    from mlx_manager.services.data_dir import DataDir, RunningServer
    from mlx_manager.services.hf_cache.remembering import remember
    from mlx_manager.services.hub_memory import HubMemory
    what, home, dies = sys.argv[1], Path(sys.argv[2]), sys.argv[3] == "dies"
    if dies:
        sys.dont_write_bytecode = True
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
    if what == "announcement":
        DataDir(home).announce(RunningServer("http://127.0.0.1:1", 7, "0"))
    elif what == "library":
        remember(home / "library.json", home, {})
    elif what == "token":
        make_token(home, renew=True)
    else:
        HubMemory(home / "hub-memory").put("page", "key", {"what": "the Hub said"})
"""


def write(what: str, home: Path, how: str) -> int:
    return subprocess.run([sys.executable, "-c", textwrap.dedent(WRITER), what, str(home), how], check=False).returncode


@pytest.mark.parametrize("what", ["announcement", "library", "token", "answer of the Hub"])
def test_a_writer_that_is_killed_leaves_the_old_file_and_for_no_longer_than_a_start_its_draft(
    tmp_path: Path, what: str
) -> None:
    assert write(what, tmp_path, "lives") == 0
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    old = file.read_bytes()
    theirs = [file.with_name("letter.draft"), file.with_name("library.json.1-2.draft.mine")]
    for one in theirs:
        one.touch()

    assert write(what, tmp_path, "dies") == -signal.SIGXFSZ
    assert file.read_bytes() == old
    [draft] = {path for path in file.parent.iterdir() if path.is_file()} - {file, *theirs}
    assert draft.stat().st_size == 10

    data_dir = DataDir(tmp_path, tmp_path / "hub-memory")
    data_dir.acquire()
    assert not draft.exists()
    assert all(one.exists() for one in theirs)
    # Nobody may take the address of the dead for ours; all else stays.
    assert file.exists() == (what != "announcement")
    data_dir.release()


def test_what_cannot_be_replaced_stays_without_a_draft(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_whole(tmp_path / "file", b"new")
    assert everything(tmp_path) == ["file"]
    with pytest.raises(FileNotFoundError):
        replace_whole(tmp_path / "nowhere" / "file", b"new")


def test_a_secret_is_its_owner_s_from_the_first_byte(tmp_path: Path) -> None:
    replace_whole(tmp_path / "token", b"secret", mode=0o600)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_there_may_be_nothing_to_sweep(tmp_path: Path) -> None:
    sweep(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    sweep(tmp_path / "file")
    # A folder is no draft, whatever its name.
    (tmp_path / "library.json.1-2.draft").mkdir()
    sweep(tmp_path)
    assert everything(tmp_path) == ["file", "library.json.1-2.draft"]
