"""The tables of the ledger. A change here needs a migration; a test compares the two."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    event,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite hands out row ids by itself for INTEGER alone; elsewhere the number may outgrow 32 bits.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

downloads = Table(
    "downloads",
    metadata,
    # The order of arrival: wall clocks jump, this does not.
    Column("number", _Serial, primary_key=True, autoincrement=True),
    Column("task_id", String(64), nullable=False, unique=True),
    # What was asked for. `request_key` is a hash of the four columns after it.
    Column("request_key", String(64), nullable=False),
    Column("model_id", String(200), nullable=False, index=True),
    Column("revision", String(250), nullable=False),
    Column("allow_patterns", JSON(none_as_null=True)),
    Column("ignore_patterns", JSON(none_as_null=True)),
    Column("priority", Integer, nullable=False),
    # Who holds it, and what the person wants of it.
    Column("desire", String(16), nullable=False),
    Column("node", String(200)),
    Column("epoch", Integer, nullable=False),
    Column("last_event_id", BigInteger, nullable=False, index=True),
    # How it stands. Moments in seconds since 1970, sizes in bytes.
    Column("status", String(16), nullable=False, index=True),
    Column("phase", String(32)),
    Column("message", Text, nullable=False),
    Column("since", Float, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("commit", String(64)),
    Column("total_bytes", BigInteger, nullable=False),
    Column("total_is_estimate", Boolean, nullable=False),
    Column("downloaded_bytes", BigInteger, nullable=False),
    Column("reused_bytes", BigInteger, nullable=False),
    Column("received_bytes", BigInteger, nullable=False),
    Column("files_done", Integer, nullable=False),
    Column("files_total", Integer, nullable=False),
    Column("error", Text),
    Column("error_code", String(64)),
    Column("advice", Text),
    Column("created_at", Float, nullable=False),
    Column("started_at", Float),
    Column("finished_at", Float),
    # AUTOINCREMENT: the number of a deleted row is never given again, so a page's cursor stays true.
    sqlite_autoincrement=True,
)

_in_flight = text("status NOT IN ('completed', 'failed', 'cancelled')")

# The last word on "the same request in flight is one download", also between processes.
one_in_flight = Index(
    "uq_downloads_in_flight",
    downloads.c.request_key,
    unique=True,
    sqlite_where=_in_flight,
)


@event.listens_for(downloads, "before_create")
def _for_postgresql(_table: Table, connection: Connection, **_: Any) -> None:
    """The same condition there. Not as an argument above, which would have that dialect imported for a SQLite file too:
    a twentieth of the start of a command."""
    if connection.dialect.name == "postgresql":
        one_in_flight.dialect_options["postgresql"]["where"] = _in_flight


plans = Table(
    "plans",
    metadata,
    Column("task_id", String(64), ForeignKey(downloads.c.task_id, ondelete="CASCADE"), primary_key=True),
    Column("commit", String(64), nullable=False),
    Column("plan", JSON, nullable=False),
)

verified_blobs = Table(
    "verified_blobs",
    metadata,
    Column("path", String(4096), primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    # Text, since a file number may use all 64 bits.
    Column("inode", String(20), nullable=False),
)
