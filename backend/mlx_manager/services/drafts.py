"""Files that are only ever replaced as a whole: who reads one sees all of the old or all of the new.

What is not yet whole is a draft beside it, and a process that is killed leaves its draft behind, for `sweep`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path

log = logging.getLogger(__name__)

_DRAFT = re.compile(r".+\.\d+-\d+\.draft")


def replace_whole(file: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Put ``data`` in the place of ``file``, in a folder that is there; ``mode`` as far as the umask lets it. Raises
    OSError, with the old file and no draft left."""
    draft = draft_of(file)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as out:
            out.write(data)
        draft.replace(file)
    except OSError:
        _remove(draft)
        raise


def draft_of(file: Path) -> Path:
    """Where this thread writes what is to become ``file``."""
    return file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}.draft")


def sweep(folder: Path) -> None:
    """Remove every draft of a folder that may not be there. A writer that lives is refused its one file."""
    try:
        with os.scandir(folder) as entries:
            drafts = [Path(entry.path) for entry in entries if _DRAFT.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        log.debug("%s cannot be looked through for drafts: %s", folder, error.strerror)
        return
    for draft in drafts:
        _remove(draft)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(draft: Path) -> None:
    try:
        draft.unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s is left: %s", draft, error.strerror)
