"""Downloads, their plans, and the memory of verified blobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "downloads",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True),
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("request_key", sa.String(64), nullable=False),
        sa.Column("model_id", sa.String(200), nullable=False),
        sa.Column("revision", sa.String(250), nullable=False),
        sa.Column("allow_patterns", sa.JSON()),
        sa.Column("ignore_patterns", sa.JSON()),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("desire", sa.String(16), nullable=False),
        sa.Column("node", sa.String(200)),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("last_event_id", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("phase", sa.String(32)),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("commit", sa.String(64)),
        sa.Column("total_bytes", sa.BigInteger(), nullable=False),
        sa.Column("total_is_estimate", sa.Boolean(), nullable=False),
        sa.Column("downloaded_bytes", sa.BigInteger(), nullable=False),
        sa.Column("reused_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False),
        sa.Column("files_done", sa.Integer(), nullable=False),
        sa.Column("files_total", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text()),
        sa.Column("error_code", sa.String(64)),
        sa.Column("advice", sa.Text()),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float()),
        sa.Column("finished_at", sa.Float()),
        sa.PrimaryKeyConstraint("number", name="pk_downloads"),
        sa.UniqueConstraint("task_id", name="uq_downloads_task_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_downloads_model_id", "downloads", ["model_id"])
    op.create_index("ix_downloads_status", "downloads", ["status"])
    op.create_index("ix_downloads_last_event_id", "downloads", ["last_event_id"])
    in_flight = sa.text("status NOT IN ('completed', 'failed', 'cancelled')")
    op.create_index(
        "uq_downloads_in_flight",
        "downloads",
        ["request_key"],
        unique=True,
        sqlite_where=in_flight,
        postgresql_where=in_flight,
    )
    op.create_table(
        "plans",
        sa.Column("task_id", sa.String(64), nullable=False),
        sa.Column("commit", sa.String(64), nullable=False),
        sa.Column("plan", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_plans"),
        sa.ForeignKeyConstraint(["task_id"], ["downloads.task_id"], name="fk_plans_task_id", ondelete="CASCADE"),
    )
    op.create_table(
        "verified_blobs",
        sa.Column("path", sa.String(4096), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("inode", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_verified_blobs"),
    )


def downgrade() -> None:
    op.drop_table("verified_blobs")
    op.drop_table("plans")
    op.drop_table("downloads")
