"""The numbers of the engine, in one place; where they come from is told in docs/adr/0002 and 0008."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class TransferLimits:
    """Seconds, bytes, bytes per second.

    ``told_after_s``: silence that the watchers hear of. ``stall_s``: silence, or a rate below ``min_rate_bps``, after
    which a connection is replaced; it doubles up to ``stall_max_s`` while that does not help. ``sync_every_s``: how
    often received bytes are made durable and journaled, so the most that a crash can cost; the first time, after
    ``first_sync_s``, is early, so that the disk has begun when a fast line has ended. ``open_files``: how many
    files have descriptors at a time, two each. ``backoff_near_s``: the most between two tries of a host that cannot be
    reached, for about a minute. ``refusals``: fresh addresses asked for in a row without a range from any of them.

    ``connections`` is the most of one download; it begins with ``first_connections`` and adapts. A connection that
    brings less than ``lag_share`` of what its siblings bring, for as long as a piece should take (``lag_least_s`` to
    ``lag_most_s``), is replaced. A rest of ``split_bytes`` or more is shared with a connection that has nothing to do.
    """

    connections: int = 32
    first_connections: int = 8
    lag_share: float = 0.15
    lag_least_s: float = 0.6
    lag_most_s: float = 3.0
    split_bytes: int = 2 * MIB
    split_worth_s: float = 0.4
    piece_bytes: int = 16 * MIB
    write_bytes: int = 512 * 1024
    flush_every_s: float = 0.25
    told_after_s: float = 4.0
    stall_s: float = 10.0
    stall_max_s: float = 60.0
    min_rate_bps: float = 1024.0
    backoff_first_s: float = 0.5
    backoff_max_s: float = 60.0
    backoff_near_s: float = 2.0
    first_sync_s: float = 0.1
    sync_every_s: float = 1.0
    hash_attempts: int = 3
    refusals: int = 5
    lock_poll_s: float = 0.25
    open_files: int = 64
