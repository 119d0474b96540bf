"""Which blobs were hashed and found right, remembered by what the file looked like then."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import SQLAlchemyError

from mlx_manager.storage.database import reason_of, writing
from mlx_manager.storage.tables import verified_blobs as t

logger = logging.getLogger(__name__)


_NAMES_AT_ONCE = 500


class SqlVerifiedBlobs:
    """A `VerifiedBlobs`. Any thread may call. What it can't remember is hashed again: it never fails a download."""

    def __init__(self, engine: Engine) -> None:
        self._reading = engine
        self._writing = writing(engine)

    def is_verified(self, path: Path) -> bool:
        """The file is there, and it is the very one (size, mtime, file number) that was found right."""
        looks = _looks(path)
        if looks is None:
            return False
        try:
            with self._reading.connect() as connection:
                row = connection.execute(
                    select(t.c.size, t.c.mtime_ns, t.c.inode).where(t.c.path == _name(path))
                ).first()
        except SQLAlchemyError as error:
            said = "Could not look up whether %s was verified, so it is hashed again: %s."
            logger.warning(said, path, reason_of(error))
            return False
        return row is not None and row._asdict() == looks

    def remember(self, paths: Sequence[Path]) -> None:
        """Call it right after the files were found right, under their final names. One transaction for all of them."""
        names = [_name(path) for path in paths]
        rows = [{"path": _name(path), **looks} for path in paths if (looks := _looks(path)) is not None]
        try:
            with self._writing.begin() as connection:
                for start in range(0, len(names), _NAMES_AT_ONCE):
                    connection.execute(delete(t).where(t.c.path.in_(names[start : start + _NAMES_AT_ONCE])))
                if rows:
                    connection.execute(insert(t), rows)
        except SQLAlchemyError as error:
            which = f"{paths[0]} and {len(paths) - 1} more" if len(paths) > 1 else paths[0]
            said = "Could not remember that %s was verified; it is hashed again when next needed: %s."
            logger.warning(said, which, reason_of(error))


def _looks(path: Path) -> dict[str, Any] | None:
    """What tells this file from a changed one; None where there is no file."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "inode": str(stat.st_ino)}


def _name(path: Path) -> str:
    # A name that is not valid UTF-8 comes as surrogates, which no database takes.
    return str(path.absolute()).encode("utf-8", "backslashreplace").decode("utf-8")
