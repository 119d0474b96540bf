"""Where things lie in the cache, and what its disk can do."""

from __future__ import annotations

import errno
import re
import tempfile
import unicodedata
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mlx_manager.domain.plan import Plan, check_path
from mlx_manager.errors import READ_ONLY_ADVICE, CacheFailed, CacheNotWritable, DiskFull, UnsafeFileName

PREFIX = "models--"
PART = ".part"
JOURNAL = ".journal"
XET = ".xet"
LINKING = ".linking"
STAGED = ".whole"
COMMIT = re.compile(r"[0-9a-f]{40}")
DRAFT = re.compile(r"\.[0-9a-f]{32}\.tmp")
"""A name of `RepoFolders.temporary`."""
DRAFT_AGE_S = 60.0
"""What is still written is younger: a draft lives for milliseconds, and a large copy changes all the time."""
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_BARRED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ELOOP}


@dataclass(frozen=True, slots=True)
class RepoFolders:
    """The places of one model. Names are joined as they are: check them first (`check_names`)."""

    root: Path
    locks: Path

    @staticmethod
    def of(cache_dir: Path, model_id: str) -> RepoFolders:
        name = f"{PREFIX}{model_id.replace('/', '--')}"
        return RepoFolders(cache_dir / name, cache_dir / ".locks" / name)

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def snapshots(self) -> Path:
        return self.root / "snapshots"

    @property
    def refs(self) -> Path:
        return self.root / "refs"

    @property
    def trees(self) -> Path:
        return self.root / "trees"

    def blob(self, etag: str) -> Path:
        return self.blobs / etag

    def part(self, etag: str) -> Path:
        return self.blobs / f"{etag}{PART}"

    def staged(self, etag: str, commit: str) -> Path:
        """Where a whole content waits for the commit's snapshot; see `staging`."""
        return self.blobs / f"{etag}.{commit}{STAGED}"

    def all_staged(self, etag: str) -> list[Path]:
        """Wherever it waits, for whichever commit."""
        return list(self.blobs.glob(f"{etag}.*{STAGED}"))

    def unfinished(self, etag: str) -> tuple[Path, ...]:
        """All that a transfer may have left of it: by ranges, and by Xet; a journal's draft is there for a moment."""
        parts, journals = (PART, f"{PART}{XET}"), ("", JOURNAL, f"{JOURNAL}.new")
        return tuple(self.blobs / f"{etag}{part}{journal}" for part in parts for journal in journals)

    def lock(self, etag: str) -> Path:
        return self.locks / f"{etag}.lock"

    def snapshot(self, commit: str) -> Path:
        return self.snapshots / commit

    def tree(self, commit: str) -> Path:
        return self.trees / f"{commit}.json"

    def linking(self, commit: str) -> list[Path]:
        """The notes of links that are being made in the commit's snapshot, or were when their maker was killed."""
        return list(self.root.glob(f".{commit}-*{LINKING}"))

    def temporary(self) -> Path:
        """A name that nobody else has and no reader of the cache looks at: neither in `snapshots` nor in `refs`."""
        return self.root / draft_name()


def draft_name() -> str:
    return f".{uuid.uuid4().hex}.tmp"


def check_names(plan: Plan) -> None:
    """Every name that becomes a path, once more: a plan may come from a ledger. Raises UnsafeFileName."""
    if not COMMIT.fullmatch(plan.commit) or ".." in plan.revision.split("/") or plan.revision.startswith("/"):
        raise UnsafeFileName(f"The plan of {plan.model_id} names a commit or revision that cannot be a file name.")
    for file in plan.tree:
        check_path(file.path)
        if not _ETAG.fullmatch(file.etag):
            raise UnsafeFileName(f"The plan of {plan.model_id} names a hash that cannot be a file name.")


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Tell what the disk refuses in our words. ``where``: the folder to speak of when the system names no path."""
    try:
        yield
    except OSError as error:
        path = error.filename if isinstance(error.filename, str) else str(where)
        reason = error.strerror or type(error).__name__
        if error.errno in _FULL:
            raise DiskFull(f"The cache's disk is full: {path} cannot be written.") from error
        if error.errno in _BARRED:
            advice = READ_ONLY_ADVICE if error.errno == errno.EROFS else None
            raise CacheNotWritable(f"The cache cannot be used: {path}: {reason}.", advice=advice) from error
        raise CacheFailed(f"The cache's disk failed: {path}: {reason}.") from error


def prove_writable(folder: Path) -> None:
    """Make a folder if it is not there, and write a file in it that nobody sees. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
            file.flush()
    except OSError as error:
        # Python would name its invisible file.
        error.filename = str(folder)
        raise


def remove(path: Path) -> int:
    """Bytes that the disk got back; of a file with holes only what it really took."""
    try:
        stat = path.lstat()
        path.unlink()
    except FileNotFoundError:
        return 0
    return min(stat.st_size, stat.st_blocks * 512)


def has_symlinks(folder: Path) -> bool:
    """Whether the disk of a writable folder knows symbolic links."""
    probe = folder / draft_name()
    try:
        probe.symlink_to("nowhere")
    except OSError as error:
        if error.errno in _FULL:
            raise
        return False
    probe.unlink()
    return True


def folds_names(folder: Path) -> bool:
    """Whether the disk of a writable folder takes names for the same that differ in case or Unicode form."""
    name = f".{uuid.uuid4().hex}-É.TMP"
    probe = folder / name
    probe.touch()
    try:
        return any((folder / other).exists() for other in (name.casefold(), unicodedata.normalize("NFD", name)))
    finally:
        probe.unlink()
